// The form of a request: every field of it, those that matter first.
import { doing, el, file, sendOne, takeFiles } from "/static/core.js";
import { frame } from "/static/draw-frame.js";
import { bases, field, learned } from "/static/fields.js";
import { paint } from "/static/draw-mask.js";
import { reader, readingLine, weighKeys } from "/static/draw-prompt.js";

const SIZES = [[0, 0, "the model's own"], [1024, 1024, "1024 x 1024"], [1152, 896, "1152 x 896"], [1216, 832, "1216 x 832"], [1344, 768, "1344 x 768"], [1536, 640, "1536 x 640"], [896, 1152, "896 x 1152"], [832, 1216, "832 x 1216"], [768, 1344, "768 x 1344"], [640, 1536, "640 x 1536"]];

export function fields(form, known) {
  const option = (value, words, chosen) => el("option", { value, selected: value === chosen }, words);
  const number = (id, attributes) => el("input", { id, type: "number", ...attributes });
  const help = known.meanings;
  const at = {
    prompt: el("textarea", { id: "prompt", rows: 3, placeholder: "a 3d cat on a red background" }),
    negative: el("textarea", { id: "negative", rows: 2 }),
    how: el("select", { id: "how" }, option("zeroed", "nothing: zeroed embeddings"), option("text", "these words"), Object.keys(known.negatives).map((name) => option(`@${name}`, `the list @${name}`))),
    base: el("input", { id: "base", list: "bases" }),
    width: number("width", { min: 0, max: 16384, step: 8 }), height: number("height", { min: 0, max: 16384, step: 8 }),
    size: el("select", { id: "size" }, SIZES.map(([w, h, words]) => option(`${w}x${h}`, words)), option("own", "other")),
    steps: number("steps", { min: 1, max: 1000 }), guidance: number("guidance", { min: 0, max: 100, step: .1 }),
    sampler: el("select", { id: "sampler" }, Object.entries(known.samplers).map(([key, title]) => option(key, title))),
    seed: number("seed", { min: 0, step: 1 }), count: number("count", { min: 1, max: 64, value: "1" }),
    strength: el("input", { id: "strength", type: "range", min: .05, max: 1, step: .05, value: .75 }), feather: number("feather", { min: 0, max: 1024 }),
    keep: el("select", { id: "keep" }, option("", "nothing else"), option("face", "its face")),
    refiner: el("input", { id: "refiner", list: "refiners", placeholder: "none" }), fraction: number("fraction", { min: .05, max: .95, step: .05, value: ".8" }),
    language: el("select", { id: "language" }, known.languages.map((name) => option(name, name))), clip_skip: number("clip_skip", { min: 0, max: 31 }),
    guidance_rescale: number("guidance_rescale", { min: 0, max: 1, step: .05 }), upscale: number("upscale", { min: 1, max: 4 }), upscaler: el("select", { id: "upscaler" }, option("lanczos", "lanczos"), option("realesrgan", "realesrgan")),
    previews: number("previews", { min: 0, max: 1000, value: "5" }), device: el("select", { id: "device" }, known.devices.map((one) => option(one.name, one.title || one.name))),
  };
  const sides = ["left", "top", "right", "bottom"].map((side) => [side, number(`out-${side}`, { min: 0, max: 4096, step: 8, value: "0" })]);
  const lines = { prompt: readingLine(), negative: readingLine() };
  const read = reader(() => ({ prompt: at.prompt.value, negative: negative() || "", language: at.language.value, steps: Number(at.steps.value) || 25 }), (found) => { lines.prompt.show(found.prompt); lines.negative.show(found.negative); });
  const worn = el("div.stack"), words = el("div.stack"), controls = el("div.stack"), start = el("div.start");
  let image = "", mask = "";

  const negative = () => (at.how.value === "zeroed" ? null : at.how.value === "text" ? at.negative.value : at.how.value);
  const shown = () => { at.negative.hidden = at.how.value !== "text"; lines.negative.hidden = at.how.value === "zeroed"; read(); };


  function wear(tree = {}) {
    const things = known.things.filter((thing) => thing.kind === "adapter");
    const options = learned(known.things, "adapter");
    if (tree.file && !options.some(([value]) => value === tree.file)) options.push([tree.file, tree.file]);
    if (!options.length) return void worn.replaceChildren(el("p.small.soft", {}, "There is no adapter in this workspace yet: train one, or put files into adapters/."));
    const id = `a${Math.random().toString(36).slice(2, 8)}`;
    const which = el("select", { "aria-label": "Adapter" }, options.map(([value, name]) => option(value, name, tree.file)));
    const weight = el("input", { type: "range", min: -1, max: 2, step: .05, value: tree.weight ?? 1, "aria-label": "Weight, by slider" }), exact = el("input", { type: "number", step: .05, value: tree.weight ?? 1, "aria-label": "Weight" });
    weight.addEventListener("input", () => { exact.value = weight.value; });
    exact.addEventListener("input", () => { weight.value = exact.value; });
    const branch = el("select", { "aria-label": "Worn by" }, [["both", "both branches"], ["conditional", "the prompt's branch"], ["unconditional", "the negative prompt's branch"]].map(([value, name]) => option(value, name, tree.branch)));
    const trigger = things.find((thing) => thing.file === which.value)?.trigger;
    const row = el("div.worn", { id }, which, exact, el("button.small.ghost", { type: "button", "aria-label": "Take off", onclick: () => row.remove() }, "×"), el("div.whole", {}, weight), el("div.whole.row", {}, el("span.grow", {}, branch),
      trigger ? el("button.small", { type: "button", title: "Put it into the prompt", onclick: () => { at.prompt.setRangeText(trigger, at.prompt.selectionStart, at.prompt.selectionEnd, "end"); read(); at.prompt.focus(); } }, trigger) : null));
    row.read = () => ({ file: which.value, weight: Number(exact.value), branch: branch.value, ...(tree.text_weight === undefined || tree.text_weight === null ? {} : { text_weight: tree.text_weight }) });
    if (worn.firstChild?.tagName === "P") worn.replaceChildren();
    worn.append(row);
  }

  function learn(tree = {}) {
    const options = learned(known.things, "word");
    if (tree.file && !options.some(([value]) => value === tree.file)) options.push([tree.file, tree.file]);
    if (!options.length) return;
    const which = el("select", { "aria-label": "Learned word" }, options.map(([value, name]) => option(value, name, tree.file)));
    const row = el("div.row", {}, el("span.grow", {}, which), el("button.small.ghost", { type: "button", "aria-label": "Leave out", onclick: () => row.remove() }, "×"));
    row.read = () => ({ file: which.value });
    words.append(row);
  }

  function guide(tree = {}) {
    const id = Math.random().toString(36).slice(2, 7);
    const model = el("input", { id: `c${id}`, value: tree.model || "", placeholder: "a folder, a hub id or a file" }), picture = el("input", { id: `p${id}`, value: tree.image || "", placeholder: "a picture of the workspace" });
    const pick = el("button.small", { type: "button" }, "Choose a picture");
    pick.addEventListener("click", takeFiles(pick, { accept: "image/*", many: false }, (files) => doing(pick, async () => { picture.value = await sendOne(files[0]); })));
    const prepare = el("select", { id: `q${id}` }, ["as_is", "edge", "depth", "colour"].map((name) => option(name, name.replace("_", " "), tree.prepare)));
    const weight = number(`w${id}`, { min: 0, max: 10, step: .05, value: tree.weight ?? 1 }), from = number(`s${id}`, { min: 0, max: 1, step: .05, value: tree.start ?? 0 }), to = number(`e${id}`, { min: 0, max: 1, step: .05, value: tree.end ?? 1 });
    const row = el("fieldset.stack", { "aria-label": "ControlNet" }, field("Model", model), field("Picture it follows", picture), pick, el("div.fields", {}, field("Prepared", prepare), field("Weight", weight), field("From", from), field("To", to)), el("button.small.danger", { type: "button", onclick: () => row.remove() }, "Take out"));
    row.read = () => ({ model: model.value.trim(), image: picture.value.trim(), prepare: prepare.value, weight: Number(weight.value), start: Number(from.value), end: Number(to.value) });
    controls.append(row);
  }

  function begin(name, painted = "") {
    [image, mask] = [name, painted];
    const drop = el("div.empty.drop", { role: "button", tabindex: "0" }, "Drop, paste or choose a picture");
    if (!name) {
      const choose = takeFiles(drop, { accept: "image/*", many: false }, (files) => doing(null, async () => begin(await sendOne(files[0]))));
      drop.addEventListener("click", (event) => { if (event.target === drop) choose(); });
      drop.addEventListener("keydown", (event) => { if (["Enter", " "].includes(event.key)) { event.preventDefault(); choose(); } });
      drop.addEventListener("drop", (event) => event.stopPropagation());
      return start.replaceChildren(drop);
    }
    return start.replaceChildren(frame(name, sides), mask ? el("img", { src: file(mask), alt: "Mask: white is drawn anew" }) : "", el("div.stack", {},
      el("button.small", { type: "button", id: "paint", onclick: () => paint(image, mask, (made) => begin(image, made)) }, mask ? "Paint on" : "Paint a mask"),
      mask ? el("button.small", { type: "button", onclick: () => begin(image) }, "Without mask") : null, el("button.small", { type: "button", onclick: () => begin("") }, "Without start picture")));
  }

  const dice = () => { at.seed.value = crypto.getRandomValues(new Uint32Array(1))[0]; };
  const fresh = el("input", { id: "fresh", type: "checkbox" });
  at.how.addEventListener("change", shown);
  for (const key of ["prompt", "negative", "language", "steps"]) at[key].addEventListener("input", read);
  for (const side of ["prompt", "negative"]) weighKeys(at[side], read);
  at.size.addEventListener("change", () => { if (at.size.value !== "own") [at.width.value, at.height.value] = at.size.value.split("x"); });
  for (const key of ["width", "height"]) at[key].addEventListener("input", sized);
  function sized() { const own = `${at.width.value}x${at.height.value}`; at.size.value = SIZES.some(([w, h]) => `${w}x${h}` === own) ? own : "own"; }

  form.replaceChildren(
    bases("bases", known.things),
    el("datalist", { id: "refiners" }, ["pocket-refiner", "stabilityai/stable-diffusion-xl-refiner-1.0"].map((value) => el("option", { value }))),
    el("div.field", {}, el("label", { for: "prompt" }, "Prompt"), at.prompt, lines.prompt, el("div.help", {}, "Ctrl+Up and Ctrl+Down weigh the selection.")),
    el("div.field", {}, el("label", { for: "how" }, "Not wanted"), at.how, at.negative, lines.negative),
    el("div.row", {}, el("button.primary.grow", { id: "draw" }, "Draw"), el("label.check", { for: "fresh" }, fresh, "another seed each time")),
    el("div.fields", {}, field("Size", at.size), field("Width", at.width), field("Height", at.height), field("Seed", at.seed), field("Pictures", at.count), field("Steps", at.steps), field("Guidance", at.guidance), field("Sampler", at.sampler), field("Base", at.base)),
    el("div.row", {}, el("h3.grow", {}, "Adapters"), el("button.small", { type: "button", id: "add-adapter", onclick: () => wear() }, "Add"), known.things.some((thing) => thing.kind === "word") ? el("button.small", { type: "button", onclick: () => learn() }, "Add a learned word") : null), worn, words,
    el("details", {}, el("summary", {}, "Start picture, mask, outpainting"), el("div.stack", {}, start, field("Strength", at.strength, help.strength), el("fieldset", {}, el("legend", {}, "Add pixels (outpainting)"), el("div.sides", {}, sides.map(([side, input]) => field(side, input)))), el("div.fields", {}, field("What stays", at.keep), field("Feather", at.feather, help.feather)))),
    el("details", {}, el("summary", {}, "ControlNet"), el("div.stack", {}, controls, el("button.small", { type: "button", onclick: () => guide() }, "Add a ControlNet"))),
    el("details", {}, el("summary", {}, "Refiner"), el("div.fields", {}, field("Model", at.refiner), field("The base's share", at.fraction))),
    el("details", {}, el("summary", {}, "More"), el("div.fields", {}, field("Language of weights", at.language), field("Clip skip", at.clip_skip), field("Guidance rescale", at.guidance_rescale), field("Enlarge", at.upscale), field("By", at.upscaler), field("Look every N steps", at.previews), field("Device", at.device))));

  const touched = { strength: false };
  at.strength.addEventListener("input", () => { touched.strength = true; });
  return {
    dice, start: (name) => { begin(name); start.closest("details").open = true; }, wear: (file) => wear({ file }), drawn: () => { if (fresh.checked) dice(); },
    fill(request) {
      for (const key of ["base", "width", "height", "steps", "guidance", "sampler", "seed", "language", "clip_skip", "guidance_rescale", "upscale", "upscaler", "feather"]) at[key].value = request[key];
      at.prompt.value = request.prompt;
      at.how.value = request.negative === null ? "zeroed" : Object.keys(known.negatives).some((name) => `@${name}` === request.negative) ? request.negative : "text";
      if (request.negative !== null && at.how.value === "text") at.negative.value = request.negative;
      worn.replaceChildren(); words.replaceChildren(); controls.replaceChildren();
      for (const one of request.adapters) wear(one);
      for (const one of request.embeddings) learn(one);
      for (const one of request.controls) guide(one);
      touched.strength = request.strength !== null;
      at.strength.value = request.strength ?? .75;
      at.keep.value = request.keep === "face" ? "face" : "";
      sides.forEach(([, input], i) => { input.value = request.outpaint[i]; });
      begin(request.image, request.mask);
      at.refiner.value = request.refiner?.model || "";
      at.fraction.value = request.refiner?.fraction ?? .8;
      sized(); shown();
    },
    read() {
      const request = { prompt: at.prompt.value, seed: at.seed.value || "0", negative: negative(), image, mask, adapters: [...worn.children].filter((row) => row.read).map((row) => row.read()), embeddings: [...words.children].map((row) => row.read()), controls: [...controls.children].map((row) => row.read()) };
      for (const key of ["base", "sampler", "language", "upscaler"]) request[key] = at[key].value;
      for (const key of ["width", "height", "steps", "guidance", "clip_skip", "guidance_rescale", "upscale", "feather"]) request[key] = Number(at[key].value);
      if (image) Object.assign(request, { keep: at.keep.value, outpaint: sides.map(([, input]) => Number(input.value)), strength: touched.strength ? Number(at.strength.value) : null });
      if (at.refiner.value.trim()) request.refiner = { model: at.refiner.value.trim(), fraction: Number(at.fraction.value) };
      return { request, count: Number(at.count.value), previews: Number(at.previews.value), device: at.device.value };
    },
  };
}
