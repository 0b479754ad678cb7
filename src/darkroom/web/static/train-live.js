// Trainings that go on or are done: losses as they fall, previews as a film strip, and what can be asked of them. All of it is read from the run's own files.
import { api, doing, el, every, keys, lasting, one, plot, tell } from "/static/core.js";
import { film } from "/static/film.js";
import { stateBadge } from "/static/badges.js";

const short = (value, digits = 4) => (value === null || value === undefined ? "" : Math.abs(value) < .001 && value ? value.toExponential(2) : String(+value.toPrecision(digits)));
const going = (run) => ["training", "waiting"].includes(run.state);

export function watchRuns({ again }) {
  const list = one("#runs"), panel = one("#run");
  let runs = [], name = "", run = null, rows = [], after = "", shown = false, drawn = "", turn = 0, strip = null;

  async function look() {
    runs = (await api("/api/train/runs")).runs;
    const many = runs.filter(going).length;
    one("#going").textContent = many ? `(${many} going on)` : "";
    if (shown) draw();
  }

  function draw() {
    const at = list.contains(document.activeElement) ? document.activeElement.dataset.run : null;
    list.replaceChildren(runs.length ? el("h2.hidden-words", {}, "Trainings") : el("div.empty", {}, "No training yet.", el("button.small", { onclick: () => one("#tab-new").click() }, "Make one")),
      ...runs.slice(0, 200).map((each) => el("button.pick", { "aria-current": each.run === name ? "true" : null, dataset: { run: each.run }, onclick: () => open(each.run) },
        el("span.row", {}, el("b.grow.clip", {}, each.run.replace(/^runs\//, "")), stateBadge(each.order?.wish === "pause" ? "pausing" : each.order?.wish === "cancel" ? "stopping" : each.state)),
        el("span.small.soft.clip", {}, [each.method, each.total ? `${each.done}/${each.total}` : "", each.loss !== null ? `loss ${short(each.loss)}` : ""].filter(Boolean).join(" · ") || each.words))));
    if (at) list.querySelector(`[data-run="${CSS.escape(at)}"]`)?.focus();
  }

  function open(wanted) {
    if (wanted !== name) { name = wanted; run = null; rows = []; after = ""; drawn = ""; strip = null; panel.replaceChildren(el("p.soft", {}, "Looking ...")); }
    if (shown) history.replaceState(null, "", `/train?run=${encodeURIComponent(name)}`);
    draw();
    follow(true).catch((error) => panel.replaceChildren(el("div.note.bad", {}, error.message)));
  }

  async function follow(now = false) {
    turn += 1;
    if (!name || !shown || (!now && run && !going(run) && turn % 5)) return;
    const mine = name, found = await api(`/api/train/run?name=${encodeURIComponent(name)}&after=${encodeURIComponent(after)}`);
    if (mine !== name) return;
    rows = found.anew ? found.rows : [...rows, ...found.rows];
    after = rows.length > 5000 ? "" : found.after;
    run = found;
    render();
  }

  function render() {
    const shape = JSON.stringify([run.run, run.state, run.order?.wish, run.order?.id, run.words, run.product, run.order?.message]);
    if (shape !== drawn) { drawn = shape; panel.replaceChildren(...frame()); strip = null; }
    one("#figures", panel)?.replaceChildren(...figures());
    one("#progress", panel)?.replaceChildren(...progress());
    const stamp = `${rows.length} ${rows.at(-1)?.step}`;
    const curves = one("#curves", panel);
    if (curves && curves.dataset.stamp !== stamp) { curves.dataset.stamp = stamp; curves.replaceChildren(...plots()); }
    const place = one("#film", panel);
    if (place && run.frames.length) { strip ??= film(place, { run: run.run }); strip.update(run.frames, run.prompts); }
  }

  function frame() {
    const order = run.order, held = run.state === "training" && !order;
    return [
      el("section.sheet", { "aria-label": "Training" },
        el("header", {}, el("h2.grow.clip", { title: run.run }, run.run), stateBadge(order?.wish === "pause" ? "pausing" : order?.wish === "cancel" ? "stopping" : run.state)),
        el("div.stack.tight", { id: "progress", "aria-live": "off" }),
        el("dl.figures", { id: "figures" }),
        order?.message && !["done"].includes(order.state) ? el(`div.note${["failed", "lost"].includes(order.state) ? ".bad" : ""}`, {}, order.message) : !going(run) && run.words !== run.state ? el("div.note", {}, run.words) : null,
        held ? el("p.small.soft", {}, "Started on the command line: Ctrl-C there stops it after a saved step.") : null,
        el("div.row", {}, buttons())),
      run.rows || rows.length ? el("section.sheet", { "aria-label": "Curves" }, el("div", { id: "curves" })) : "",
      el("section.sheet", { "aria-label": "Previews", id: "film" }, run.frames.length ? "" : el("p.soft", {}, run.state === "waiting" ? "Previews appear here once it trains." : "No previews yet.")),
    ];
  }

  function buttons() {
    const order = run.order, ask = (what, id = order.id) => (event) => doing(event.currentTarget, async () => { await api(`/api/jobs/${id}/${what}`, { method: "POST", body: {} }); await look(); await follow(true); });
    const resumes = ["stopped", "interrupted", "paused", "failed"].includes(run.state) || (run.state === "not begun" && !going(run));
    return [
      order && run.state === "training" && !order.wish ? [el("button", { onclick: ask("pause"), title: "p" }, "Pause"), el("button.danger", { onclick: ask("cancel") }, "Stop")] : null,
      order && run.state === "waiting" ? [el("button", { onclick: ask("earlier") }, "Earlier"), el("button.danger", { onclick: ask("cancel") }, "Take out of the queue")] : null,
      resumes && run.total !== null ? el("button.primary", { title: "g", onclick: goOn }, "Go on") : null,
      run.product ? [el("a.button.primary", { href: `/draw?adapter=${encodeURIComponent(`${run.run}/${run.product}`)}` }, "Draw with it"), el("a.button", { href: `/compare?run=${encodeURIComponent(run.run)}` }, "Compare")] : null,
      run.method ? el("a.button", { href: `/runs?run=${encodeURIComponent(run.run)}` }, "Receipt and export") : null,
      run.method ? el("button", { onclick: () => again(run.run) }, "New one like it") : null,
      order && ["failed", "lost"].includes(order.state) ? el("button.ghost", { onclick: said }, "What it said") : null,
    ];
  }

  async function goOn(event) {
    await doing(event?.currentTarget, async () => {
      const order = run.order;
      if (order?.again && !order.followed_by) await api(`/api/jobs/${order.id}/resume`, { method: "POST", body: {} });
      else await api("/api/train/resume", { method: "POST", body: { run: run.run } });
      tell(`${run.run} goes on.`);
      await look(); await follow(true);
    });
  }

  async function said() {
    const { log } = await api(`/api/jobs/${run.order.id}/log`), dialog = el("dialog", { "aria-label": "What it said" });
    dialog.append(el("div.stack", {}, el("h2", {}, "What it said"), el("pre", {}, log || "nothing"), el("button", { onclick: () => dialog.close() }, "Close")));
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog); dialog.showModal();
  }

  function progress() {
    const now = run.order?.progress, share = run.total ? run.done / run.total : 0, before = now && now.what !== "training" && run.state === "training";
    const meter = el("div.meter", { role: "progressbar", "aria-valuenow": Math.round(100 * share), "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": "steps" }, el("i"));
    meter.firstChild.style.width = `${100 * share}%`;
    const place = run.order?.state === "waiting" ? `waits for its turn${run.order.place ? `, place ${run.order.place}` : ""}` : "";
    return [run.total ? meter : "", el("div.small.soft", {}, [run.total ? `step ${run.done} of ${run.total}` : "", before ? `${now.what} ${now.done}${now.total ? ` of ${now.total}` : ""}` : "", place, run.left ? `${lasting(run.left)} left` : "", !run.total && !place && !before ? run.words : ""].filter(Boolean).join(" · "))];
  }

  function figures() {
    const last = { ...run.latest, memory_mib: run.order?.progress?.figures?.memory_mib ?? run.facts?.result?.peak_memory_mib }, held = rows.filter((row) => row.validation !== undefined), best = held.length ? held.reduce((a, b) => (b.validation < a.validation ? b : a)) : null, now = held.at(-1);
    const trend = held.length < 2 ? "" : now.step === best.step ? "the lowest so far" : `${(100 * (now.validation / best.validation - 1)).toFixed(1)} % above step ${best.step}'s`;
    const found = [["loss", short(last.smooth ?? run.loss), "smoothed"], ["held out", short(now?.validation), trend], ["rate", short(last.rate, 3), ""], ["gradient", short(last.grad_norm, 3), ""],
      ["speed", run.speed ? (run.speed >= 1 ? `${short(run.speed, 3)} steps/s` : `${short(1 / run.speed, 3)} s a step`) : "", ""], ["memory", last.memory_mib ? `${short(last.memory_mib / 1024, 3)} GiB` : "", run.facts?.memory_mib ? `forecast ${short(run.facts.memory_mib.total / 1024, 3)} GiB without the libraries` : ""]];
    return found.filter(([, value]) => value).map(([what, value, more]) => el("div", {}, el("dt", {}, what), el("dd", {}, value, more ? el("span.small.soft", {}, ` ${more}`) : "")));
  }

  function plots() {
    const pick = (key) => rows.filter((row) => row[key] !== undefined && row[key] !== null).map((row) => [row.step, row[key]]);
    const losses = [{ name: "each step", colour: 1, faint: true, points: pick("loss") }, { name: "smoothed", colour: 1, points: pick("smooth") }, { name: "held out", colour: 2, points: pick("validation") }].filter((line) => line.points.length);
    const width = Math.max(320, Math.min(1000, panel.clientWidth - 34)), rate = pick("rate"), open = one("#curves details", panel)?.open;
    return [el("h2", {}, "Loss"), plot(losses, { y: "loss", width }), rate.length ? el("details", { open }, el("summary", {}, "Rate and gradient"), plot([{ name: "rate", colour: 3, points: rate }], { height: 140, width, y: "rate" }), plot([{ name: "gradient", colour: 4, points: pick("grad_norm") }], { height: 140, width, y: "norm" })) : ""];
  }

  keys({
    ArrowLeft: ["Earlier preview", () => strip?.move(-1)], ArrowRight: ["Later preview", () => strip?.move(1)], c: ["Hold this preview to compare", () => strip?.hold()],
    p: ["Pause", () => [...panel.querySelectorAll("button")].find((button) => button.textContent === "Pause")?.click()],
    g: ["Go on", () => [...panel.querySelectorAll("button")].find((button) => button.textContent === "Go on")?.click()],
  });

  return {
    open, name: () => name,
    seen(now) { shown = now; if (now) { draw(); if (name) follow(true).catch(() => {}); } },
    /** Look at what there is; true where something goes on or was asked for. */
    async begin({ run: wanted, job }) {
      await look().catch((error) => tell(error.message, "bad"));
      const asked = wanted || runs.find((each) => each.order?.id === job)?.run, first = runs.find(going) || runs[0];
      if (asked) open(asked); else if (first) open(first.run);
      every(3000, look); every(1000, follow);
      return Boolean(asked || runs.some(going));
    },
  };
}
