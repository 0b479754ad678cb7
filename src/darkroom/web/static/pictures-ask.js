// What a job does for the dataset: screen, caption, prepare; and how far the jobs are that were asked for.
import { api, doing, el, follow, lasting, one, tell } from "/static/core.js";
import { emit, many, store } from "/static/pictures-store.js";

let known;
const asked = () => (known ??= api("/api/pictures/asked"));

/** Ask for a job: put(what, body, button) -> the orders, watched in the page. */
export async function put(what, body, button) {
  const answer = await doing(button, () => api(`/api/pictures/${what}`, { method: "POST", body: { dataset: store.dataset, ...body } }));
  if (answer) watch(answer.orders);
  return answer;
}

const watched = new Set();
/** Show jobs at the top of the page until they have ended. Resolves to the ended jobs. */
export function watch(orders) {
  return Promise.all(orders.filter((id) => !watched.has(id)).map(async (id) => {
    watched.add(id);
    const words = el("span.grow", {}), fill = el("i", {}), meter = el("div.meter", { "aria-hidden": "true" }, fill);
    const stop = el("button.small.danger", { onclick: (event) => doing(event.currentTarget, () => api(`/api/jobs/${id}/cancel`, { method: "POST", body: {} })) }, "Cancel");
    const strip = el("section.job", { "aria-label": "A job" }, el("div.row", {}, words, stop), meter);
    one("#jobs").append(strip);
    const ended = await follow(id, (job) => {
      const progress = job.progress, share = progress?.total ? progress.done / progress.total : 0;
      words.textContent = job.state === "waiting" ? `${job.title}: waits, place ${job.place}` : `${job.title}${progress ? `: ${progress.what} ${progress.done} of ${progress.total}${progress.note ? `, ${progress.note}` : ""}${progress.left ? `, ${lasting(progress.left)} left` : ""}` : "…"}`;
      fill.style.width = `${100 * share}%`;
    });
    stop.remove(); meter.remove();
    emit("ended", ended);
    if (ended.state === "done") { strip.remove(); return ended; }
    words.textContent = `${ended.title}: ${ended.message || ended.state}`;
    strip.append(el("div.row", {}, ended.again ? el("button.small", { onclick: (event) => doing(event.currentTarget, async () => { const job = await api(`/api/jobs/${id}/resume`, { method: "POST", body: {} }); strip.remove(); watch([job.order]); }) }, "Go on") : null,
      el("button.small.ghost", { onclick: () => strip.remove() }, "Close")));
    strip.classList.add("failed");
    return ended;
  }));
}

const field = (name, input, help) => el("label.field", {}, el("span.label", {}, name), input, help ? el("span.help", {}, help) : null);
const tick = (words, checked = false) => el("label.check", {}, el("input", { type: "checkbox", checked }), words);
const ticked = (label) => label.firstChild.checked;

/** The form that has captions written. */
export function captioning() {
  const fields = el("div.stack", {}), about = el("p.small.soft", {});
  const by = el("select", { "aria-label": "Who writes them", onchange: shape });
  const name = el("input", { placeholder: "its own" }), trigger = el("input", { placeholder: "TOK" }), prefix = el("input", {}), suffix = el("input", {});
  const choose = tick("Learn from them from now on", true), again = tick("Caption anew what has such a caption"), missing = tick("Only pictures without any caption");
  let captioners = [], inputs = {};
  function shape() {
    const one = captioners.find(({ kind }) => kind === by.value);
    about.textContent = one.about;
    inputs = Object.fromEntries(one.settings.map((setting) => [setting.name, el(setting.name === "prompt" || setting.name === "template" ? "textarea" : "input", { placeholder: String(setting.default ?? ""), rows: 2 })]));
    fields.replaceChildren(...one.settings.map((setting) => field(setting.name.replace("_", " "), inputs[setting.name], setting.about)));
  }
  const go = el("button.primary", { onclick: (event) => {
    const settings = Object.fromEntries(Object.entries(inputs).map(([key, input]) => [key, input.value]).filter(([, value]) => value.trim()).map(([key, value]) => [key, /^\d+(\.\d+)?$/.test(value) ? Number(value) : value]));
    put("caption", { by: by.value, ...settings, name: name.value, trigger: trigger.value, prefix: prefix.value, suffix: suffix.value, choose: ticked(choose), again: ticked(again), only_missing: ticked(missing) }, event.currentTarget);
  } }, "Write captions");
  const box = el("details.sheet", {}, el("summary", {}, "Have captions written"), el("div.stack", {}, by, about, fields,
    el("details", {}, el("summary", {}, "More"), el("div.fields", {}, field("Trigger", trigger, "Put in front of captions that do not hold it."), field("Prefix", prefix), field("Suffix", suffix), field("Kept under the name", name))), choose, again, missing, el("div", {}, go)));
  box.addEventListener("toggle", () => { if (box.open && !captioners.length) doing(null, async () => {
    captioners = (await asked()).captioners;
    by.replaceChildren(...captioners.map(({ kind }) => el("option", { value: kind }, kind)));
    shape();
  }); });
  return box;
}

/** The form that holds pictures out and finds subjects. */
export function preparing() {
  const amount = el("input", { placeholder: store.about?.prepare?.held_out || "10%", "aria-label": "Held out" }), seed = el("input", { type: "number", min: "0", placeholder: String(store.about?.prepare?.seed ?? 0) });
  const focus = tick("Find the subject of each, for crops"), alpha = tick("Transparent parts are not learned from"), masks = el("input", { placeholder: "a folder of the workspace" });
  return el("details.sheet", {}, el("summary", {}, "Prepare: hold out, subjects, masks"), el("div.stack", {},
    field("Held out", amount, "How many are not learned from but measured with: 12, 0.1 or 10%; 0 undoes it. Copies stay together."), field("Seed", seed), focus, alpha, field("Masks", masks, "Named as their pictures: white is learned from, black is not."),
    el("div", {}, el("button.primary", { onclick: (event) => put("prepare", { held_out: amount.value, ...(seed.value ? { seed: Number(seed.value) } : {}), masks: masks.value, focus: ticked(focus), alpha: ticked(alpha) }, event.currentTarget) }, "Prepare"))));
}

/** Ask what screening is to look for. */
export async function screening() {
  const dialog = one("#ask"), { checks } = await asked(), made = store.about.screen?.checks;
  const limits = checks.map((check) => {
    const on = tick(check.check, made ? check.check in made : check.wanted);
    const inputs = check.limits.filter((limit) => ["number", "string"].includes(typeof limit.default)).map((limit) => {
      const now = made?.[check.check]?.[limit.name] ?? limit.default;
      return { name: limit.name, now: String(now), input: el("input", { value: String(now), "aria-label": `${check.check}: ${limit.name}`, title: limit.about || "" }), about: limit.about };
    });
    return { check, on, inputs, was: made ? check.check in made : check.wanted };
  });
  const go = el("button.primary", { onclick: async (event) => {
    const set = limits.flatMap(({ check, on, inputs }) => (ticked(on) ? inputs.filter(({ input, now }) => input.value.trim() !== now).map(({ name, input }) => `${check.check}.${name}=${input.value.trim()}`) : []));
    const body = { with: limits.filter(({ on, was }) => ticked(on) && !was).map(({ check }) => check.check), without: limits.filter(({ on, was }) => !ticked(on) && was).map(({ check }) => check.check), set };
    if (await put("screen", body, event.currentTarget)) dialog.close();
  } }, "Screen");
  dialog.replaceChildren(el("div.stack", {}, el("h2", {}, "Screen"), el("p.small.soft", {}, "Every picture is judged; none is moved or deleted, and your own words stay. Pictures that were looked at before are not read again."),
    el("div.scroll", {}, el("table", {}, el("tbody", {}, limits.map(({ check, on, inputs }) => el("tr", {}, el("td", {}, on), el("td", {}, el("div.small.soft", {}, check.asks), el("div.limits", {}, inputs.map(({ name, input }) => el("label.small", {}, `${name} `, input)))))))) ),
    el("div.row", {}, go, el("button", { onclick: () => dialog.close() }, "Cancel"))));
  dialog.showModal();
}

/** Rows that gave no picture, with the reason. */
export async function failures(dataset = store.dataset) {
  const dialog = one("#ask"), { total, failures: rows } = await api(`/api/pictures/failures?dataset=${encodeURIComponent(dataset)}`);
  if (!total) { tell("Every file and address gave a picture."); return; }
  dialog.replaceChildren(el("div.stack", {}, el("h2", {}, `${many(total, "row")} gave no picture`), el("div.scroll", {}, el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, "File or address"), el("th", {}, "Why"))),
    el("tbody", {}, rows.map((row) => el("tr", {}, el("td.wrap", {}, row.address), el("td", {}, row.reason, row.detail ? el("div.small.soft", {}, row.detail) : null, row.temporary ? el("span.badge.warn", {}, "may do better later") : null)))))),
    el("button", { onclick: () => dialog.close() }, "Close")));
  dialog.showModal();
}
