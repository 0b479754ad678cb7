// What all pages share: asking the server, making elements, watching jobs, telling the person, keys.

/** Ask the server. A mistake is thrown as Error with the server's words. */
export async function api(path, { method = "GET", body, signal } = {}) {
  const headers = { "X-Darkroom": "1", Accept: "application/json" };
  const raw = body instanceof Blob;
  if (body !== undefined && !raw) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : raw ? body : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The studio does not answer. Jobs that run go on; start it again with `darkroom studio`.");
  }
  const told = await answer.json().catch(() => ({ error: `The studio answered with ${answer.status}.` }));
  if (!answer.ok) throw Object.assign(new Error(told.error || `The studio answered with ${answer.status}.`), { status: answer.status, kind: told.kind });
  return told;
}

/** An element: el("button.primary", { onclick, "aria-label": "x" }, "words", child...). Text is always text, never HTML. */
export function el(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const made = ["svg", "path", "g", "line", "circle", "rect", "text", "polyline", "title"].includes(tag) && attributes.svg !== false && (tag !== "title")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  if (classes.length) made.setAttribute("class", classes.join(" "));
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "svg" || value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "dataset") Object.assign(made.dataset, value);
    else if (["value", "checked", "disabled", "hidden", "selected", "open"].includes(key) && key in made) made[key] = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** The one element that a selector names. */
export const one = (selector, within = document) => within.querySelector(selector);
export const all = (selector, within = document) => [...within.querySelectorAll(selector)];

/** Say something that goes away; mistakes stay until they are read. */
export function tell(words, kind = "good") {
  const close = el("button.ghost.small", { "aria-label": "Close", onclick: () => toast.remove() }, "×");
  const toast = el(`div.toast${kind === "bad" ? ".bad" : ""}`, { role: kind === "bad" ? "alert" : null }, el("span.grow", {}, words), close);
  one("#toasts").append(toast);
  while (one("#toasts").children.length > 4) one("#toasts").firstChild.remove();
  if (kind !== "bad") setTimeout(() => toast.remove(), 6000);
}

/** Run something a person asked for; its mistake is told, its button is shut meanwhile. */
export async function doing(button, work) {
  const held = button && document.activeElement === button;
  if (button) button.disabled = true;
  try {
    return await work();
  } catch (error) {
    if (error.name !== "AbortError") tell(error.message, "bad");
    return undefined;
  } finally {
    if (button) button.disabled = false;
    if (held && [null, document.body].includes(document.activeElement)) button.focus(); // a button that is shut loses the focus
  }
}

/** Call `work` now and every so often while the page is looked at; returns what stops it. Slower where answers are slow or fail. */
export function every(milliseconds, work) {
  let stopped = false, timer;
  async function turn() {
    const began = performance.now();
    let failed = false;
    if (!document.hidden) await work().catch(() => { failed = true; });
    const took = performance.now() - began;
    if (!stopped) timer = setTimeout(turn, failed ? 4 * milliseconds : Math.max(milliseconds, 3 * took));
  }
  const seen = () => { if (!document.hidden && !stopped) { clearTimeout(timer); turn(); } };
  document.addEventListener("visibilitychange", seen);
  turn();
  return () => { stopped = true; clearTimeout(timer); document.removeEventListener("visibilitychange", seen); };
}

/** Watch one job to its end: `onchange(job)` at each change; resolves to the ended job. */
export function follow(id, onchange = () => {}) {
  return new Promise((resolve) => {
    const stop = every(600, async () => {
      const job = await api(`/api/jobs/${id}`);
      onchange(job);
      if (!["waiting", "running"].includes(job.state)) { stop(); resolve(job); }
    });
  });
}

/** Keys of a page: keys({ "k": ["Keep it", () => ...] }). They rest while something is typed. */
const known = new Map();
export function keys(table) {
  for (const [key, entry] of Object.entries(table)) known.set(key, entry);
}
export function knownKeys() { return known; }
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input:not([type=checkbox]):not([type=radio]):not([type=range]), textarea, select, [contenteditable]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || one("dialog[open]")) return;
  const entry = known.get(event.key);
  if (entry && !(event.key === "Enter" && event.target.closest?.("button, a, summary"))) { event.preventDefault(); entry[1](event); }
});

export const small = (name, side = 256, stamp = "") => `/small?name=${encodeURIComponent(name)}&side=${side}${stamp ? `&v=${stamp}` : ""}`;
export const file = (name, stamp = "") => `/file?name=${encodeURIComponent(name)}${stamp ? `&v=${stamp}` : ""}`;
export const report = (name) => `/report?name=${encodeURIComponent(name)}`;

/** 75 -> "1 min 15 s". */
export function lasting(seconds) {
  if (seconds === null || seconds === undefined || !isFinite(seconds)) return "";
  const s = Math.round(seconds);
  return s < 60 ? `${s} s` : s < 3600 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

/** 1048576 -> "1.0 MiB". */
export function bytes(count) {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) { if (count < 1024 || unit === "GiB") return `${unit === "B" ? count : count.toFixed(1)} ${unit}`; count /= 1024; }
}

/** Send files, six at a time: send(files, onprogress) -> { batch, folder, taken: [answers], refused: [{ name, why }] }. A file is { file, name }. */
export async function send(files, onprogress = () => {}) {
  const { batch, folder } = await api("/api/uploads/new", { method: "POST", body: {} });
  const taken = [], refused = [], left = [...files];
  async function lane() {
    for (let next = left.shift(); next; next = left.shift()) {
      try {
        taken.push(await api(`/api/uploads/${batch}?name=${encodeURIComponent(next.name)}`, { method: "PUT", body: next.file }));
      } catch (error) {
        refused.push({ name: next.name, why: error.message });
      }
      onprogress(taken.length + refused.length, files.length);
    }
  }
  await Promise.all(Array.from({ length: Math.min(6, files.length) }, lane));
  return { batch, folder, taken, refused };
}

/** Send one file: its name in the workspace. What is refused is thrown. */
export async function sendOne(file) {
  const { taken, refused } = await send([file]);
  if (refused.length) throw new Error(refused[0].why);
  return taken[0].name;
}

/** Files of a drop, folders walked: [{ file, name: "sub/a.png" }]. */
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => ({ file, name: file.name }));
  const found = [];
  async function walk(entry, prefix) {
    if (entry.isFile) found.push({ file: await new Promise((ok, no) => entry.file(ok, no)), name: prefix + entry.name });
    else {
      const reader = entry.createReader();
      for (let part; (part = await new Promise((ok, no) => reader.readEntries(ok, no))).length;) for (const inner of part) await walk(inner, `${prefix}${entry.name}/`);
    }
  }
  for (const entry of entries) await walk(entry, "");
  return found.filter(({ name }) => !name.split("/").some((part) => part.startsWith(".")));
}

/** Make an element take drops and clicks: takeFiles(element, { accept, folder: true }, (files) => ...). */
export function takeFiles(element, { accept = "", folder = false, many = true } = {}, taken) {
  const input = el("input", { type: "file", accept, multiple: many, hidden: true, webkitdirectory: folder, "aria-hidden": "true", tabindex: "-1" });
  input.addEventListener("change", () => {
    taken([...input.files].map((file) => ({ file, name: (file.webkitRelativePath || file.name).split("/").filter(Boolean).join("/") })));
    input.value = "";
  });
  element.append(input);
  element.addEventListener("dragover", (event) => { event.preventDefault(); element.classList.add("over"); });
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", async (event) => { event.preventDefault(); element.classList.remove("over"); taken(await dropped(event.dataTransfer)); });
  return () => input.click();
}

/** Round values, four to nine of them, that part a range; no nearer than `least`. */
function round(low, high, least = 0) {
  const wide = (high - low) / 8, size = 10 ** Math.floor(Math.log10(wide)), step = Math.max(least, [1, 2, 5, 10].map((times) => times * size).find((one) => one >= wide * .999));
  return Array.from({ length: Math.floor(high / step + 1e-9) - Math.ceil(low / step - 1e-9) + 1 }, (_, i) => +((Math.ceil(low / step - 1e-9) + i) * step).toPrecision(12));
}

/** Lines over steps as SVG: plot([{ name, colour: 1..4, points: [[x, y]] }], { y: "loss", log: false }). */
export function plot(series, { width = 640, height = 220, y = "", x = "step" } = {}) {
  const left = 62, right = 12, top = 22, bottom = 30;
  const points = series.flatMap((line) => line.points).filter(([, value]) => isFinite(value));
  const svg = el("svg.plot", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${series.map((line) => line.name).join(", ")} over ${x}s` });
  if (!points.length) { svg.append(el("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "nothing measured yet")); return svg; }
  const xs = points.map(([at]) => at), ys = points.map(([, value]) => value);
  const x0 = Math.min(...xs), x1 = Math.max(...xs, x0 + 1), spread = Math.max(...ys) - Math.min(...ys) || Math.abs(ys[0]) || 1;
  const y0 = Math.min(...ys) - spread * .05, y1 = Math.max(...ys) + spread * .05;
  const px = (at) => left + ((at - x0) / (x1 - x0)) * (width - left - right), py = (value) => top + (1 - (value - y0) / (y1 - y0)) * (height - top - bottom);
  const words = (value) => (Math.abs(value) >= 100000 || (Math.abs(value) < .001 && value) ? value.toExponential(1) : String(+value.toPrecision(6)));
  for (const value of round(y0, y1)) svg.append(el("line.axis", { x1: left, x2: width - right, y1: py(value), y2: py(value) }), el("text", { x: left - 6, y: py(value) + 4, "text-anchor": "end" }, words(value)));
  for (const value of round(x0, x1, 1)) svg.append(el("text", { x: px(value), y: height - 10, "text-anchor": value === x1 ? "end" : value === x0 ? "start" : "middle" }, String(value)));
  let at = left;
  for (const line of series) {
    const colour = `var(--series-${line.colour || 1})`;
    const d = line.points.filter(([, value]) => isFinite(value)).map(([a, b], i) => `${i ? "L" : "M"}${px(a).toFixed(1)} ${py(b).toFixed(1)}`).join("");
    const path = el("path", { d }); path.style.stroke = colour; if (line.faint) path.style.opacity = .35;
    const label = el("text", { x: at, y: 13 }, line.name); label.style.fill = colour;
    svg.append(path, label);
    if (line.points.length < 40 && !line.faint) for (const [a, b] of line.points) { const dot = el("circle", { cx: px(a), cy: py(b), r: 2.6 }); dot.style.fill = colour; svg.append(dot); }
    at += line.name.length * 7 + 20;
  }
  if (y) svg.append(el("text", { x: width - right, y: 13, "text-anchor": "end" }, y));
  return svg;
}
