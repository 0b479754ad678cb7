// Parts of forms: a field with its label, a choice, and what was learned here to choose from.
import { el } from "/static/core.js";

let number = 0;

/** A label, its input, and what it means. */
export function field(label, input, help = "") {
  input.id ||= `f${++number}`;
  return el("div.field", {}, el("label", { for: input.id }, label), input, help ? el("div.help", {}, help) : null);
}

/** A select of [[value, words], ...]. */
export function choice(options, value = "", attributes = {}) {
  const made = el("select", attributes, options.map(([key, words]) => el("option", { value: key, selected: key === value }, words)));
  made.value = value;
  return made;
}

/** What there is of a kind ("adapter", "word", "model"), each with its checkpoints: [[value, words], ...]. */
export const learned = (things, kind) => things.filter((thing) => thing.kind === kind).flatMap((thing) => [[thing.file, thing.name], ...thing.steps.map((step) => [`${thing.file}@${step}`, `${thing.name}, step ${step}`])]);

/** Models that a form proposes, as a datalist of this id. */
export const bases = (id, things) => el("datalist", { id }, ["pocket", ...learned(things, "model").map(([file]) => file), "stabilityai/stable-diffusion-xl-base-1.0"].map((value) => el("option", { value })));
