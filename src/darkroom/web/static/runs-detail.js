// One run: what it was made from and what was made of it, its receipt, curves, previews and checkpoints, and its export.
import { api, doing, el, file, follow, one, plot, report, tell } from "/static/core.js";
import { film } from "/static/film.js";
import { stateBadge } from "/static/badges.js";

const short = (hash) => (hash ? hash.slice(0, 12) : "");

export async function showRun(name, place) {
  const run = await api(`/api/runs/run?name=${encodeURIComponent(name)}`);
  const film_place = el("section.sheet", { "aria-label": "Previews", hidden: true });
  place.replaceChildren(head(run), lineage(run), run.rows?.length ? curves(run) : "", film_place, checkpoints(run), exporting(run), receipt(run));
  const live = await api(`/api/train/run?name=${encodeURIComponent(name)}&after=`);
  if (live.frames.length) { film_place.hidden = false; film(film_place).update(live.frames, live.prompts); }
}

function head(run) {
  const draws = run.product ? `/draw?adapter=${encodeURIComponent(`${run.run}/${run.product}`)}` : null;
  return el("section.sheet", { "aria-label": "Run" }, el("header", {}, el("h2.grow.clip", { title: run.run }, run.run), stateBadge(run.state)),
    el("p.soft", {}, [run.method, run.subject, run.words].filter(Boolean).join(" · ")), run.warning ? el("div.note.warn", {}, run.warning) : "",
    el("div.row", {}, draws ? el("a.button.primary", { href: draws }, "Draw with it") : "", el("a.button", { href: `/train?run=${encodeURIComponent(run.run)}` }, "Watch"), draws ? el("a.button", { href: `/compare?run=${encodeURIComponent(run.run)}` }, "Compare") : "",
      el("a.button", { href: `/train?recipe=${encodeURIComponent(`${run.run}/recipe.toml`)}` }, "New one like it")));
}

const ADDRESS = { trial: (path) => `/compare?trial=${encodeURIComponent(path)}`, pictures: (path) => `/pictures?dataset=${encodeURIComponent(path)}`, "held out": (path) => `/pictures?dataset=${encodeURIComponent(path)}`, class: (path) => `/pictures?dataset=${encodeURIComponent(path)}`, adapter: (path) => `/runs?adapter=${encodeURIComponent(path)}`, merged: (path) => `/runs?adapter=${encodeURIComponent(path)}` };

function node(link) {
  const address = link.path && ADDRESS[link.kind]?.(link.path);
  return el("div.node", {}, el("span.small.soft", {}, link.kind), address ? el("a", { href: address }, link.name) : el("b", {}, link.name), el("span.small", {}, link.words), link.sha256 ? el("span.mono", { title: link.sha256 }, `sha256 ${short(link.sha256)}`) : "");
}

function lineage(run) {
  if (!run.before.length) return "";
  const arrow = () => el("span.arrow", { "aria-hidden": "true" }, "→"), after = run.after.filter((link) => link.kind !== "adapter"), own = run.after.find((link) => link.kind === "adapter");
  return el("section.sheet", { "aria-label": "What was made from what" }, el("h2", {}, "What was made from what"), el("div.lineage", {}, el("div.column", {}, run.before.map(node)), arrow(),
    el("div.column", {}, el("div.node.own", {}, el("span.small.soft", {}, "run"), el("b", {}, run.run.split("/").pop()), el("span.small", {}, `${run.done} steps, ${run.method}`)), own ? node(own) : ""), arrow(),
    el("div.column", {}, after.length ? after.map(node) : el("span.small.soft", {}, own ? "Nothing was made of it yet: no export, merge or trial." : "It has not ended: nothing is made of it yet."))));
}

function curves(run) {
  const pick = (key) => run.rows.filter((row) => row[key] !== undefined && row[key] !== null).map((row) => [row.step, row[key]]);
  const series = [{ name: "each step", colour: 1, faint: true, points: pick("loss") }, { name: "smoothed", colour: 1, points: pick("smooth") }, { name: "held out", colour: 2, points: pick("validation") }].filter((line) => line.points.length);
  return el("section.sheet", { "aria-label": "Loss" }, el("h2", {}, "Loss"), plot(series, { y: "loss", width: Math.max(320, Math.min(760, one("#detail").clientWidth - 34)) }));
}

function checkpoints(run) {
  if (!run.checkpoints.length) return "";
  const ask = (event) => doing(event.currentTarget, async () => {
    const { order } = await api("/api/runs/pick", { method: "POST", body: { run: run.run } });
    tell("Every checkpoint is drawn and measured: it is in the queue.");
    const job = await follow(order);
    if (job.state === "done") { tell(job.result?.sentence || "Picked."); if (job.result?.page) location.assign(report(`${run.run}/pick/pick.html`)); }
  });
  return el("section.sheet", { "aria-label": "Checkpoints" }, el("header", {}, el("h2.grow", {}, "Checkpoints"), run.pick ? el("a.button.small", { href: report(run.pick), target: "_blank", rel: "noopener" }, "The pick") : "", run.product ? el("button.small", { onclick: ask, title: "Draws with each of them and measures likeness and drift" }, "Which one to keep?") : ""),
    el("div.scroll", {}, el("table", {}, el("thead", {}, el("tr", {}, el("th.num", {}, "Step"), el("th.num", {}, "Held-out loss"), el("th", {}, ""), el("th", {}, "File"))),
      el("tbody", {}, run.checkpoints.map((each) => el("tr", {}, el("td.num", {}, each.step), el("td.num", {}, each.held_out === null ? "" : +each.held_out.toPrecision(4)), el("td", {}, each.best ? el("span.badge.good", {}, "lowest") : ""),
        el("td", {}, el("div.row", {}, el("a.small", { href: file(each.file) }, "Save"), el("a.small", { href: `/draw?adapter=${encodeURIComponent(each.file)}` }, "Draw with it")))))))));
}

function exporting(run) {
  if (!run.product) return "";
  const field = (key, label, value, help = "", kind = "text") => el("div.field", {}, el("label", { for: `x-${key}` }, label), el("input", { id: `x-${key}`, type: kind, value, autocomplete: "off", placeholder: help }));
  const trials = run.after.filter((link) => link.kind === "trial" && link.path), leaf = run.run.split("/").pop();
  const steps = el("select", { id: "x-step" }, el("option", { value: "" }, "the end"), run.checkpoints.map((each) => el("option", { value: each.step }, `step ${each.step}${each.best ? ", lowest held-out loss" : ""}`)));
  const trial = el("select", { id: "x-trial" }, el("option", { value: "" }, "none"), trials.map((link) => el("option", { value: link.path }, link.name)));
  const form = el("form.stack", {}, el("p.small.soft", {}, "A folder ready for the hub, A1111 and ComfyUI: the adapter, a card, pictures with their prompts, the recipe and the receipt. Nothing in it names a path of this machine."),
    el("div.fields", {}, field("to", "Folder", `exports/${leaf}`), field("name", "File name", "", "as the subject"), el("div.field", {}, el("label", { for: "x-step" }, "As it was after"), steps), field("weight", "Recommended weight", "1", "", "number"), field("license", "Licence", "", "other"), el("div.field", {}, el("label", { for: "x-trial" }, "Trial on the card"), trial)),
    el("div.row", {}, el("button.primary", { type: "submit" }, "Export")));
  one("#x-weight", form).step = "0.05";
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const value = (key) => one(`#x-${key}`, form).value.trim();
    doing(event.submitter, async () => {
      const { order, to } = await api("/api/runs/export", { method: "POST", body: { run: run.run, to: value("to"), name: value("name"), step: value("step") ? Number(value("step")) : null, weight: Number(value("weight")), license: value("license"), trial: value("trial") || null } });
      const job = await follow(order);
      if (job.state !== "done") { form.append(el("div.note.bad", {}, job.message || `It ended ${job.state}.`)); return; }
      tell(`${to} holds ${(job.result?.files || []).join(", ")}.`);
      await showRun(run.run, one("#detail"));
    });
  });
  return el("section.sheet", { "aria-label": "Export" }, el("h2", {}, "Export"), form);
}

function receipt(run) {
  const facts = run.receipt, result = facts.result || {}, rows = [];
  const add = (name, value) => { if (value !== undefined && value !== null && value !== "") rows.push(el("dt", {}, name), el("dd", {}, value)); };
  const hash = (value) => (value ? el("span.mono", {}, value) : undefined);
  add("Darkroom", facts.darkroom); add("Device", [facts.device, facts.precision, facts.hardware?.gpu || facts.hardware?.processor].filter(Boolean).join(", ")); add("Exact", facts.exact); add("Seed", facts.seed); add("Pictures", facts.pictures ? `${facts.pictures}${facts.held_out ? `, ${facts.held_out} held out` : ""}` : undefined);
  add("Pictures' sha256", hash(facts.pictures_sha256)); add("Dataset", facts.dataset); add("Base", facts.base); add("Base's sha256", hash(facts.base_sha256)); add("Adapter's sha256", hash(result.adapter_sha256));
  add("Steps", result.steps); add("Seconds a step", result.seconds_per_step); add("Most memory", result.peak_memory_mib ? `${result.peak_memory_mib} MiB` : undefined); add("Settled at", result.settled); add("Said", (result.told || []).join(" "));
  add("Libraries", Object.entries(facts.libraries || {}).map(([name, version]) => `${name} ${version}`).join(", "));
  return el("section.sheet", { "aria-label": "Receipt" }, el("h2", {}, "Receipt"), rows.length ? el("dl.facts", {}, rows) : el("p.soft", {}, "It has none that can be read."), run.recipe ? el("details", {}, el("summary", {}, "The whole recipe"), el("pre", { tabindex: "0" }, run.recipe)) : "");
}
