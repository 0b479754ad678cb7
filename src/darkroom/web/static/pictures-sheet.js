// The contact sheet: a grid that is walked and chosen from by mouse and keyboard.
import { all, doing, el, one } from "/static/core.js";
import { tile } from "/static/pictures-card.js";
import { look } from "/static/pictures-look.js";
import { Scroll } from "/static/pictures-scroll.js";
import { chooseAll, choose, clear, flip, isChosen, rows, store } from "/static/pictures-store.js";

const ORDERS = [["name", "Name"], ["verdict", "Verdict"], ["sharpness", "Sharpness"], ["pixels", "Pixels"], ["tokens", "Tokens"], ["caption", "Caption"], ["lost", "Lost to the crop"]];

/** A grid of the pictures that `query()` finds. Returns { element, renew, close, remark, total }. */
export function grid(query, { least = 172, label = "Pictures" } = {}) {
  const host = el("div", { role: "listbox", tabindex: "0", "aria-multiselectable": "true", "aria-label": label });
  const empty = el("div.empty", { hidden: true }, el("p", {}, "No picture is like that."));
  let at = 0, anchor = 0;
  const scroll = new Scroll(host, {
    least: innerWidth < 720 ? 136 : least,
    height: (width) => width + 86,
    fetch: (from, count) => rows(query(), from, count),
    draw: (row, index) => tile(row, index, scroll.total, `pick-${index}`),
    mark: (element, row, index) => {
      element.setAttribute("aria-selected", String(isChosen(row.file)));
      element.classList.toggle("current", index === at);
    },
    ready: (total) => { empty.hidden = total > 0; host.hidden = total === 0; at = Math.min(at, Math.max(0, total - 1)); current(); },
  });

  function current() { if (scroll.total) host.setAttribute("aria-activedescendant", `pick-${at}`); scroll.remark(); }

  async function span(from, to) {
    const [low, high] = [Math.min(from, to), Math.max(from, to)];
    const found = [];
    for (let index = low; index <= high; index++) { const row = await scroll.need(index); if (row) found.push(row); }
    choose(found);
  }

  async function go(to, event) {
    at = Math.max(0, Math.min(scroll.total - 1, to));
    scroll.show(at);
    current();
    if (event.shiftKey) await span(anchor, at);
    else {
      anchor = at;
      if (!event.ctrlKey) { const row = await scroll.need(at); if (row && !many()) choose([row]); }
    }
  }

  // Walking moves the choice along while it is a single one; several are left as they are.
  const many = () => all('[aria-selected="true"]', host).length > 1;

  host.addEventListener("keydown", (event) => {
    if (event.altKey || event.metaKey) return;
    const perPage = Math.max(1, Math.floor(innerHeight / scroll.step)) * scroll.columns;
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: scroll.columns, ArrowUp: -scroll.columns, PageDown: perPage, PageUp: -perPage, Home: -scroll.total, End: scroll.total };
    if (event.key in moves) doing(null, () => go(at + moves[event.key], event));
    else if (event.key === " ") { const row = scroll.row(at); if (row) { flip(row); anchor = at; } }
    else if (event.key === "Enter") look(scroll, at, (index) => { at = index; current(); });
    else if (event.key.toLowerCase() === "a" && event.ctrlKey) chooseAll(query(), scroll.total);
    else return;
    event.preventDefault();
  });
  host.addEventListener("click", (event) => {
    const index = Number(event.target.closest?.(".pick")?.id.slice(5) ?? NaN), row = scroll.row(index);
    if (!row) return;
    host.focus({ preventScroll: true });
    at = index;
    if (event.shiftKey) doing(null, () => span(anchor, at));
    else if (event.ctrlKey || event.metaKey || matchMedia("(pointer: coarse)").matches) { flip(row); anchor = at; }
    else { choose([row]); anchor = at; }
    current();
  });
  host.addEventListener("dblclick", () => look(scroll, at, (index) => { at = index; current(); }));

  return {
    element: el("div", {}, host, empty), host,
    renew: (other) => { if (other) at = anchor = 0; return scroll.renew(other); },
    remark: () => scroll.remark(), close: () => scroll.close(), total: () => scroll.total,
    open: () => look(scroll, at, (index) => { at = index; current(); }),
  };
}

/** The view of the tab: { show(host), renew(other), close() }. */
export function sheet() {
  const picks = grid(() => store.query);
  const again = () => doing(null, () => picks.renew(true));
  const sort = el("select", { "aria-label": "Order", onchange: (event) => { store.query.sort = event.target.value; again(); } }, ORDERS.map(([value, words]) => el("option", { value, selected: value === store.query.sort }, words)));
  const down = el("button", { "aria-pressed": String(store.query.down === "1"), title: "The other way round", onclick: () => { store.query.down = store.query.down ? "" : "1"; down.setAttribute("aria-pressed", String(Boolean(store.query.down))); again(); } }, "Reversed");
  let later;
  const search = el("input", { type: "search", id: "search", placeholder: "Name or caption", "aria-label": "Search names and captions", value: store.query.text,
    oninput: () => { clearTimeout(later); later = setTimeout(() => { store.query.text = search.value; again(); }, 200); } });
  const crops = el("label.check", {}, el("input", { type: "checkbox", checked: store.crops, onchange: (event) => { store.crops = event.target.checked; again(); } }), "Show crops");
  const bar = el("div.row.finders", {}, search, sort, down, crops,
    el("button", { onclick: () => { chooseAll(store.query, picks.total()); picks.host.focus(); }, title: "All that are listed (a)" }, "Choose all"),
    el("span.small.soft.keys-hint.nowrap", {}, el("kbd", {}, "arrows"), " ", el("kbd", {}, "space"), " choose, ", el("kbd", {}, "k"), " keep, ", el("kbd", {}, "r"), " reject, ", el("kbd", {}, "u"), " undo, ", el("kbd", {}, "Enter"), " look"));
  return {
    show: (host) => { host.replaceChildren(bar, picks.element); picks.host.focus({ preventScroll: true }); },
    renew: picks.renew, remark: picks.remark, close: picks.close, open: picks.open,
    keys: { a: ["Choose all that are listed", () => chooseAll(store.query, picks.total())], "/": ["Search names and captions", () => one("#search")?.focus()], Escape: ["Choose none", clear] },
  };
}
