// A trial that ships with Darkroom: its arms are fixed, its places are filled with what was trained here.
import { api, doing, el } from "/static/core.js";

/** The form for one of them, in the dialog of a new trial. */
export function openShipped(dialog, shipped, things, asked) {
  const option = ([value, words]) => el("option", { value }, words), field = (id, label, input, help = "") => { input.id = id; return el("div.field", {}, el("label", { for: id }, label), input, help ? el("div.help", {}, help) : null); };
  const which = el("select", {}, shipped.map((one) => option([one.name, one.title]))), world = el("select"), about = el("p.soft"), facts = el("p.small.soft", { role: "status" }), places = el("div.fields");
  const wrong = el("div.note.bad", { role: "alert", hidden: true });
  const trial = () => shipped.find((one) => one.name === which.value), chosen = () => trial().worlds[world.value];

  /** What fills a place: something that was trained, or words. */
  function filler(place) {
    if (place.kind === "text") return el("input", { value: place.default ?? "", "data-place": place.name });
    const found = things.filter((thing) => thing.kind === place.kind).flatMap((thing) => [[thing.file, thing.name], ...thing.steps.map((step) => [`${thing.file}@${step}`, `${thing.name}, step ${step}`])]);
    const made = el("select", { "data-place": place.name }, [["", "left out, with its arms"], ...found].map(option));
    made.value = found.find(([file]) => file.includes(place.name))?.[0] || "";
    return made;
  }

  function show() {
    about.textContent = trial().about.replace(/\{(\w+)\}/g, (_, name) => chosen().places.find((place) => place.name === name)?.default ?? name);
    facts.textContent = `${trial().name}: ${chosen().arms} arms, ${chosen().prompts} prompts, on ${chosen().base}. It draws for a long time: plan first.`;
    places.replaceChildren(...chosen().places.map((place) => field(`place-${place.name}`, place.name.replace("_", " "), filler(place), { adapter: "an adapter", word: "a learned word", model: "a model", text: "words" }[place.kind])));
  }
  const worlds = () => { world.replaceChildren(...Object.keys(trial().worlds).map((name) => option([name, name]))); show(); };
  which.addEventListener("change", worlds);
  world.addEventListener("change", show);

  const put = (plan) => (event) => doing(event.currentTarget, async () => {
    event.preventDefault();
    const fill = Object.fromEntries([...places.querySelectorAll("[data-place]")].map((input) => [input.dataset.place, input.value.trim()]));
    try {
      const found = await api("/api/compare/shipped", { method: "POST", body: { trial: which.value, world: world.value, fill, plan } });
      dialog.close();
      asked({ ...found, plan });
    } catch (error) { wrong.textContent = error.message; wrong.hidden = false; wrong.scrollIntoView({ block: "nearest" }); }
  });
  dialog.replaceChildren(el("form.stack", { onsubmit: (event) => event.preventDefault() }, el("h2", {}, "A trial that ships with Darkroom"),
    field("shipped-trial", "Trial", which), about, field("world", "Drawn by", world, "the pocket model, or SDXL 1.0 with prompts of its own"), facts,
    el("h3", {}, "What is filled in"), places, wrong,
    el("div.row", {}, el("button.primary", { type: "submit", onclick: put(false) }, "Draw and compare"), el("button", { type: "button", onclick: put(true), title: "Draws a small pilot and says how many prompts and seeds it takes to see a difference" }, "Only plan"), el("button.ghost", { type: "button", onclick: () => dialog.close() }, "Close"))));
  worlds();
  which.focus();
}
