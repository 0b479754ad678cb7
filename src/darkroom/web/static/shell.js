// The frame of every page: the queue, light and dark, the list of keys.
import { api, doing, el, every, keys, knownKeys, lasting, one, tell } from "/static/core.js";

const panel = one("#queue-panel"), button = one("#queue-button"), words = one("#queue-words");
const STATES = { waiting: ["waiting", ""], running: ["running", "good"], done: ["done", "good"], failed: ["failed", "bad"], cancelled: ["cancelled", ""], paused: ["paused", "warn"], lost: ["lost", "bad"] };
let jobs = [], before = new Map();

function toggle(open = panel.hidden) {
  if (!open && panel.contains(document.activeElement)) button.focus();
  panel.hidden = !open;
  button.setAttribute("aria-expanded", String(open));
  if (open) { draw(); panel.querySelector("button, a")?.focus(); }
}

export function badge(job) {
  const [name, kind] = STATES[job.state] || [job.state, ""];
  const wish = job.wish === "cancel" ? "stopping" : job.wish === "pause" ? "pausing" : name;
  return el(`span.badge${kind ? `.${kind}` : ""}`, {}, job.state === "waiting" && job.place ? `waiting, place ${job.place}` : wish);
}

function ask(job, what) {
  return (event) => doing(event.currentTarget, async () => { await api(`/api/jobs/${job.id}/${what}`, { method: "POST", body: {} }); await look(); });
}

function card(job) {
  const progress = job.progress, share = progress?.total ? progress.done / progress.total : 0;
  const open = ["waiting", "running"].includes(job.state);
  const training = ["train", "resume"].includes(job.command);
  return el("section.job", { "aria-label": job.title || job.command },
    el("div.row", {}, el("b.grow.clip", { title: job.title }, job.title || job.command), badge(job)),
    el("div.small.soft", {}, `${job.command} on ${job.device}`, job.ended && job.began ? ` · ${lasting(job.ended - job.began)}` : ""),
    open && progress ? [el("div.meter", { role: "progressbar", "aria-valuenow": Math.round(share * 100), "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": progress.what }, bar(share)),
      el("div.small.soft", {}, `${progress.what} ${progress.done} of ${progress.total}`, progress.left ? ` · ${lasting(progress.left)} left` : "", progress.note ? ` · ${progress.note}` : "")] : null,
    job.message ? el(`div.note${job.state === "failed" || job.state === "lost" ? ".bad" : ""}`, {}, job.message) : null,
    el("div.row", {},
      open && training && job.state === "running" ? el("button.small", { onclick: ask(job, "pause") }, "Pause") : null,
      job.state === "waiting" ? [el("button.small", { onclick: ask(job, "earlier") }, "Earlier"), el("button.small", { onclick: ask(job, "later") }, "Later")] : null,
      open ? el("button.small.danger", { onclick: ask(job, "cancel") }, "Cancel") : null,
      job.again && !job.followed_by ? el("button.small", { onclick: ask(job, "resume") }, "Go on") : null,
      job.page ? el("a.button.small", { href: `/${job.page}?job=${job.id}` }, "Look") : null,
      !open ? el("button.small.ghost", { onclick: ask(job, "remove"), title: "What it made stays." }, "Forget") : null));
}

function bar(share) { const inner = el("i"); inner.style.width = `${(100 * share).toFixed(1)}%`; return inner; }

function draw() {
  if (panel.hidden) return;
  const at = panel.contains(document.activeElement) ? [...panel.querySelectorAll("button, a")].indexOf(document.activeElement) : -1;
  panel.replaceChildren(el("div.row", {}, el("h2.grow", {}, "Jobs"),
    el("button.small", { onclick: (event) => doing(event.currentTarget, async () => { await api("/api/jobs/forget", { method: "POST", body: {} }); await look(); }) }, "Forget ended"),
    el("button.ghost.small", { onclick: () => { toggle(false); button.focus(); } }, "Close")),
    el("p.small.soft", {}, "Each job is a process of its own. It goes on when this page, or the studio, is closed."),
    ...(jobs.length ? jobs.map(card) : [el("p.soft", {}, "Nothing was asked for yet.")]));
  if (at >= 0) panel.querySelectorAll("button, a")[at]?.focus();
}

async function look() {
  ({ jobs } = await api("/api/jobs?limit=30"));
  const open = jobs.filter((job) => ["waiting", "running"].includes(job.state)), running = open.filter((job) => job.state === "running");
  words.textContent = running.length ? `${running[0].title || running[0].command}${running[0].progress?.total ? ` ${Math.floor(100 * running[0].progress.done / running[0].progress.total)} %` : ""}${open.length > 1 ? ` +${open.length - 1}` : ""}` : open.length ? `${open.length} waiting` : "No jobs";
  button.classList.toggle("busy", running.length > 0);
  for (const job of jobs) {
    const was = before.get(job.id);
    if (was && was !== job.state && ["done", "failed", "lost"].includes(job.state)) tell(job.state === "done" ? `${job.title || job.command}: done.` : `${job.title || job.command}: ${job.message}`, job.state === "done" ? "good" : "bad");
    before.set(job.id, job.state);
  }
  document.dispatchEvent(new CustomEvent("jobs", { detail: jobs }));
  draw();
}

function theme() {
  const root = document.documentElement, dark = root.dataset.theme === "dark" || (root.dataset.theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("darkroom.theme", root.dataset.theme);
}

function showKeys() {
  const dialog = one("#keys");
  dialog.className = "narrow";
  dialog.replaceChildren(el("div.stack", {}, el("h2", {}, "Keys"), el("table", {}, el("tbody", {}, [...knownKeys()].map(([key, [what]]) => el("tr", {}, el("td", {}, el("kbd", {}, key === " " ? "space" : key)), el("td", {}, what))))), el("button", { onclick: () => dialog.close() }, "Close")));
  dialog.showModal();
}

button.addEventListener("click", () => toggle());
one("#theme-button").addEventListener("click", theme);
one("#keys-button").addEventListener("click", showKeys);
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && !panel.hidden && !one("dialog[open]")) { toggle(false); button.focus(); } });
keys({ "?": ["This list", showKeys], q: ["Jobs", () => toggle()], t: ["Light or dark", theme], ...Object.fromEntries([...document.querySelectorAll(".bar nav a")].map((link, i) => [String(i + 1), [link.textContent, () => link.click()]])) });
every(1500, look);
