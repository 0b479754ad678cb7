// Compare: the list of trials, what one found, and the way to a new one or to a blind rating.
import { api, doing, el, every, follow, keys, one, report, tell } from "/static/core.js";
import { openMaker } from "/static/compare-maker.js";
import { rate } from "/static/compare-rating.js";

const stage = one("#stage"), list = one("#trials");
const KIND = { better: "good", worse: "bad", unclear: "", equivalent: "" };
let known = { trials: [], things: [], folders: [] }, chosen = new URLSearchParams(location.search).get("trial") || "", shown = "";

export const verdict = (word) => el(`span.badge${KIND[word] ? `.${KIND[word]}` : ""}`, {}, word);

async function refresh() {
  const before = JSON.stringify(known);
  known = await api("/api/compare");
  if (JSON.stringify(known) !== before) drawList();
  if (!chosen && known.trials.length) choose(known.trials[0].name);
  if (!known.trials.length && !shown) drawEmpty();
}

function drawEmpty() {
  stage.replaceChildren(el("div.empty", {}, el("h2", {}, "No trial yet"),
    el("p", {}, "Train an adapter, then set it beside its base: one trial draws the same prompts and seeds through both, and says whether it is better, how sure that is, and what it costs."),
    el("button.primary", { onclick: make }, "New trial")));
}

function drawList() {
  const at = [...list.children].indexOf(document.activeElement);
  list.replaceChildren(...known.trials.map((trial) => el("button.entry", { "aria-current": String(trial.name === chosen), onclick: () => choose(trial.name) },
    el("b", {}, trial.title || trial.name), el("span.small.soft", {}, trial.name),
    trial.error ? el("span.badge.bad", {}, "unreadable") : el("span.row", {}, Object.entries(trial.verdicts).map(([word, count]) => { const badge = verdict(word); badge.append(` ${count}`); return badge; }),
      trial.raters.length ? el("span.badge", {}, `${trial.raters.length} rater${trial.raters.length > 1 ? "s" : ""}`) : null))));
  if (!known.trials.length) list.replaceChildren(el("p.soft", {}, "None yet."));
  if (at >= 0) list.children[at]?.focus();
}

async function choose(name) {
  chosen = name;
  history.replaceState(null, "", `/compare?trial=${encodeURIComponent(name)}`);
  drawList();
  await doing(null, show);
}

async function show() {
  const trial = await api(`/api/compare/trial?name=${encodeURIComponent(chosen)}`);
  shown = trial.name;
  stage.replaceChildren(...[
    el("section.sheet", {}, el("header", {}, el("h2.grow", {}, trial.title || trial.name), el("button", { id: "rate", onclick: () => startRating(trial) }, "Rate blind"),
      trial.report ? el("a.button", { href: report(trial.report), target: "_blank", rel: "noopener" }, "Report") : null),
      trial.about ? el("p.soft", {}, trial.about) : null,
      ...trial.faults.map((fault) => el("div.note.bad", {}, fault)),
      el("div.scroll", {}, el("table", {}, el("thead", {}, el("tr", {}, ["Comparison", "Metric", "Verdict", "Difference"].map((head) => el("th", {}, head)))),
        el("tbody", {}, trial.comparisons.map((row) => [el("tr.first", {}, el("td", {}, `${row.arm} against ${row.against}`), el("td", {}, row.metric), el("td", {}, verdict(row.verdict)), el("td.wide", {}, interval(row))),
          el("tr", {}, el("td", { colspan: 4 }, el("div.small.soft", {}, row.sentence), row.notes.map((note) => el("div.small.warn", {}, note))))]))))),
    ratings(trial),
    trial.report ? el("section.sheet", {}, el("h2", {}, "Report"), el("iframe.report", { src: `${report(trial.report)}&v=${trial.stamp}`, title: `Report of ${trial.title || trial.name}`, loading: "lazy" })) : null,
  ].filter(Boolean));
}

/** A difference with its interval, on a scale that holds 0. */
function interval({ mean, low, high }) {
  if (![mean, low, high].every((value) => typeof value === "number")) return null;
  const reach = Math.max(Math.abs(low), Math.abs(high)) * 1.08 || 1, x = (value) => 170 + (value / reach) * 160;
  return el("svg.interval", { viewBox: "0 0 340 22", role: "img", "aria-label": `${mean.toPrecision(3)}, from ${low.toPrecision(3)} to ${high.toPrecision(3)}` },
    el("line.zero", { x1: 170, x2: 170, y1: 0, y2: 22 }), el("line", { x1: x(low), x2: x(high), y1: 11, y2: 11 }), el("circle", { cx: x(mean), cy: 11, r: 5 }));
}

function ratings(trial) {
  const facts = trial.rated;
  if (!facts) return null;
  return el("section.sheet", { id: "ratings" }, el("h2", {}, "What people prefer"),
    ...facts.faults.map((fault) => el("div.note.bad", {}, fault)),
    el("table", {}, el("thead", {}, el("tr", {}, ["Comparison", "Verdict", "Chance to be preferred"].map((head) => el("th", {}, head)))),
      el("tbody", {}, facts.comparisons.map((row) => [el("tr.first", {}, el("td", {}, `${row.arm} against ${row.against}`), el("td", {}, verdict(row.verdict)), el("td.wide", {}, `${percent(row.probability)} (${percent(row.low)} to ${percent(row.high)})`)),
        el("tr", {}, el("td", { colspan: 3 }, el("div.small.soft", {}, row.sentence), el("div.small.soft", {}, row.metrics_sentence)))]))),
    facts.strengths.length ? el("div.stack", {}, el("h3", {}, "Strengths (Bradley-Terry with ties, log odds)"),
      el("table", {}, el("tbody", {}, facts.strengths.map((row) => el("tr", {}, el("td", {}, row.arm), el("td.num", {}, row.log_strength.toFixed(2)), el("td", {}, interval({ mean: row.log_strength, low: row.low, high: row.high }))))))) : null,
    facts.agreement_sentence ? el("p", {}, facts.agreement_sentence) : null,
    el("ul", {}, trial.rated_lines.filter((line) => facts.raters.some((one) => line.startsWith(`${one.rater}: `))).map((line) => el("li.small", {}, line))),
    ...facts.notes.map((note) => el("div.note.warn", {}, note)));
}

const percent = (share) => (share === null || share === undefined ? "?" : `${Math.round(100 * share)} %`);

function startRating(trial) {
  rate(trial, async () => { await refresh(); await show(); one("#rate").focus(); one("#ratings")?.scrollIntoView(); });
}

function make() {
  openMaker({ ...known, adapter: fromRun }, async ({ order, name, plan }) => {
    tell(plan ? "The plan is in the queue: a small pilot is drawn first." : "The trial is in the queue.");
    const job = await follow(order, (job) => drawProgress(name, job));
    if (job.state !== "done") return stage.prepend(el("div.note.bad", {}, job.message || `It ended as ${job.state}.`));
    await refresh();
    if (plan) return drawPlan(job);
    await choose(name);
  });
}

function drawProgress(name, job) {
  let card = one("#progress");
  if (!card) { card = el("section.sheet", { id: "progress" }); stage.prepend(card); }
  const progress = job.progress, meter = el("div.meter", { role: "progressbar", "aria-label": "Progress" }, el("i"));
  meter.firstChild.style.width = `${progress?.total ? (100 * progress.done) / progress.total : 0}%`;
  card.replaceChildren(el("header", {}, el("h2.grow", {}, job.title || name), el("span.badge", {}, job.state)), meter, el("p.small.soft", {}, progress ? `${progress.what} ${progress.done} of ${progress.total}` : "waiting for its turn"));
  if (!["waiting", "running"].includes(job.state)) card.remove();
}

async function drawPlan(job) {
  const { lines } = await api(`/api/compare/plan?order=${job.id}`);
  stage.prepend(el("section.sheet", {}, el("h2", {}, "How many pictures it takes"), el("pre.wrap", {}, lines.join("\n"))));
}

one("#new").addEventListener("click", make);
keys({ n: ["New trial", make], b: ["Rate blind", () => one("#rate")?.click()] });
const fromRun = new URLSearchParams(location.search).get("run");
if (chosen) doing(null, show);
if (fromRun) doing(null, async () => { await refresh(); make(); });
every(4000, refresh);
