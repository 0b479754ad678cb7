// Pictures: the datasets of the workspace; of one its contact sheet, captions, duplicates and buckets.
import { api, doing, el, every, keys, knownKeys, one, tell } from "/static/core.js";
import { failures, screening, watch } from "/static/pictures-ask.js";
import { home, list } from "/static/pictures-bring.js";
import { buckets } from "/static/pictures-buckets.js";
import { captions } from "/static/pictures-captions.js";
import { copies } from "/static/pictures-copies.js";
import { sheet } from "/static/pictures-sheet.js";
import { chosen, clear, many, on, read, store, verdict } from "/static/pictures-store.js";

const VIEWS = { sheet, captions, copies, buckets };
const FILTERS = { all: "All", kept: "Kept", rejected: "Rejected", overruled: "By your word", unscreened: "Not screened", uncaptioned: "No caption", long: "Over 75 tokens", held_out: "Held out", copies: "Copies" };
let tab = "sheet", view = null, viewKeys = [];

function address() {
  const params = new URLSearchParams(store.dataset ? { dataset: store.dataset, ...(tab !== "sheet" ? { tab } : {}), ...(store.query.filter !== "all" ? { filter: store.query.filter } : {}) } : {});
  history.replaceState(null, "", `/pictures${params.size ? `?${params}` : ""}`);
}

async function open(dataset) {
  close();
  if (dataset !== store.dataset) Object.assign(store, { about: null, query: { filter: "all", text: "", sort: "name", down: "" } });
  store.dataset = dataset;
  clear();
  await read();
  read(true).catch((error) => tell(error.message, "bad"));  // files that came or went since: 10,000 take seconds
  one("#home").hidden = true;
  one("#dataset").hidden = one("#back").hidden = one("#learn").hidden = false;
  one("#learn").href = `/train?images=${encodeURIComponent(dataset)}`;
  one("#title").textContent = dataset.replace(/^datasets\//, "");
  document.title = `${one("#title").textContent} · Pictures · Darkroom`;
  turn(tab);
}

async function leave() {
  close();
  Object.assign(store, { dataset: "", about: null });
  one("#dataset").hidden = one("#back").hidden = one("#learn").hidden = true;
  one("#home").hidden = false;
  one("#title").textContent = "Pictures";
  document.title = "Pictures · Darkroom";
  one("#tally").textContent = "";
  address();
  await home(one("#home"), (dataset) => doing(null, () => open(dataset)));
}

function close() {
  view?.close();
  view = null;
  viewKeys.forEach((key) => knownKeys().delete(key));
}

function turn(next) {
  close();
  tab = next;
  for (const button of document.querySelectorAll("[data-tab]")) { button.setAttribute("aria-selected", String(button.dataset.tab === tab)); button.tabIndex = button.dataset.tab === tab ? 0 : -1; }
  one("#view").setAttribute("aria-labelledby", `tab-${tab}`);
  view = VIEWS[tab]();
  viewKeys = Object.keys(view.keys);
  keys(view.keys);
  one("#filters").hidden = view.filters === false;
  view.show(one("#view"));
  filters();
  selection();
  address();
  doing(null, () => view.renew(true));
}

function filters() {
  const { filters: counts, reasons } = store.about;
  const chip = (name, words, count) => el("button.chip", { "aria-pressed": String(store.query.filter === name), dataset: { filter: name }, onclick: () => pick(name) }, words, " ", el("span.soft", {}, count.toLocaleString("en")));
  const shown = Object.entries(FILTERS).filter(([name]) => name === "all" || counts[name] || store.query.filter === name).map(([name, words]) => chip(name, words, counts[name]));
  const at = document.activeElement?.dataset?.filter;
  one("#filters").replaceChildren(...shown, ...Object.entries(reasons).map(([kind, count]) => chip(`reason:${kind}`, kind, count)));
  if (at) one(`#filters [data-filter="${CSS.escape(at)}"]`)?.focus();
  one("#tally").textContent = `${many(counts.all, "picture")}: ${counts.kept.toLocaleString("en")} kept, ${counts.rejected.toLocaleString("en")} rejected${counts.unscreened === counts.all ? "; not screened yet" : ""}`;
  tools();
}

function pick(name) {
  store.query.filter = name;
  filters();
  address();
  doing(null, () => view.renew(true));
}

function tools() {
  let bar = one("#tools");
  if (!bar) one("#back").before(bar = el("div.row", { id: "tools" }));
  const { about } = store;
  bar.replaceChildren(el("button", { onclick: (event) => doing(event.currentTarget, screening) }, about.screen ? "Screen again" : "Screen"),
    about.collected ? el("button.ghost", { onclick: (event) => doing(event.currentTarget, () => failures()) }, "What failed") : "",
    about.outside ? el("div.note", { role: "status" }, about.outside) : "");
}

function selection() {
  const bar = one("#chosen");
  view?.remark();
  bar.hidden = !chosen.count || !store.dataset;
  if (bar.hidden) { bar.replaceChildren(); return; }
  const say = (word, words, key) => el("button", { onclick: (event) => verdict(word, undefined, event.currentTarget), title: `${words} (${key})` }, words, " ", el("kbd", {}, key));
  bar.replaceChildren(el("span.grow.nowrap", { role: "status" }, `${chosen.count.toLocaleString("en")} chosen`), say("keep", "Keep", "k"), say("reject", "Reject", "r"), say("undo", "Undo", "u"),
    chosen.count === 1 && chosen.files.size && view?.open ? el("button", { onclick: () => view.open(), title: "Look at it (Enter)" }, "Look") : "",
    tab === "captions" ? "" : el("button", { onclick: () => turn("captions") }, "Captions"), el("button.ghost", { onclick: clear, title: "Choose none (Escape)" }, "Clear"));
}

function word(name) { if (store.dataset) verdict(name); }

on("chosen", selection);
on("changed", () => { if (store.about && view) { filters(); doing(null, () => view.renew(false)); } });
on("said", (words) => { one("#tally").textContent = words; });
on("ended", () => { if (store.dataset) read(true).catch(() => {}); else list().catch(() => {}); });
one("#back").addEventListener("click", () => doing(null, leave));
for (const button of document.querySelectorAll("[data-tab]")) button.addEventListener("click", () => turn(button.dataset.tab));
one(".tabs").addEventListener("keydown", (event) => {
  const names = Object.keys(VIEWS), by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by) return;
  event.preventDefault();
  turn(names[(names.indexOf(tab) + by + names.length) % names.length]);
  one(`[data-tab="${tab}"]`).focus();
});
keys({ k: ["Keep the chosen pictures", () => word("keep")], r: ["Reject them", () => word("reject")], u: ["Take your word on them back", () => word("undo")], b: ["All datasets", () => doing(null, leave)] });

// Another page, or a command, may have written the dataset.
every(4000, async () => { if (store.about) await read(); });

/** What an address asks for: ?dataset=, ?tab=, ?filter=, ?job=. */
async function start() {
  const asked = new URLSearchParams(location.search);
  if (asked.get("tab") in VIEWS) tab = asked.get("tab");
  let dataset = asked.get("dataset") || "";
  if (asked.get("job")) {
    const job = await api(`/api/jobs/${asked.get("job")}`).catch(() => null), argv = job?.order?.argv || [];
    dataset = argv[0] === "collect" ? argv[argv.indexOf("--to") + 1] : argv[0] === "dataset" ? argv[2] : argv[1] || "";
    if (job) watch([job.id]);
  }
  if (dataset) {
    try { await open(dataset); if (asked.get("filter")) pick(asked.get("filter")); return; } catch (error) { tell(error.message, "bad"); }
  }
  await leave();
}
doing(null, start);
