// A new trial: arms, prompts, seeds, and what is asked of the pictures.
import { ending } from "/static/compare-ask.js";
import { openShipped } from "/static/compare-shipped.js";
import { el, one } from "/static/core.js";
import { bases, choice, field, learned } from "/static/fields.js";

const METRICS = JSON.parse(document.getElementById("metrics").textContent);
/** One arm: what it is called and what it draws with. */
function arm(things, first, remove, adapter = "") {
  const adapters = learned(things, "adapter"), words = learned(things, "word");
  const parts = {
    name: el("input", { value: first ? "base" : "", required: true, maxlength: 60 }),
    adapter: choice([["", "none"], ...adapters], first ? "" : (adapters.find(([file]) => file === adapter) || adapters[0])?.[0] || ""),
    weight: el("input", { type: "number", step: "0.05", value: "1" }),
    branch: choice([["both", "both branches"], ["conditional", "the prompt's"], ["unconditional", "the negative prompt's"]], "both"),
    word: choice([["", "none"], ...words]),
    base: choice([["", "the trial's"], ["pocket", "pocket"], ...learned(things, "model")]),
    negative: el("input", { placeholder: "left out: zeroed embeddings" }),
    guidance: el("input", { type: "number", step: "0.1", min: "0", placeholder: "the trial's" }),
  };
  if (!first) parts.name.value = adapters.length ? parts.adapter.selectedOptions[0].textContent.split(" ")[0] : "other";
  parts.adapter.addEventListener("change", () => { if (parts.adapter.value) parts.name.value = parts.adapter.selectedOptions[0].textContent.replace(/ \(.*\)/, "").replace(", step ", "@"); });
  const title = first ? "The arm that others are compared with" : "Arm";
  const made = el("fieldset.arm", { "aria-label": title }, field("Name", parts.name), withClass("wide", field("Adapter", parts.adapter)), field("Weight", parts.weight), field("Worn by", parts.branch),
    words.length ? field("Learned word", parts.word) : null, field("Base", parts.base), withClass("wide", field("Negative prompt", parts.negative)), field("Guidance", parts.guidance),
    first ? null : el("button.small.danger", { type: "button", onclick: () => { made.remove(); remove(); } }, "Take out"));
  made.read = () => {
    const found = { name: parts.name.value.trim() };
    if (parts.adapter.value) found.adapters = [{ file: parts.adapter.value, weight: Number(parts.weight.value), branch: parts.branch.value }];
    if (parts.word.value) found.embeddings = [{ file: parts.word.value }];
    if (parts.base.value) found.base = parts.base.value;
    if (parts.negative.value) found.negative = parts.negative.value === '""' ? "" : parts.negative.value;
    if (parts.guidance.value) found.guidance = Number(parts.guidance.value);
    return found;
  };
  return made;
}

function withClass(name, element) { element.classList.add(name); return element; }

/** Open the form; `asked({ order, name, plan })` once the trial is in the queue. */
export function openMaker({ things, folders, shipped, adapter }, asked) {
  const dialog = one("#maker"), arms = el("div.stack");
  const add = (first = false) => arms.append(arm(things, first, () => {}, adapter));
  add(true); add();
  const parts = {
    title: el("input", { value: "Is it better than the base?", maxlength: 120, required: true }),
    base: el("input", { value: "pocket", required: true, list: "bases" }),
    prompts: el("textarea", { rows: 6, required: true, placeholder: "one prompt a line, two or more; with the trigger word where the adapter learned one" }),
    seeds: el("input", { type: "number", min: "1", max: "64", value: "4" }),
    steps: el("input", { type: "number", min: "1", max: "150", value: "25" }),
    reference: el("input", { list: "folders", placeholder: "a folder of held-out pictures" }),
    training: el("input", { list: "folders", placeholder: "what it learned from" }),
  };
  const trigger = things.find((thing) => thing.trigger)?.trigger;
  if (trigger) parts.prompts.value = [`a photo of ${trigger} on a beach`, `a painting of ${trigger}`, `${trigger} in a garden`, `a close portrait of ${trigger}`].join("\n");
  const boxes = METRICS.map((name) => el("input", { type: "checkbox", value: name, checked: ["clip", "aesthetic"].includes(name) }));
  parts.reference.addEventListener("input", () => { boxes.find((box) => box.value === "likeness").checked = Boolean(parts.reference.value); });
  const read = () => ({
    title: parts.title.value, base: parts.base.value.trim(), arms: [...arms.children].map((made) => made.read()),
    prompts: parts.prompts.value.split("\n").map((line) => line.trim()).filter(Boolean), seeds: Array.from({ length: Number(parts.seeds.value) }, (_, i) => i + 1), steps: Number(parts.steps.value),
    metrics: boxes.filter((box) => box.checked).map((box) => box.value), reference: parts.reference.value.trim(), training: parts.training.value.trim(),
  });
  dialog.replaceChildren(el("form.stack", { onsubmit: (event) => event.preventDefault() }, el("div.row", {}, el("h2.grow", {}, "New trial"), shipped.length ? el("button.small", { type: "button", id: "shipped", onclick: () => openShipped(dialog, shipped, things, asked) }, "One that ships with Darkroom") : null),
    el("div.fields", {}, field("What is asked", parts.title), field("Base model", parts.base, "pocket, a folder, a hub id or a .safetensors file"), field("Seeds", parts.seeds, "pictures of each prompt and arm"), field("Steps", parts.steps)),
    bases("bases", things),
    el("datalist", { id: "folders" }, folders.map((value) => el("option", { value }))),
    el("h3", {}, "Arms"), arms, el("div.row", {}, el("button.small", { type: "button", onclick: () => add() }, "Add an arm")),
    field("Prompts", parts.prompts),
    el("fieldset", {}, el("legend", {}, "Asked of every picture"), el("div.row", {}, METRICS.map((name, i) => el("label.check", {}, boxes[i], name)))),
    el("div.fields", {}, field("Held-out pictures of the subject", parts.reference, "for likeness, dino, imagenet"), field("Pictures it was trained on", parts.training, "for copying; and shown in the report")),
    ...ending(dialog, "/api/compare/trial", () => ({ name: parts.title.value, trial: read() }), asked)));
  dialog.showModal();
  arms.querySelector("input").focus();
}
