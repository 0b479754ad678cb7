// A mask painted over the start picture: white is drawn anew, black stays. Saved as a PNG of the picture's own size.
import { doing, el, file, one, sendOne } from "/static/core.js";

/** Open the painter for a start picture; `done(name)` with the uploaded mask's name. */
export function paint(image, mask, done) {
  const dialog = one("#painter"), picture = el("img", { src: file(image), alt: "The start picture" }), canvas = el("canvas", { tabindex: "0", role: "application", "aria-label": "Paint what is drawn anew. Arrow keys move the brush, space paints." });
  const size = el("input", { id: "brush", type: "range", min: "2", max: "200", value: "40" });
  const erase = el("button", { type: "button", "aria-pressed": "false", onclick: () => erase.setAttribute("aria-pressed", String(erase.getAttribute("aria-pressed") !== "true")) }, "Erase (e)");
  const undone = [];
  let pen, at = null, cursor = null;
  const keep = () => { undone.push(pen.getImageData(0, 0, canvas.width, canvas.height)); if (undone.length > 30) undone.shift(); };
  const brush = () => (Number(size.value) * canvas.width) / 1000;
  function dot(x, y, from = null) {
    pen.globalCompositeOperation = erase.getAttribute("aria-pressed") === "true" ? "destination-out" : "source-over";
    pen.fillStyle = pen.strokeStyle = "#ff2d55";
    pen.lineWidth = 2 * brush();
    pen.lineCap = "round";
    pen.beginPath();
    if (from) { pen.moveTo(...from); pen.lineTo(x, y); pen.stroke(); } else { pen.arc(x, y, brush(), 0, 7); pen.fill(); }
  }
  const place = (event) => { const box = canvas.getBoundingClientRect(); return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height]; };
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); keep(); at = place(event); dot(...at); });
  canvas.addEventListener("pointermove", (event) => { if (at) { const next = place(event); dot(...next, at); at = next; } });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { at = null; });
  const undo = () => { const last = undone.pop(); if (last) pen.putImageData(last, 0, 0); };
  const clear = () => { keep(); pen.clearRect(0, 0, canvas.width, canvas.height); };
  const invert = () => { keep(); pen.globalCompositeOperation = "xor"; pen.fillStyle = "#ff2d55"; pen.fillRect(0, 0, canvas.width, canvas.height); };
  dialog.onkeydown = (event) => {
    const act = { "[": () => { size.value = Number(size.value) - 8; }, "]": () => { size.value = Number(size.value) + 8; }, e: () => erase.click(), i: invert, z: undo, Delete: clear }[event.key];
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (act) { event.preventDefault(); act(); } else if (event.target === canvas && way) {
      event.preventDefault();
      cursor = cursor || [canvas.width / 2, canvas.height / 2];
      cursor = [Math.max(0, Math.min(canvas.width, cursor[0] + way[0] * brush())), Math.max(0, Math.min(canvas.height, cursor[1] + way[1] * brush()))];
      if (event.shiftKey) { keep(); dot(...cursor); }
    } else if (event.target === canvas && event.key === " ") { event.preventDefault(); keep(); cursor = cursor || [canvas.width / 2, canvas.height / 2]; dot(...cursor); }
  };
  const save = (event) => doing(event.currentTarget, async () => {
    const black = document.createElement("canvas");
    [black.width, black.height] = [canvas.width, canvas.height];
    const paper = black.getContext("2d"), painted = pen.getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < painted.data.length; i += 4) { const white = painted.data[i + 3] > 127 ? 255 : 0; painted.data[i] = painted.data[i + 1] = painted.data[i + 2] = white; painted.data[i + 3] = 255; }
    paper.putImageData(painted, 0, 0);
    const blob = await new Promise((resolve) => black.toBlob(resolve, "image/png"));
    const name = await sendOne({ file: blob, name: "mask.png" });
    dialog.close();
    done(name);
  });
  dialog.replaceChildren(el("div.stack", {}, el("h2", {}, "What is drawn anew"), el("div.row", {}, el("label", { for: "brush" }, "Brush ([ and ])"), el("span", {}, size), erase,
    el("button", { type: "button", onclick: undo }, "Undo (z)"), el("button", { type: "button", onclick: invert }, "Invert (i)"), el("button", { type: "button", onclick: clear }, "Clear"),
    el("span.grow"), el("button.ghost", { type: "button", onclick: () => dialog.close() }, "Close"), el("button.primary", { type: "button", id: "mask-done", onclick: save }, "Use this mask")), el("div.easel", {}, picture, canvas)));
  picture.decode().then(async () => {
    [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
    pen = canvas.getContext("2d", { willReadFrequently: true });
    if (mask) await lay(mask, pen, canvas).catch(() => {});
    canvas.dataset.ready = "yes";
  });
  dialog.showModal();
  canvas.focus();
}

/** An earlier mask, to go on with. */
async function lay(mask, pen, canvas) {
  const old = el("img", { src: file(mask) });
  await old.decode();
  pen.drawImage(old, 0, 0, canvas.width, canvas.height);
  const painted = pen.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < painted.data.length; i += 4) { painted.data[i + 3] = painted.data[i] > 127 ? 255 : 0; painted.data[i] = 255; painted.data[i + 1] = 45; painted.data[i + 2] = 85; }
  pen.putImageData(painted, 0, 0);
}
