// A trial that ships with Darkroom: its arms are fixed, its places are filled with what was trained here.
import { ending } from "/static/compare-ask.js";
import { el } from "/static/core.js";
import { choice, field, learned } from "/static/fields.js";

const KINDS = { adapter: "an adapter", word: "a learned word", model: "a model", text: "words" };

/** The form for one of them, in the dialog of a new trial. */
export function openShipped(dialog, shipped, things, asked) {
  const which = choice(shipped.map((one) => [one.name, one.title]), shipped[0].name, { id: "shipped-trial" }), world = el("select", { id: "world" });
  const about = el("p.soft"), facts = el("p.small.soft", { role: "status" }), places = el("div.fields");
  const trial = () => shipped.find((one) => one.name === which.value), chosen = () => trial().worlds[world.value];

  /** What fills a place: something that was trained, or words. */
  function filler({ name, kind, default: usual }) {
    const own = { id: `place-${name}`, "data-place": name };
    if (kind === "text") return el("input", { ...own, value: usual ?? "" });
    const found = learned(things, kind);
    return choice([["", "left out, with its arms"], ...found], found.find(([file]) => file.includes(name))?.[0] || "", own);
  }

  function show() {
    about.textContent = trial().about.replace(/\{(\w+)\}/g, (_, name) => chosen().places.find((place) => place.name === name)?.default ?? name);
    facts.textContent = `${trial().name}: ${chosen().arms} arms, ${chosen().prompts} prompts, on ${chosen().base}. It draws for a long time: plan first.`;
    places.replaceChildren(...chosen().places.map((place) => field(place.name.replace("_", " "), filler(place), KINDS[place.kind])));
  }
  const worlds = () => { world.replaceChildren(...Object.keys(trial().worlds).map((name) => el("option", { value: name }, name))); show(); };
  which.addEventListener("change", worlds);
  world.addEventListener("change", show);

  const read = () => ({ trial: which.value, world: world.value, fill: Object.fromEntries([...places.querySelectorAll("[data-place]")].map((input) => [input.dataset.place, input.value.trim()])) });
  dialog.replaceChildren(el("form.stack", { onsubmit: (event) => event.preventDefault() }, el("h2", {}, "A trial that ships with Darkroom"),
    field("Trial", which), about, field("Drawn by", world, "the pocket model, or SDXL 1.0 with prompts of its own"), facts, el("h3", {}, "What is filled in"), places, ...ending(dialog, "/api/compare/shipped", read, asked)));
  worlds();
  which.focus();
}
