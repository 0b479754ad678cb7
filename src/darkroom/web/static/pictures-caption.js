// One caption, edited in place: tokens counted beside it, saved when it is left or rested on, never over what another page wrote meanwhile.
import { api, el } from "/static/core.js";
import { change, many, path, store } from "/static/pictures-store.js";

const waiting = [];
let soon;
/** Tokens of a text, asked together with others. */
function tokens(text) {
  return new Promise((resolve) => {
    waiting.push([text, resolve]);
    clearTimeout(soon);
    soon = setTimeout(async () => {
      const asked = waiting.splice(0);
      const answer = await api("/api/pictures/tokens", { method: "POST", body: { texts: asked.map(([one]) => one) } }).catch(() => null);
      asked.forEach(([, done], i) => done(answer?.tokens[i]));
    }, 140);
  });
}

/** A field for the caption of one row: an element with `save()`. */
export function captionField(row, { rows = 3, onsaved = () => {} } = {}) {
  let seen = row.caption, saving = Promise.resolve(), rest;
  const id = `caption-${Math.random().toString(36).slice(2)}`;
  const count = el("span.tokens", {}), state = el("span.small.soft.grow", { role: "status" }), conflict = el("div.note.warn", { hidden: true });
  const by = Object.keys(row.captions).length ? el("span.small.soft.clip", { title: `Captions by: ${Object.keys(row.captions).join(", ")}` }, row.chosen ? `by ${row.chosen}` : "") : null;
  const field = el("textarea", { id, rows, value: row.caption, "aria-label": `Caption of ${row.file}`, "aria-describedby": `${id}-count`, spellcheck: "true", placeholder: "no caption: the recipe's template is learned from" });
  count.id = `${id}-count`;

  function counted(number) {
    if (number === undefined) return;
    const limit = store.about.limit, over = number > limit;
    count.textContent = over ? `${number} of ${limit} tokens` : many(number, "token");
    count.classList.toggle("over", over);
    field.toggleAttribute("aria-invalid", false);
    if (over) field.setAttribute("aria-invalid", "true");
    count.title = over ? `SDXL's text encoders read ${limit} tokens at once; what is beyond is read in another piece, or cut off by other programs.` : "";
  }

  async function save(force = false) {
    clearTimeout(rest);
    const text = field.value;
    if (text.replace(/\s+/g, " ").trim() === seen && !force) { state.textContent = ""; return; }
    state.textContent = "saving";
    const answer = await change("captions", { captions: { [row.file]: text }, seen: force ? {} : { [row.file]: seen } });
    if (!answer) { state.textContent = "not saved"; return; }
    if (row.file in answer.stale) { differs(answer.stale[row.file]); return; }
    seen = text.replace(/\s+/g, " ").trim();
    state.textContent = "saved";
    conflict.hidden = true;
    if (by) by.textContent = "by hand";
    onsaved(seen);
  }

  function differs(other) {
    state.textContent = "not saved";
    conflict.hidden = false;
    conflict.replaceChildren(el("div", {}, `It was changed meanwhile, and says: “${other || "nothing"}”.`),
      el("div.row", {}, el("button.small", { onclick: () => { seen = other; field.value = other; conflict.hidden = true; state.textContent = ""; ask(); } }, "Take that"),
        el("button.small", { onclick: () => { seen = other; save(true); } }, "Keep mine")));
  }

  const ask = async () => { const text = field.value, number = await tokens(text); if (text === field.value) counted(number); };
  field.addEventListener("input", () => { state.textContent = ""; ask(); clearTimeout(rest); rest = setTimeout(later, 1200); });
  field.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); later(); } });
  field.addEventListener("blur", () => later());
  const later = () => { saving = saving.then(() => save()); return saving; };
  counted(row.tokens);
  return Object.assign(el("div.caption", {}, field, el("div.row.tight", {}, count, by, state), conflict), { save: later, field, file: path(row) });
}
