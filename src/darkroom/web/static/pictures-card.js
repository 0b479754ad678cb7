// One picture as a tile: what it looks like, where a crop lies, its verdict and why.
import { el, small } from "/static/core.js";
import { many, path, percent, store } from "/static/pictures-store.js";

/** The picture with what its crop keeps drawn over it; it fills a square box. */
export function framed(row, side = 256, crops = store.crops) {
  const wide = row.width >= row.height, ratio = row.width && row.height ? row.width / row.height : 1;
  const frame = el("div.framed", {});
  frame.style.width = wide ? "100%" : `${100 * ratio}%`;
  frame.style.height = wide ? `${100 / ratio}%` : "100%";
  const broken = () => frame.replaceWith(el("div.unseen.soft.small", {}, "cannot be shown"));
  frame.append(row.width ? el("img", { src: small(path(row), side, row.changed), alt: "", decoding: "async", draggable: "false", onerror: broken }) : el("div.unseen.soft.small", {}, "no picture"));
  if (crops && row.cut) frame.append(cropped(row.cut.window));
  return el("div.box", {}, frame);
}

/** What a crop keeps, as a frame with the rest darkened. */
export function cropped([left, top, right, bottom]) {
  const crop = el("span.crop", { "aria-hidden": "true" });
  Object.assign(crop.style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%` });
  return crop;
}

/** The words for a verdict, and what kind of badge it is. */
export function judged(row) {
  const by = row.overruled ? ", by you" : "";
  return row.kept ? [row.verdict || row.overruled ? `kept${by}` : "not screened", row.verdict || row.overruled ? "good" : ""] : [`rejected${by}`, "bad"];
}

export function badge(row) {
  const [words, kind] = judged(row);
  return el(`span.badge${kind ? `.${kind}` : ""}`, {}, words);
}

/** "side: 40 px ..." -> ["side", "40 px ..."]. */
export const split = (reason) => { const at = reason.indexOf(": "); return at < 0 ? ["", reason] : [reason.slice(0, at), reason.slice(at + 2)]; };

export function why(row) {
  if (row.reasons.length) return row.reasons.map((reason) => split(reason)[0]).join(", ");
  return row.split === "held_out" ? "held out" : "";
}

const name = (row) => row.file.slice(row.file.lastIndexOf("/") + 1);

/** A tile of the contact sheet. */
export function tile(row, index, total, id) {
  const said = [name(row), judged(row)[0], why(row), row.caption ? "" : "no caption"].filter(Boolean).join(", ");
  const under = store.crops && row.cut ? `${row.cut.bucket.join(" × ")}, ${percent(row.cut.lost)} lost` : why(row);
  return el("div.tile.pick", { id, role: "option", "aria-label": said, "aria-posinset": index + 1, "aria-setsize": total, dataset: { file: row.file }, title: row.reasons.join("\n") },
    framed(row),
    el("div.under", {},
      el("div.clip", {}, name(row)),
      el("div.row.tight", {}, badge(row), el(`span.clip.small${row.kept ? ".soft" : ".bad"}`, {}, under)),
      el("div.small.clip.soft", {}, row.caption ? [count(row.tokens), ` ${row.caption}`] : el("span.warn", {}, "no caption"))));
}

/** Tokens of a caption, marked where they are more than are read at once. */
export function count(tokens) {
  const limit = store.about?.limit || 75, over = tokens > limit;
  return el(`span.tokens${over ? ".over" : ""}`, { title: over ? `SDXL's text encoders read ${limit} tokens at once.` : many(tokens, "token") }, over ? `${tokens} > ${limit}` : String(tokens));
}
