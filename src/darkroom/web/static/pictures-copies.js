// Duplicates side by side: copies of one picture, the best first, and which of them stays.
import { api, bytes, doing, el } from "/static/core.js";
import { badge, framed } from "/static/pictures-card.js";
import { look } from "/static/pictures-look.js";
import { change, many, store, verdict, words } from "/static/pictures-store.js";

const PART = 20;

/** The view of the tab. */
export function copies() {
  const list = el("div.stack", {}), more = el("button", { hidden: true, onclick: (event) => doing(event.currentTarget, () => next()) }, "More");
  let turn = 0, total = 0, groups = [];

  async function renew() {
    const mine = ++turn;
    const answer = await api(`/api/pictures/clusters?${words({}, { from: 0, count: Math.max(PART, groups.length) })}`);
    if (mine !== turn) return;
    groups = answer.clusters;
    total = answer.total;
    draw();
  }

  async function next() {
    const answer = await api(`/api/pictures/clusters?${words({}, { from: groups.length, count: PART })}`);
    groups.push(...answer.clusters);
    draw();
  }

  function draw() {
    const focused = document.activeElement?.dataset?.at;
    more.hidden = groups.length >= total;
    list.replaceChildren(...(groups.length ? groups.map(group) : [el("div.empty", {}, el("p", {}, store.about.screen ? "Screening found no picture twice." : "This dataset was not screened yet: screening finds duplicates."))]));
    if (focused) list.querySelector(`[data-at="${CSS.escape(focused)}"]`)?.focus();
  }

  function group({ count, rows }, number) {
    const files = rows.map((row) => row.file), listed = { total: rows.length, need: async (at) => rows[at], renew: async () => { await renew(); rows = groups.find((one) => one.rows.some((row) => files.includes(row.file)))?.rows || rows; }, indexOf: (file) => rows.findIndex((row) => row.file === file) };
    return el("section.sheet.copies", { "aria-label": `${many(count, "copy", "copies")} of ${rows[0].file}` },
      el("header", {}, el("h2.grow.clip", {}, `${many(count, "copy", "copies")} of one picture`),
        el("button.small", { dataset: { at: `${number}-all` }, onclick: (event) => verdict("keep", { files }, event.currentTarget) }, "Keep all: they differ"),
        el("button.small", { dataset: { at: `${number}-none` }, onclick: (event) => verdict("undo", { files }, event.currentTarget) }, "Undo")),
      el("div.beside", {}, rows.map((row, at) => copy(row, at, rows, number, listed))));
  }

  function copy(row, at, rows, number, listed) {
    const most = (key) => row[key] === Math.max(...rows.map((other) => other[key])) && rows.some((other) => other[key] !== row[key]);
    const pixels = row.width * row.height, largest = pixels === Math.max(...rows.map((other) => other.width * other.height)) && rows.some((other) => other.width * other.height !== pixels);
    const sharp = row.figures.sharpness;
    return el(`figure.copy${row.kept ? ".stays" : ""}`, {},
      el("button.plain", { onclick: () => look(listed, at), "aria-label": `Look at ${row.file}` }, framed(row, 512, false)),
      el("figcaption.stack.tight", {},
        el("div.row.tight", {}, badge(row), row.cluster === row.file ? el("span.badge", {}, "best") : null),
        el("div.clip.small", { title: row.file }, row.file),
        el("div.small.soft", {}, el(largest ? "b" : "span", {}, `${row.width} × ${row.height}`), ` ${row.format}, `, el(most("size") ? "b" : "span", {}, bytes(row.size)), sharp !== undefined ? `, sharpness ${sharp.toPrecision(2)}` : ""),
        el("div.row.tight", {},
          el("button.small", { dataset: { at: `${number}-${row.file}` }, disabled: row.kept && rows.every((other) => other === row || !other.kept), onclick: (event) => change("prefer", { file: row.file }, event.currentTarget) }, "This one stays"),
          el("button.small.ghost", { onclick: (event) => verdict(row.kept ? "reject" : "keep", { files: [row.file] }, event.currentTarget) }, row.kept ? "Reject" : "Keep too"))));
  }

  return { show: (view) => view.replaceChildren(el("p.soft.small", {}, "Copies that screening put together. The best is the one with your word, then the most pixels, the most bytes a pixel, the sharpest. Bold: more than the others have."), list, more), renew, remark: () => {}, close: () => { turn++; }, keys: {}, filters: false };
}
