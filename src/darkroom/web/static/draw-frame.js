// Outpainting by handles: the start picture, and around it what is added. Edges are dragged, or moved by arrow keys; the numbers stand beside it.
import { el, file } from "/static/core.js";

const MOST = 4096, ROUND = 8;
const WAYS = { left: ["ArrowLeft", "ArrowRight"], top: ["ArrowUp", "ArrowDown"], right: ["ArrowRight", "ArrowLeft"], bottom: ["ArrowDown", "ArrowUp"] };

/** The start picture within the frame of what is drawn; `sides`: [["left", its input], ...], which it writes and follows. */
export function frame(name, sides) {
  const inputs = Object.fromEntries(sides), picture = el("img.pixel", { src: file(name), alt: `Start picture ${name}`, draggable: "false" });
  const whole = el("div.whole"), board = el("div.frame", {}, whole, picture), told = el("div.help", { role: "status" });
  const added = () => Object.fromEntries(sides.map(([side, input]) => [side, Math.max(0, Math.min(MOST, Number(input.value) || 0))]));
  let scale = 1, drag = null;

  const handles = sides.map(([side]) => el(`div.handle.${side}`, { role: "slider", tabindex: "0", "aria-label": `Pixels added ${side === "top" || side === "bottom" ? "at the" : "on the"} ${side}`, "aria-valuemin": 0, "aria-valuemax": MOST, "aria-orientation": side === "left" || side === "right" ? "horizontal" : "vertical" }));
  whole.append(...handles);

  function set(side, value) {
    inputs[side].value = Math.max(0, Math.min(MOST, Math.round(value / ROUND) * ROUND));
    lay();
  }

  /** Everything at its place. The scale stays while an edge is dragged: the picture must not run away under the hand. */
  function lay() {
    const wide = picture.naturalWidth, high = picture.naturalHeight, { left, top, right, bottom } = added();
    if (!wide || !board.clientWidth) return;
    if (!drag) scale = Math.min(board.clientWidth / (1.3 * Math.max(wide, left + wide + right)), 320 / (1.3 * Math.max(high, top + high + bottom)));
    board.style.height = `${Math.min(320, Math.max(1.3 * high, 1.15 * (top + high + bottom)) * scale)}px`;
    const x = drag ? drag.x : (board.clientWidth - (left + wide + right) * scale) / 2 + left * scale, y = drag ? drag.y : (parseFloat(board.style.height) - (top + high + bottom) * scale) / 2 + top * scale;
    Object.assign(picture.style, { left: `${x}px`, top: `${y}px`, width: `${wide * scale}px`, height: `${high * scale}px` });
    Object.assign(whole.style, { left: `${x - left * scale}px`, top: `${y - top * scale}px`, width: `${(left + wide + right) * scale}px`, height: `${(top + high + bottom) * scale}px` });
    sides.forEach(([side], i) => handles[i].setAttribute("aria-valuenow", added()[side]));
    told.textContent = left + top + right + bottom ? `${wide} x ${high} becomes ${left + wide + right} x ${top + high + bottom}.` : "Drag an edge, or move it with the arrow keys, to draw beyond the picture.";
  }

  sides.forEach(([side, input], i) => {
    const handle = handles[i], across = side === "left" || side === "right", sign = side === "left" || side === "top" ? -1 : 1;
    input.addEventListener("input", lay);
    handle.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      handle.focus();
      handle.setPointerCapture(event.pointerId);
      drag = { from: across ? event.clientX : event.clientY, had: added()[side], x: parseFloat(picture.style.left), y: parseFloat(picture.style.top) };
    });
    handle.addEventListener("pointermove", (event) => { if (drag) set(side, drag.had + (sign * ((across ? event.clientX : event.clientY) - drag.from)) / scale); });
    for (const end of ["pointerup", "pointercancel"]) handle.addEventListener(end, () => { drag = null; lay(); });
    handle.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 8 * ROUND : ROUND, [out, back] = WAYS[side], was = added()[side];
      const next = { [out]: was + step, [back]: was - step, Home: 0 }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      set(side, next);
    });
  });
  picture.addEventListener("load", lay);
  new ResizeObserver(lay).observe(board);
  return el("div.stack", {}, board, told);
}
