// Draw: the form, the picture that is being drawn, and what was drawn.
import { api, doing, el, every, file, keys, one, sendOne, takeFiles, tell } from "/static/core.js";
import { fields } from "/static/draw-fields.js";
import { openHistory, refresh } from "/static/draw-history.js";

const form = one("#form"), stage = one("#stage");
let built, running = null;

async function begin() {
  const known = await api("/api/draw");
  built = fields(form, known);
  const kept = JSON.parse(localStorage.getItem("darkroom.request") || "null");
  const asked = new URLSearchParams(location.search);
  built.fill({ ...known.defaults, ...(kept || {}) });
  if (asked.get("adapter")) built.wear(asked.get("adapter"));
  if (asked.get("job")) watch(asked.get("job"));
  else empty();
  form.addEventListener("submit", (event) => { event.preventDefault(); draw(); });
  form.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); draw(); } });
  drops();
  await openHistory({ request: take, start: built.start });
}

function empty() {
  stage.replaceChildren(el("p.soft", {}, "Write a prompt and press Ctrl+Enter."));
}

/** A request from a picture, and what of it is not here. */
function take({ request, missing }) {
  built.fill(request);
  if (missing.length) tell(`Not in this workspace: ${missing.join(", ")}. Choose others before drawing.`, "bad");
  else tell("The picture's request is in the form.");
}

function draw() {
  return doing(one("#draw"), async () => {
    const asked = built.read();
    const { order } = await api("/api/draw", { method: "POST", body: asked });
    localStorage.setItem("darkroom.request", JSON.stringify({ ...asked.request, image: "", mask: "" }));
    built.drawn();
    watch(order);
    if (innerWidth <= 900) stage.scrollIntoView();
  });
}

function watch(order) {
  running?.();
  const picture = el("img.now.pixel", { alt: "What is being drawn", hidden: true }), meter = el("div.meter", { role: "progressbar", "aria-label": "Steps" }, el("i")), words = el("p.small.soft", { "aria-live": "off" }, "waiting for its turn");
  const cancel = el("button.small.danger", { onclick: () => doing(cancel, () => api(`/api/jobs/${order}/cancel`, { method: "POST", body: {} })) }, "Cancel");
  stage.replaceChildren(el("figure", {}, picture), meter, el("div.row", {}, el("div.grow", {}, words), cancel));
  let looked = "";
  running = every(500, async () => {
    const job = await api(`/api/jobs/${order}`);
    const progress = job.progress;
    meter.firstChild.style.width = `${progress?.total ? (100 * progress.done) / progress.total : 0}%`;
    words.textContent = job.state === "waiting" ? `waiting, place ${job.place}` : progress ? `${progress.what} ${progress.done} of ${progress.total}${progress.note ? ` · ${progress.note}` : ""}` : "the model is being opened";
    if (["waiting", "running"].includes(job.state)) {
      const answer = job.state === "running" ? await fetch(`/api/draw/preview?order=${order}`) : null;
      if (answer?.status === 200) {
        const blob = await answer.blob(), mark = `${blob.size}`;
        if (mark !== looked) { looked = mark; const old = picture.src; picture.src = URL.createObjectURL(blob); picture.hidden = false; if (old) URL.revokeObjectURL(old); }
      }
      return;
    }
    running();
    finished(job);
  });
}

async function finished(job) {
  if (job.state !== "done") {
    stage.replaceChildren(el(`div.note${job.state === "failed" ? ".bad" : ""}`, { role: "alert" }, job.message || `It ended as ${job.state}.`));
    return;
  }
  const names = (job.result?.pictures || []).map(named);
  const large = el("img.now.pixel", { src: file(names[0], job.id), alt: job.title });
  const strip = names.length > 1 ? el("div.strip", { role: "group", "aria-label": "Pictures" }, names.map((name) => el("button", { "aria-label": name, onclick: () => { large.src = file(name, job.id); } }, el("img.pixel", { src: file(name, job.id), alt: "" })))) : "";
  stage.replaceChildren(el("figure", {}, large), strip, el("p.small.soft", { role: "status" }, `${names.join(", ")} · ${((job.ended - job.began) || 0).toFixed(1)} s`));
  await refresh();
}

/** A result's path as pages name it. */
const named = (path) => { const at = path.lastIndexOf("pictures/"); return at > 0 && path.startsWith("/") ? path.slice(at) : path; };

/** A PNG dropped on the form brings its request; any other picture becomes the start picture. */
function drops() {
  takeFiles(form, { many: false }, (files) => doing(null, async () => {
    const name = await sendOne(files[0]);
    try {
      take(await api(`/api/draw/request?name=${encodeURIComponent(name)}`));
    } catch {
      built.start(name);
      tell("It carries no Darkroom request: it is the start picture now.");
    }
  }));
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files || [])].filter((one) => one.type.startsWith("image/"));
    if (pasted.length) doing(null, async () => built.start(await sendOne({ file: pasted[0], name: "pasted.png" })));
  });
}

keys({ p: ["To the prompt", () => one("#prompt").focus()], r: ["Another seed", () => built.dice()], d: ["Draw (in the form: Ctrl+Enter)", draw], c: ["Compare the two chosen pictures", () => { if (!one("#compare-two").disabled) one("#compare-two").click(); }] });
doing(null, begin);
