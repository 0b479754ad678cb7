// Pictures drawn before: look, send to the form, draw again, throw away and take back.
import { all, api, doing, el, file, follow, keys, one, small, tell } from "/static/core.js";

const list = one("#history"), viewer = one("#viewer"), pair = one("#compare-two");
let pictures = [], chosen = [], use = {};

/** Begin; `use.request(tree)`, `use.start(name)` are what the form takes. */
export function openHistory(form) {
  use = form;
  one("#older").addEventListener("click", (event) => doing(event.currentTarget, older));
  pair.addEventListener("click", compareTwo);
  keys({ h: ["Newest picture, large", () => pictures.length && view(0)] });
  return refresh();
}

export async function refresh() {
  const found = (await api("/api/draw/history?limit=40")).pictures;
  pictures = [...found, ...pictures.filter((one) => !found.some((other) => other.name === one.name))].sort((a, b) => b.changed - a.changed);
  draw();
}

async function older() {
  const last = pictures.at(-1);
  const more = last ? (await api(`/api/draw/history?limit=40&before=${last.changed}&name=${encodeURIComponent(last.name)}`)).pictures : [];
  if (!more.length) tell("These are all.");
  pictures.push(...more);
  draw();
}

function draw() {
  list.replaceChildren(...pictures.map((picture, index) => {
    const tile = el("div.tile", { role: "option", "aria-selected": String(chosen.includes(picture.name)), tabindex: index ? "-1" : "0", "aria-label": picture.name, dataset: { name: picture.name } },
      el("img", { src: small(picture.name, 256, picture.changed), alt: "", loading: "lazy", onclick: (event) => (event.shiftKey || event.ctrlKey ? choose(picture.name) : view(index)) }));
    tile.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() }[event.key];
      if (step !== undefined) { event.preventDefault(); all(".tile", list)[Math.max(0, Math.min(pictures.length - 1, index + step))]?.focus(); }
      if (event.key === "Enter") { event.preventDefault(); view(index); } // else it presses the button that gets the focus
      if (event.key === " ") { event.preventDefault(); choose(picture.name); }
      if (event.key === "Delete") away(picture);
    });
    return tile;
  }));
  if (!pictures.length) list.replaceChildren(el("p.soft", {}, "Nothing was drawn here yet."));
  pair.disabled = chosen.length !== 2;
}

const columns = () => Math.max(1, Math.floor(list.clientWidth / (all(".tile", list)[0]?.offsetWidth + 12 || 180)));

function choose(name) {
  chosen = chosen.includes(name) ? chosen.filter((one) => one !== name) : [...chosen, name].slice(-2);
  for (const tile of all(".tile", list)) tile.setAttribute("aria-selected", String(chosen.includes(tile.dataset.name)));
  pair.disabled = chosen.length !== 2;
}

function view(index) {
  const picture = pictures[index];
  if (!picture) return;
  const about = el("div.small.soft.grow.clip", {}, picture.name);
  const act = (words, work, id) => el("button.small", { id, onclick: (event) => doing(event.currentTarget, work) }, words);
  viewer.replaceChildren(el("div.row", {}, about,
    act("To the form", async () => { const found = await api(`/api/draw/request?name=${encodeURIComponent(picture.name)}`); use.request(found); viewer.close(); }, "to-form"),
    act("As start picture", async () => { use.start(picture.name); viewer.close(); }),
    act("Draw again exactly", () => again(picture, about), "again"),
    act("Throw away", async () => { await away(picture); viewer.close(); }),
    el("a.button.small", { href: `${file(picture.name)}&save=1`, download: "" }, "Save"), el("button.small", { onclick: () => viewer.close() }, "Close")),
    el("div.view", {}, el("img.pixel", { src: file(picture.name, picture.changed), alt: picture.name })));
  viewer.onkeydown = (event) => {
    if (event.key === "ArrowRight") view(Math.min(pictures.length - 1, index + 1));
    if (event.key === "ArrowLeft") view(Math.max(0, index - 1));
    if (event.key === "Delete") doing(null, async () => { await away(picture); viewer.close(); });
  };
  api(`/api/draw/request?name=${encodeURIComponent(picture.name)}`).then(({ request }) => { about.textContent = `${request.prompt} · seed ${request.seed} · ${request.steps} steps · ${request.width} x ${request.height} · ${picture.name}`; }).catch(() => {});
  if (!viewer.open) viewer.showModal();
  one("#to-form").focus();
}

async function again(picture, about) {
  const { order } = await api("/api/draw/again", { method: "POST", body: { name: picture.name } });
  about.textContent = "It is being drawn again.";
  const job = await follow(order);
  if (job.state !== "done") throw new Error(job.message || `It ended as ${job.state}.`);
  const { same } = await api(`/api/draw/same?order=${order}&name=${encodeURIComponent(picture.name)}`);
  const words = same ? "Drawn again: the same bytes." : "Drawn again: other bytes. Another machine, another version, or a file that was re-saved.";
  about.textContent = words;
  tell(words, same ? "good" : "bad");
  await refresh();
}

async function away(picture) {
  const { back } = await api("/api/draw/trash", { method: "POST", body: { name: picture.name } });
  pictures = pictures.filter((one) => one !== picture);
  draw();
  tell("Thrown away: it lies in pictures/.trash.");
  one("#toasts").lastChild.append(el("button.small", { onclick: async () => { await doing(null, () => api("/api/draw/back", { method: "POST", body: { back } })); await refresh(); } }, "Take back"));
}

/** Two pictures over each other, a slider between. */
function compareTwo() {
  const [left, right] = chosen, over = el("img.pixel", { src: file(right), alt: right });
  const slider = el("input", { type: "range", min: "0", max: "100", value: "50", "aria-label": `${left} to the left, ${right} to the right`, oninput: () => { over.style.clipPath = `inset(0 0 0 ${slider.value}%)`; } });
  over.style.clipPath = "inset(0 0 0 50%)";
  viewer.onkeydown = null;
  viewer.replaceChildren(el("div.row", {}, el("span.small.clip.grow", {}, left), el("span.small.clip", {}, right), el("button.small", { onclick: () => viewer.close() }, "Close")), el("div.two", {}, el("img.pixel", { src: file(left), alt: left }), over), slider);
  viewer.showModal();
}
