// Runs and adapters: the two lists, and what is chosen in them.
import { all, api, bytes, doing, el, every, keys, one, send, takeFiles, tell } from "/static/core.js";
import { showRun } from "/static/runs-detail.js";
import { mergeForm, showAdapter } from "/static/runs-adapter.js";
import { stateBadge } from "/static/badges.js";

const asked = new URLSearchParams(location.search), list = one("#list"), detail = one("#detail");
const ticked = new Map();
let which = asked.has("adapter") ? "adapters" : "runs", runs = [], adapters = [], chosen = "", drawn = "";
const number = (value) => (value === null || value === undefined ? "" : String(+value.toPrecision(4)));
const day = (seconds) => new Date(1000 * (seconds - 60 * new Date(1000 * seconds).getTimezoneOffset())).toISOString().slice(0, 16).replace("T", " ");

async function look() {
  if (which === "runs") runs = (await api("/api/train/runs")).runs; else adapters = (await api("/api/runs/adapters")).adapters;
  draw();
}

function draw() {
  const words = one("#filter").value.toLowerCase().split(/\s+/).filter(Boolean), fits = (thing) => { const text = JSON.stringify(thing).toLowerCase(); return words.every((word) => text.includes(word)); };
  const rows = (which === "runs" ? runs : adapters).filter(fits), stamp = JSON.stringify([which, chosen, rows, [...ticked.keys()]]);
  if (stamp === drawn) return;
  drawn = stamp;
  const active = document.activeElement, focused = list.contains(active) ? [active.dataset.name || active.value, active.tagName] : null;
  list.setAttribute("aria-labelledby", `tab-${which}`);
  list.replaceChildren(...(which === "runs" ? runTable(rows) : adapterTable(rows)));
  if (focused) all("button, input", list).find((each) => [each.dataset.name, each.value].includes(focused[0]) && each.tagName === focused[1])?.focus();
}

function runTable(rows) {
  if (!rows.length) return [el("div.empty", {}, runs.length ? "No run has these words." : "No run yet.", el("a.button", { href: "/train" }, "Train"))];
  return [el("div.scroll", {}, el("table", {}, el("caption.hidden-words", {}, "Runs, the newest first"), el("thead", {}, el("tr", {}, ["Run", "State", "Method", "Pictures", "Steps", "Loss", "Held out", "Size", "When"].map((head, i) => el(i > 2 && i < 8 ? "th.num" : "th", {}, head)))),
    el("tbody", {}, rows.map((run) => el(run.run === chosen ? "tr.chosen" : "tr", { onclick: () => choose(run.run, true) },
      el("td.wide", {}, el("button.link", { dataset: { name: run.run }, "aria-current": run.run === chosen ? "true" : null }, run.run)), el("td", {}, stateBadge(run.state)), el("td", {}, run.method), el("td.num", {}, run.pictures ?? ""),
      el("td.num", {}, run.total === null ? "" : run.done === run.total ? String(run.total) : `${run.done}/${run.total}`), el("td.num", {}, number(run.loss)), el("td.num", { title: run.best_step === null ? "" : `at step ${run.best_step}` }, number(run.best)), el("td.num", {}, run.size === null ? "" : bytes(run.size)), el("td", {}, run.when))))))];
}

function adapterTable(rows) {
  const drop = el("div.empty.drop", { role: "button", tabindex: "0" }, "Drop a .safetensors here, or press Enter to choose one. It goes into adapters/.");
  const open = takeFiles(drop, { accept: ".safetensors", many: true }, take);
  drop.addEventListener("click", (event) => { if (event.target === drop) open(); });
  drop.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(); } });
  const merge = el("button", { disabled: ticked.size < 2, onclick: () => { chosen = ""; detail.replaceChildren(mergeForm([...ticked.keys()])); detail.scrollIntoView({ block: "nearest" }); } }, ticked.size < 2 ? "Tick two or more to merge" : `Merge ${ticked.size}`);
  return [el("div.row", {}, el("span.grow.soft.small", {}, `${rows.length} ${rows.length === 1 ? "file" : "files"}`), merge), rows.length ? el("div.scroll", {}, el("table", {}, el("caption.hidden-words", {}, "Adapters, the newest first"), el("thead", {}, el("tr", {}, ["", "File", "Words", "Method", "Rank", "Base", "Size", "When"].map((head, i) => el(i === 6 ? "th.num" : "th", {}, head || el("span.hidden-words", {}, "Merge"))))),
    el("tbody", {}, rows.map((each) => el(each.name === chosen ? "tr.chosen" : "tr", { onclick: (event) => { if (!event.target.closest("input")) choose(each.name, true); } },
      el("td", {}, el("input", { type: "checkbox", value: each.name, checked: ticked.has(each.name), disabled: Boolean(each.damaged), "aria-label": `Merge ${each.name}`, onchange: (event) => { if (event.target.checked) ticked.set(each.name, true); else ticked.delete(each.name); draw(); } })),
      el("td.wide", {}, el("button.link", { dataset: { name: each.name } }, each.name), each.damaged ? el("span.badge.bad", {}, each.damaged) : ""), el("td", {}, each.words, each.negative ? el("span.badge", {}, "negative") : ""), el("td", {}, each.method), el("td", {}, each.rank), el("td.clip", { title: each.base }, each.base.split("/").pop()), el("td.num", {}, bytes(each.size)), el("td", {}, day(each.changed))))))) : "", drop];
}

async function take(files) {
  await doing(null, async () => {
    const { taken, refused } = await send(files.filter(({ name }) => name.endsWith(".safetensors")).map(({ file, name }) => ({ file, name: name.split("/").pop() })));
    for (const each of refused) tell(`${each.name}: ${each.why}`, "bad");
    for (const each of taken) { const moved = await api("/api/runs/adopt", { method: "POST", body: { name: each.name } }); tell(`${moved.name} is there.`); choose(moved.name); }
    if (!taken.length && !refused.length) tell("An adapter is a .safetensors file.", "bad");
    await look();
  });
}

function choose(name, go = false) {
  chosen = name;
  history.replaceState(null, "", `/runs?${which === "runs" ? "run" : "adapter"}=${encodeURIComponent(name)}`);
  draw();
  detail.replaceChildren(el("p.soft", {}, "Looking ..."));
  const work = which === "runs" ? showRun(name, detail) : showAdapter(name, detail, adapters.find((each) => each.name === name));
  work.then(() => { if (go && matchMedia("(max-width: 1239px)").matches) detail.scrollIntoView({ block: "start" }); }).catch((error) => { if (chosen === name) detail.replaceChildren(el("div.note.bad", {}, error.message)); });
}

async function tab(name) {
  which = name; chosen = ""; drawn = "";
  for (const each of ["runs", "adapters"]) { one(`#tab-${each}`).setAttribute("aria-selected", String(each === name)); one(`#tab-${each}`).tabIndex = each === name ? 0 : -1; }
  detail.replaceChildren();
  list.replaceChildren(el("p.soft", {}, "Looking ..."));
  await doing(null, look);
}

/** What an order of this page was about, and what came of it. */
async function ordered(id) {
  const job = await api(`/api/jobs/${id}`), argv = job.order?.argv || [], words = job.state === "done" ? `${job.title}: done.` : `${job.title}: ${job.message || job.state}`;
  if (["export", "pick"].includes(argv[0])) choose(argv[1]);
  else { await tab("adapters"); const made = [].concat(job.result?.out || argv[argv.indexOf("--out") + 1] || argv[2])[0], known = adapters.find((each) => made && made.endsWith(each.name)); if (known) choose(known.name); }
  tell(words, ["failed", "lost"].includes(job.state) ? "bad" : "good");
}

function step(by) {
  const names = all("#list tbody .link").map((link) => link.dataset.name), at = names.indexOf(chosen);
  if (names.length) choose(names[Math.max(0, Math.min(names.length - 1, at + by))]);
}

for (const name of ["runs", "adapters"]) one(`#tab-${name}`).addEventListener("click", () => tab(name));
one("[role=tablist]").addEventListener("keydown", (event) => { if (["ArrowLeft", "ArrowRight"].includes(event.key)) { const other = which === "runs" ? "adapters" : "runs"; tab(other); one(`#tab-${other}`).focus(); } });
one("#filter").addEventListener("input", draw);
keys({ "/": ["Filter", () => one("#filter").focus()], j: ["Next", () => step(1)], k: ["The one before", () => step(-1)], r: ["Runs", () => tab("runs")], a: ["Adapters", () => tab("adapters")] });
await tab(which);
if (asked.get("job")) await doing(null, () => ordered(asked.get("job")));
else if (asked.get("run") || asked.get("adapter")) choose(asked.get("run") || asked.get("adapter"));
else if (which === "runs" && runs.length) choose(runs[0].run);
every(4000, look);
