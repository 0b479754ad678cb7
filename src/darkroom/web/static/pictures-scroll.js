// A list of any length of which only what is seen is there: rows are asked for in pages, elements made as they come into sight.
const PAGE = 60, AHEAD = 500;

/** Take an element away, and what it is still waiting for. */
function drop(element) {
  for (const image of element.querySelectorAll("img")) if (!image.complete) image.removeAttribute("src");
  element.remove();
}

export class Scroll {
  /** fetch(from, count) -> { total, rows }; draw(row, index) -> element; least: pixels of a tile's width, or 0 for one column; height(width) -> pixels. */
  constructor(host, { fetch, draw, mark = () => {}, least = 0, gap = 12, height, ready = () => {} }) {
    Object.assign(this, { host, fetch, draw, mark, least, gap, height, ready, total: 0, turn: 0, pages: new Map(), shown: new Map(), asked: new Map() });
    host.classList.add("scroll-list");
    this.paintSoon = () => { if (!this.frame) this.frame = requestAnimationFrame(() => { this.frame = 0; this.paint(); }); };
    addEventListener("scroll", this.paintSoon, { passive: true });
    addEventListener("resize", this.paintSoon, { passive: true });
    this.observer = new ResizeObserver(this.paintSoon);
    this.observer.observe(host);
  }

  close() {
    removeEventListener("scroll", this.paintSoon); removeEventListener("resize", this.paintSoon);
    this.observer.disconnect(); cancelAnimationFrame(this.frame); this.turn++;
  }

  /** Ask anew. What is shown stays until the new rows are there, unless the list is another one. */
  async renew(other = false) {
    const turn = ++this.turn;
    this.asked.clear();
    if (other) { this.pages.clear(); this.shown.forEach(({ element }) => element.remove()); this.shown.clear(); }
    const [low] = this.range(), first = Math.floor(low / PAGE);
    const answer = await this.fetch(first * PAGE, PAGE);
    if (turn !== this.turn) return;
    const stale = this.pages;
    this.pages = new Map([[first, answer.rows]]);
    this.stale = other ? new Map() : stale;
    this.total = answer.total;
    this.layout();
    this.paint();
    this.ready(this.total);
  }

  row(index) { return this.pages.get(Math.floor(index / PAGE))?.[index % PAGE] ?? this.stale?.get(Math.floor(index / PAGE))?.[index % PAGE]; }

  /** The row, asked for where it is not there yet. */
  async need(index) {
    if (!this.pages.has(Math.floor(index / PAGE))) await this.load(Math.floor(index / PAGE));
    return this.row(index);
  }

  indexOf(file) {
    for (const [page, rows] of this.pages) { const at = rows.findIndex((row) => row.file === file); if (at >= 0) return page * PAGE + at; }
    return -1;
  }

  layout() {
    const width = this.host.clientWidth || 1;
    this.columns = this.least ? Math.max(1, Math.floor((width + this.gap) / (this.least + this.gap))) : 1;
    this.tile = (width - this.gap * (this.columns - 1)) / this.columns;
    this.step = this.height(this.tile) + this.gap;
    this.host.style.height = `${Math.max(0, Math.ceil(this.total / this.columns) * this.step - this.gap)}px`;
  }

  /** First and last index in sight. */
  range() {
    if (!this.step) return [0, PAGE];
    const top = -this.host.getBoundingClientRect().top;
    const from = Math.floor((top - AHEAD) / this.step), to = Math.ceil((top + innerHeight + AHEAD) / this.step);
    const end = Math.max(0, this.total - 1);
    return [Math.min(end, Math.max(0, from * this.columns)), Math.min(end, Math.max(0, to * this.columns - 1))];
  }

  paint() {
    if (!this.host.isConnected) return;
    this.layout();
    const [low, high] = this.total ? this.range() : [0, -1];
    for (const [index, { element }] of this.shown) {
      if ((index < low || index > high) && !element.contains(document.activeElement)) { drop(element); this.shown.delete(index); }
    }
    for (let index = low; index <= high; index++) this.place(index);
    for (let page = Math.floor(low / PAGE); this.total && page <= Math.floor(high / PAGE); page++) if (!this.pages.has(page)) this.load(page).catch(() => {});
  }

  place(index) {
    const row = this.row(index), key = row ? JSON.stringify(row) : "";
    let entry = this.shown.get(index);
    if (!entry || (entry.key !== key && !(entry.row?.file === row?.file && entry.element.contains(document.activeElement)))) {
      const element = row ? this.draw(row, index) : Object.assign(document.createElement("div"), { className: "waiting" });
      if (entry) entry.element.replaceWith(element);
      else this.host.append(element);
      entry = { element, key, row };
      this.shown.set(index, entry);
    }
    const { style } = entry.element;
    style.width = `${this.tile}px`;
    style.height = `${this.step - this.gap}px`;
    style.transform = `translate(${(index % this.columns) * (this.tile + this.gap)}px, ${Math.floor(index / this.columns) * this.step}px)`;
    if (row) this.mark(entry.element, row, index);
  }

  /** Bring marks (chosen, current) up to date. */
  remark() { for (const [index, { element, row }] of this.shown) if (row) this.mark(element, row, index); }

  load(page) {
    if (!this.asked.has(page)) this.asked.set(page, this.bring(page));
    return this.asked.get(page);
  }

  async bring(page) {
    const turn = this.turn;
    try {
      const answer = await this.fetch(page * PAGE, PAGE);
      if (turn !== this.turn) return;
      this.pages.set(page, answer.rows);
      this.total = answer.total;
      this.paint();
    } catch (error) {
      this.asked.delete(page);
      throw error;
    }
  }

  /** Bring an index into sight, below the page's own bar. */
  show(index) {
    const top = this.host.getBoundingClientRect().top + Math.floor(index / this.columns) * this.step;
    const bar = document.querySelector("header.bar").offsetHeight + 8, below = innerHeight - 72;
    if (top < bar) scrollBy({ top: top - bar });
    else if (top + this.step > below) scrollBy({ top: Math.min(top - bar, top + this.step - below) });
    this.paint();
  }
}
