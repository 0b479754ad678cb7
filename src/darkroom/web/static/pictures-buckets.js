// Buckets: which shapes a training would cut the pictures to, how full they are, and what the crop takes away from each picture.
import { api, doing, el } from "/static/core.js";
import { preparing } from "/static/pictures-ask.js";
import { grid } from "/static/pictures-sheet.js";
import { many, percent, store, words } from "/static/pictures-store.js";

/** The view of the tab. */
export function buckets() {
  const bars = el("div.bars", { role: "group", "aria-label": "Buckets" }), told = el("dl.facts", {}), heading = el("h2", {});
  let chosenBucket = "", turn = 0;
  const query = () => ({ filter: chosenBucket ? `bucket:${chosenBucket}` : "kept", text: "", sort: "lost", down: "1" });
  const picks = grid(query, { label: "Pictures with their crops" });
  const set = (key) => (event) => { store.view[key] = event.target.type === "checkbox" ? (event.target.checked ? "1" : "") : event.target.value; doing(null, () => renew(true)); };
  const field = (name, input, help) => el("label.field", {}, el("span.label", {}, name), input, help ? el("span.help", {}, help) : null);
  const choice = (key, options) => el("select", { onchange: set(key) }, options.map(([value, label]) => el("option", { value, selected: store.view[key] === value }, label)));
  const form = el("div.fields", {},
    field("Model", choice("base", [["", "SDXL"], ["pocket", "pocket"]])),
    field("Resolution", el("input", { type: "number", min: "0", step: "32", value: store.view.resolution, placeholder: "the model's own", onchange: set("resolution") })),
    field("Bucket step", el("input", { type: "number", min: "0", step: "32", value: store.view.step, placeholder: "64", onchange: set("step") })),
    field("Batch size", el("input", { type: "number", min: "1", value: store.view.batch, onchange: set("batch") })),
    field("Crop", choice("crop", [["centre", "about the centre"], ["subject", "about the subject"], ["random", "at random"]]), "The subject is where “Prepare” found it."),
    el("label.check", {}, el("input", { type: "checkbox", checked: store.view.enlarge === "1", onchange: set("enlarge") }), "Enlarge small pictures"));

  async function renew(other) {
    const mine = ++turn;
    store.crops = true;
    const facts = await api(`/api/pictures/buckets?${words({})}`);
    if (mine !== turn) return;
    const training = facts.training, most = Math.max(1, ...training.buckets.map((one) => one.pictures));
    if (chosenBucket && !training.buckets.some((one) => `${one.width}x${one.height}` === chosenBucket)) chosenBucket = "";
    bars.replaceChildren(...training.buckets.map((one) => bar(one, most)));
    const lost = training.lost;
    const lines = [
      ["Learned from", `${many(training.pictures, "picture")}${training.samples !== training.pictures ? `, ${many(training.samples, "sample")} an epoch` : ""}${facts.counts.held_out ? `, ${facts.counts.held_out} held out` : ""}`],
      ["Batches", `${training.batches} an epoch, ${training.small_batches ? `${training.small_batches} of them smaller than ${training.batch_size}` : "all full"}`],
      ["Crops take", lost ? `${percent(lost.mean)} on average, ${percent(lost.most)} at most` : "nothing"],
      ["Too small", training.enlarge ? `${training.enlarged} enlarged` : `${training.too_small} would have to be enlarged, ${training.smaller_bucket} go to a smaller bucket`],
    ];
    told.replaceChildren(...lines.flatMap(([key, value]) => [el("dt", {}, key), el("dd", {}, value)]));
    heading.textContent = chosenBucket ? `What crops take away in ${chosenBucket.replace("x", " × ")}` : "What crops take away, most first";
    await picks.renew(other);
  }

  function bar(one, most) {
    const name = `${one.width}x${one.height}`, scale = 26 / Math.max(one.width, one.height);
    const shape = el("i.shape", {}), fill = el("i.fill", {});
    Object.assign(shape.style, { width: `${one.width * scale}px`, height: `${one.height * scale}px` });
    fill.style.width = `${(100 * one.pictures) / most}%`;
    const batches = Object.entries(one.batches).map(([size, count]) => `${count} of ${size}`).reverse().join(", ");
    return el("button.bucket", { "aria-pressed": String(chosenBucket === name), onclick: () => { chosenBucket = chosenBucket === name ? "" : name; doing(null, () => renew(true)); } },
      el("span.shape-box", { "aria-hidden": "true" }, shape), el("span.nowrap", {}, `${one.width} × ${one.height}`), el("span.track", { "aria-hidden": "true" }, fill),
      el("span.small.nowrap", {}, many(one.pictures, "picture")), el("span.small.soft.wide", {}, `batches: ${batches}; lost ${percent(one.lost)}, at most ${percent(one.most_lost)}`));
  }

  return {
    show: (view) => view.replaceChildren(el("div.split", {}, el("div.stack", {}, el("section.sheet", { "aria-label": "How it is cut" }, form), preparing()),
      el("section.sheet", { "aria-label": "Buckets" }, told, bars)), heading, picks.element),
    renew, remark: picks.remark, close: () => { turn++; picks.close(); store.crops = false; }, keys: {}, filters: false,
  };
}
