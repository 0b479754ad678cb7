// One adapter file: what is in it and which programs take it; the same in another layout or smaller; several as one.
import { api, bytes, doing, el, file, follow } from "/static/core.js";

const counted = (table) => Object.entries(table || {}).map(([name, many]) => `${name} (${many})`).join(", ");

/** Put an order, wait for it, say what came of it. */
async function made(what, body, place) {
  const { order } = await api(`/api/runs/${what}`, { method: "POST", body }), job = await follow(order);
  place.replaceChildren();
  if (job.state !== "done") { place.append(el("div.note.bad", {}, job.message || `It ended ${job.state}.`)); return; }
  const told = job.result || {};
  place.append(el("div.note.good", {}, `${told.out || body.out || "Done."}${told.error !== undefined ? ` · error ${told.error}` : ""}`, told.remarks ? `\n${[].concat(told.remarks).join("\n")}` : ""));
}

export async function showAdapter(name, place, known) {
  const said = el("section.sheet", { "aria-label": "What is in it" }, el("p.soft", {}, "It is being read, as `darkroom adapter show` does ..."));
  place.replaceChildren(head(name, known), making(name), said);
  const facts = await api(`/api/runs/adapter?name=${encodeURIComponent(name)}`);
  said.replaceChildren(...inside(facts));
}

function head(name, known) {
  return el("section.sheet", { "aria-label": "Adapter" }, el("h2", {}, name), el("p.soft", {}, known ? [known.title, known.words && `words: ${known.words}`, bytes(known.size)].filter(Boolean).join(" · ") : ""),
    known?.made_of?.length ? el("p", {}, `Made of ${known.made_of.join(" and ")}.`) : "",
    el("div.row", {}, el("a.button.primary", { href: `/draw?adapter=${encodeURIComponent(name)}` }, "Draw with it"), el("a.button", { href: `${file(name)}&save=1` }, "Save a copy")));
}

function inside(facts) {
  const rows = [], add = (what, value) => { if (value !== undefined && value !== null && value !== "") rows.push(el("dt", {}, what), el("dd", {}, value)); };
  const coverage = facts.coverage?.text || facts.coverage && Object.entries(facts.coverage).map(([where, value]) => `${where}: ${Array.isArray(value) ? value.join(" of ") : typeof value === "object" && value ? Object.entries(value).map(([key, one]) => `${key} ${one}`).join(", ") : value}`).join("; ");
  add("Family", facts.family); add("Layout", facts.layout); add("Methods", counted(facts.methods)); add("Ranks", counted(facts.ranks)); add("Alphas", counted(facts.alphas)); add("Numbers", counted(facts.dtypes)); add("Covers", coverage);
  add("Words", Array.isArray(facts.trigger_words) ? facts.trigger_words.join(", ") : facts.trigger_words); add("sha256", facts.sha256 && el("span.mono", {}, facts.sha256));
  for (const [key, value] of Object.entries(facts.training || {})) add(key.replace(/^ss_|^modelspec\./, "").replaceAll("_", " "), String(value).slice(0, 300));
  const programs = Object.entries(facts.programs || {});
  return [el("h2", {}, "What is in it"), ...(facts.warnings || []).map((warning) => el("div.note.warn", {}, warning)), el("dl.facts", {}, rows),
    programs.length ? el("div.stack", {}, el("h3", {}, "Which programs take it"), el("dl.facts", {}, programs.map(([name, verdict]) => [el("dt", {}, name), el("dd", {}, el(`span.badge${{ yes: ".good", no: ".bad" }[verdict.loads] || ".warn"}`, {}, verdict.loads), ` ${verdict.why || ""}`)]))) : ""];
}

function making(name) {
  const layout = el("select", { id: "to" }, ["kohya", "diffusers", "peft"].map((each) => el("option", { value: each }, each === "kohya" ? "kohya: A1111, ComfyUI, sd-scripts" : each))), done = el("div.stack");
  const rank = el("input", { id: "rank", type: "number", min: 1, value: 8 }), out = el("input", { id: "out", value: `adapters/${name.split("/").pop().replace(/\.safetensors$/, "")}-small.safetensors`, autocomplete: "off" });
  return el("section.sheet", { "aria-label": "Make another of it" }, el("h2", {}, "Make another of it"),
    el("div.fields", {}, el("div.field", {}, el("label", { for: "to" }, "In the layout of"), layout, el("div.row", {}, el("button", { onclick: (event) => doing(event.currentTarget, () => made("convert", { file: name, to: layout.value }, done)) }, "Convert"))),
      el("div.field", {}, el("label", { for: "rank" }, "At most so many ranks"), rank, el("label", { for: "out" }, "As"), out, el("div.row", {}, el("button", { onclick: (event) => doing(event.currentTarget, () => made("resize", { file: name, rank: Number(rank.value), out: out.value }, done)) }, "Resize")))), done);
}

export function mergeForm(names) {
  const weights = names.map(() => 1), done = el("div.stack");
  const rows = names.map((name, i) => {
    const slider = el("input", { type: "range", min: -1, max: 2, step: .05, value: 1, "aria-label": `Weight of ${name}` }), box = el("input", { type: "number", step: .05, value: 1, "aria-label": `Weight of ${name}, as a number` });
    slider.addEventListener("input", () => { weights[i] = Number(slider.value); box.value = slider.value; });
    box.addEventListener("input", () => { weights[i] = Number(box.value); slider.value = box.value; });
    return el("div.weigh", {}, el("span.clip", { title: name }, name), slider, box);
  });
  const how = el("select", { id: "how" }, el("option", { value: "concat" }, "exact, the ranks add up (concat)"), el("option", { value: "svd" }, "to a rank of your choice (svd)"), el("option", { value: "sum" }, "exact, a full difference (sum)"));
  const rank = el("input", { id: "merge-rank", type: "number", min: 1, value: 16 }), ranks = el("div.field", { hidden: true }, el("label", { for: "merge-rank" }, "Rank"), rank), out = el("input", { id: "merge-out", value: "adapters/merged.safetensors", autocomplete: "off" });
  how.addEventListener("change", () => { ranks.hidden = how.value !== "svd"; });
  return el("section.sheet.merging", { "aria-label": "Merge" }, el("h2", {}, `Merge ${names.length} adapters into one`), rows,
    el("div.fields", {}, el("div.field", {}, el("label", { for: "how" }, "How"), how), ranks, el("div.field", {}, el("label", { for: "merge-out" }, "As"), out)),
    el("div.row", {}, el("button.primary", { onclick: (event) => doing(event.currentTarget, () => made("merge", { files: names.map((name, i) => ({ name, weight: weights[i] })), how: how.value, rank: Number(rank.value), out: out.value }, done)) }, "Merge")), done);
}
