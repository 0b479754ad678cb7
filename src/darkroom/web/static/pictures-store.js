// What all views of the page Pictures share: which dataset is open, what is asked of it, what is chosen, and how it is changed.
import { api, doing, tell } from "/static/core.js";

const listeners = new Map();
/** Hear of an event; returns what ends that. */
export const on = (event, work) => { if (!listeners.has(event)) listeners.set(event, new Set()); listeners.get(event).add(work); return () => listeners.get(event).delete(work); };
export const emit = (event, detail) => [...(listeners.get(event) || [])].forEach((work) => work(detail));

export const store = {
  dataset: "", about: null,
  view: { base: "", resolution: "", step: "", batch: "4", crop: "centre", enlarge: "" },
  query: { filter: "all", text: "", sort: "name", down: "" },
  crops: false,
};

/** The query of an address: what is asked, with what is not empty of the view. */
export function words(query = store.query, more = {}) {
  const told = { dataset: store.dataset, ...query, ...store.view, ...more };
  return new URLSearchParams(Object.entries(told).filter(([, value]) => value !== "" && value !== undefined && value !== null)).toString();
}

export const rows = (query, from, count, signal) => api(`/api/pictures/rows?${words(query, { from, count })}`, { signal });

/** Read what is known of the dataset; `fresh`: look at its files too. */
export async function read(fresh = false) {
  const about = await api(`/api/pictures/sheet?dataset=${encodeURIComponent(store.dataset)}${fresh ? "&fresh=1" : ""}`);
  const changed = !store.about || about.stamp !== store.about.stamp || about.filters.all !== store.about.filters.all;
  store.about = about;
  if (changed) emit("changed");
  return about;
}

let line = Promise.resolve();
/** Change the dataset: one after the other, each on the disk when this resolves to its answer; undefined where it was refused. */
export function change(what, body, button) {
  const asked = store.dataset;
  const next = line.then(() => doing(button, async () => {
    const answer = await api(`/api/pictures/${what}`, { method: "POST", body: { dataset: asked, ...body } });
    if (asked === store.dataset && answer.filters) {
      Object.assign(store.about, { stamp: answer.stamp, filters: answer.filters, reasons: answer.reasons, sources: answer.sources, clusters: answer.clusters, plain: false });
      emit("changed");
    }
    return answer;
  }));
  line = next.catch(() => {});
  return next;
}

// What is chosen: files by name, or all that a query finds.
export const chosen = { files: new Map(), query: null, count: 0 };
const told = () => emit("chosen");
export const isChosen = (file) => chosen.query !== null || chosen.files.has(file);
export function choose(list, keep = false) {
  if (!keep || chosen.query) chosen.files = new Map();
  for (const row of list) chosen.files.set(row.file, row);
  Object.assign(chosen, { query: null, count: chosen.files.size });
  told();
}
export function flip(row) {
  if (chosen.query) { choose([row]); return; }
  if (!chosen.files.delete(row.file)) chosen.files.set(row.file, row);
  chosen.count = chosen.files.size;
  told();
}
export function chooseAll(query, count) { Object.assign(chosen, { files: new Map(), query: { ...query }, count }); told(); }
export const clear = () => choose([]);

/** The chosen pictures for the server. */
export const targets = () => (chosen.query ? { query: { ...chosen.query, ...store.view } } : { files: [...chosen.files.keys()] });

const DONE = { keep: "kept", reject: "rejected", undo: "as screening judged" };
/** A person's word on pictures. */
export async function verdict(word, which = targets(), button) {
  if (which.files && !which.files.length) { tell("Choose pictures first: click them, or walk with the arrows and press space."); return; }
  const answer = await change("verdict", { word, ...which }, button);
  if (answer) emit("said", `${answer.done.toLocaleString("en")} ${answer.done === 1 ? "picture" : "pictures"}: ${DONE[word]}.`);
}

export const percent = (part) => `${(100 * part).toFixed(part && part < .0995 ? 1 : 0)} %`;
export const many = (count, one, more = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : more}`;
export const path = (row) => `${store.dataset}/${row.file}`;
