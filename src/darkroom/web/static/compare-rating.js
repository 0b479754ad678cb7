// Blind rating: two pictures, one key. The page is told nothing of arms, so there is nothing in it to find.
import { api, doing, el, one } from "/static/core.js";

const dialog = one("#rating");
let asked = null, shown = null, began = 0, busy = false, ended = null;

/** Ask who rates, show pair after pair; `done()` once the answers are in the report. */
export function rate(trial, done) {
  ended = done;
  const name = el("input", { id: "rater", required: true, pattern: "[a-z0-9][a-z0-9_\\-]{0,39}", value: localStorage.getItem("darkroom.rater") || "", autocomplete: "off" });
  const pairs = el("input", { id: "pairs", type: "number", min: "1", max: "2000", value: "60" });
  dialog.replaceChildren(el("form.stack.plain", { onsubmit: (event) => { event.preventDefault(); begin(trial, name.value, Number(pairs.value)); } },
    el("h2", {}, "Blind rating"), el("p", {}, "Two pictures of one prompt and the same noise, on sides that are drawn by lot. Which one do you prefer? Nobody can know which arm drew which, the page neither."),
    el("div.field", {}, el("label", { for: "rater" }, "Your name"), name, el("div.help", {}, "small letters, digits, - and _")),
    el("div.field", {}, el("label", { for: "pairs" }, "Pairs"), pairs, el("div.help", {}, "60 take about five minutes; a tenth of them comes again with sides swapped")),
    el("table", {}, el("tbody", {}, [["← or 1", "the left one"], ["→ or 2", "the right one"], ["↓ or space", "can't tell"], ["backspace", "take the last answer back"], ["Esc", "stop; what was answered stays"]].map(([key, what]) => el("tr", {}, el("td", {}, el("kbd", {}, key)), el("td", {}, what))))),
    el("div.row", {}, el("button.primary", {}, "Begin"), el("button.ghost", { type: "button", onclick: close }, "Close"))));
  dialog.showModal();
  name.focus();
}

function begin(trial, rater, pairs) {
  localStorage.setItem("darkroom.rater", rater);
  asked = { trial: trial.name, rater, pairs };
  return doing(null, async () => draw(await api("/api/compare/rate/begin", { method: "POST", body: asked })));
}

function draw(pair) {
  shown = pair;
  if (pair.done) return finish();
  const side = (which, words) => el("button.side", { id: which, onclick: () => say(which), "aria-label": words }, el(pair[which].tiny ? "img.pixel" : "img", { src: pair[which].uri, alt: words }));
  const number = pair.number - 1, meter = el("div.meter", { role: "progressbar", "aria-valuenow": number, "aria-valuemax": pair.total, "aria-label": "Pairs answered" }, el("i"));
  meter.firstChild.style.width = `${(100 * number) / pair.total}%`;
  dialog.replaceChildren(el("div.row", {}, el("b.grow", { id: "prompt" }, pair.prompt), el("span.soft", { id: "count" }, `${pair.number} of ${pair.total}`), el("button.small", { onclick: back }, "Back"), el("button.small", { onclick: finish }, "Stop")), meter,
    el("div.pair", {}, side("left", "the left picture"), side("right", "the right picture")),
    el("div.answers", {}, el("button", { onclick: () => say("left") }, el("kbd", {}, "←"), "Left"), el("button", { id: "tie", onclick: () => say("tie") }, el("kbd", {}, "↓"), "Can't tell"), el("button", { onclick: () => say("right") }, "Right", el("kbd", {}, "→"))));
  began = performance.now();
}

function say(answer) {
  if (busy || !shown || shown.done) return undefined;
  busy = true;
  one(`#${answer}`)?.classList.add("taken");
  const body = { ...asked, pair: shown.pair, answer, seconds: Math.round(performance.now() - began) / 1000 };
  return doing(null, async () => draw(await api("/api/compare/rate/answer", { method: "POST", body }))).finally(() => { busy = false; });
}

function back() {
  return doing(null, async () => draw(await api("/api/compare/rate/undo", { method: "POST", body: asked })));
}

/** Everything answered, or enough: what all answers say goes into the report. */
async function finish() {
  const trial = asked.trial;
  shown = null;
  dialog.replaceChildren(el("div.stack.plain", {}, el("h2", {}, "Thank you"), el("p", { role: "status" }, "The answers are being judged.")));
  const told = await doing(null, () => api("/api/compare/rate/publish", { method: "POST", body: { trial } }));
  dialog.replaceChildren(el("div.stack.plain", {}, el("h2", {}, "Thank you"), told ? el("pre.wrap", {}, told.lines.join("\n")) : el("p", {}, "There is nothing to judge yet."), el("button.primary", { onclick: close }, "To the trial")));
  one("button", dialog).focus();
}

function close() {
  asked = shown = null;
  dialog.close();
  ended?.();
}

dialog.addEventListener("cancel", (event) => { if (shown) { event.preventDefault(); finish(); } else if (asked) { event.preventDefault(); close(); } });
document.addEventListener("keydown", (event) => {
  if (!dialog.open || !shown || event.ctrlKey || event.metaKey || event.altKey) return;
  const answer = { ArrowLeft: "left", 1: "left", ArrowRight: "right", 2: "right", ArrowDown: "tie", " ": "tie" }[event.key];
  if (answer) { event.preventDefault(); if (!event.repeat) say(answer); }
  if (event.key === "Backspace") { event.preventDefault(); back(); }
});
