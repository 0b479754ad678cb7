// One picture looked at closely: large, with its crop, its verdict in full, its figures, and what it is called.
import { bytes, doing, el, file, one } from "/static/core.js";
import { captionField } from "/static/pictures-caption.js";
import { badge, cropped, split } from "/static/pictures-card.js";
import { change, path, percent, store, verdict } from "/static/pictures-store.js";

const dialog = one("#look");
let now = null;

/** Look at one of a list; arrows go on through it. */
export function look(scroll, index, onmove = () => {}) {
  doing(null, async () => {
    const row = await scroll.need(index);
    if (!row) return;
    now = { scroll, index, row, onmove };
    draw();
    if (!dialog.open) dialog.showModal();
    one("h2", dialog)?.focus();
  });
}

async function step(by) {
  const to = now.index + by;
  if (to < 0 || to >= now.scroll.total) return;
  await now.caption?.save();
  const row = await now.scroll.need(to);
  if (!row) return;
  Object.assign(now, { index: to, row });
  now.onmove(to);
  draw();
}

function draw() {
  const { row, index, scroll } = now;
  const frame = el("div.framed.large", {}, el("img", { src: file(path(row), row.changed), alt: row.caption || row.file }), row.cut ? cropped(row.cut.window) : null);
  now.caption = captionField(row, { rows: 4 });
  const say = (word, words, key) => el("button", { onclick: (event) => said(word, event.currentTarget), title: `${words} (${key})`, "aria-pressed": String(row.overruled === word) }, words, " ", el("kbd", {}, key));
  dialog.replaceChildren(
    el("div.row.one-line", {}, el("h2.grow.clip", { tabindex: "-1", title: row.file }, row.file), el("span.soft.small.nowrap.place", {}, `${index + 1} of ${scroll.total}`),
      el("button.icon", { "aria-label": "The one before", title: "The one before (left)", disabled: index === 0, onclick: () => doing(null, () => step(-1)) }, "←"),
      el("button.icon", { "aria-label": "The next one", title: "The next one (right)", disabled: index + 1 >= scroll.total, onclick: () => doing(null, () => step(1)) }, "→"),
      el("button", { onclick: () => dialog.close() }, "Close")),
    el("div.closely", {}, el("div.stage", {}, frame),
      el("div.stack", {},
        el("div.row", {}, badge(row), row.split === "held_out" ? el("span.badge", {}, "held out") : null, row.repeats > 1 ? el("span.badge", {}, `${row.repeats} times an epoch`) : null),
        row.reasons.map((reason) => { const [kind, words] = split(reason); return el("div.note.bad", {}, el("b", {}, kind), " ", words); }),
        row.overruled ? el("p.small.soft", {}, `Your word counts. Screening said: ${row.verdict || "nothing"}.`) : null,
        el("div.row", {}, say("keep", "Keep", "k"), say("reject", "Reject", "r"), say("undo", "Undo", "u")),
        el("div.field", {}, el("span.label", {}, "Caption"), now.caption), sources(row), facts(row))));
  if (dialog.open && !dialog.contains(document.activeElement)) one("h2", dialog).focus();  // or keys would go nowhere
}

/** Who wrote captions of it, and which is learned from. */
function sources(row) {
  const names = Object.keys(row.captions);
  if (!names.length) return null;
  const name = `source-${row.file}`;
  return el("fieldset.stack", {}, el("legend.small", {}, "Learned from"), names.map((by) => el("label.check", {},
    el("input", { type: "radio", name, checked: by === row.chosen, onchange: () => doing(null, async () => { await change("choose", { by, files: [row.file] }); await again(); }) }),
    el("span", {}, el("b", {}, by), " ", el("span.soft", {}, row.captions[by])))));
}

function facts(row) {
  const told = [["Size", row.width ? `${row.width} × ${row.height} ${row.format}, ${bytes(row.size)}` : bytes(row.size)]];
  if (row.cut) told.push(["Bucket", `${row.cut.bucket.join(" × ")}`], ["Lost to the crop", percent(row.cut.lost)]);
  if (row.cut?.enlarged) told.push(["", "smaller than its bucket"]);
  if (row.focus) told.push(["Subject at", `${percent(row.focus[0])} from the left, ${percent(row.focus[1])} from the top`]);
  if (row.mask) told.push(["Mask", row.mask]);
  for (const [figure, value] of Object.entries(row.figures)) told.push([figure, String(+Number(value).toPrecision(4))]);
  if (row.source) told.push(["From", row.source.replace(/.*\.darkroom\/taken\/[^/]*\//, "upload: ")]);
  return el("details", { open: innerWidth > 900 }, el("summary", {}, "Figures"), el("dl.facts", {}, told.map(([key, value]) => [el("dt", {}, key), el("dd", {}, value)])));
}

async function said(word, button) {
  await verdict(word, { files: [now.row.file] }, button);
  await again();
}

/** The picture as it is now. */
async function again() {
  await now.scroll.renew();
  const at = now.scroll.indexOf(now.row.file);
  if (at >= 0) now.index = at;
  now.row = (await now.scroll.need(now.index)) || now.row;
  if (dialog.open) draw();
}

const WORDS = { k: "keep", r: "reject", u: "undo" };
dialog.addEventListener("keydown", (event) => {
  if (event.target.closest("textarea, input[type=radio]") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in WORDS) { event.preventDefault(); said(WORDS[event.key]); }
  if (event.key === "ArrowRight" || event.key === "ArrowLeft") { event.preventDefault(); doing(null, () => step(event.key === "ArrowRight" ? 1 : -1)); }
});
dialog.addEventListener("close", () => { now?.caption?.save(); });
