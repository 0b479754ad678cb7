// Previews over the steps: a strip with the newest at the right, a large one that is scrubbed through, and two of them side by side or wiped over each other.
import { el, file, small } from "/static/core.js";

/** film(place, { run }) -> { update(frames, prompts), move(by), hold() }. A frame is { step, prompt, name, stamp }. */
export function film(place) {
  let frames = new Map(), steps = [], prompts = [], at = -1, held = -1, newest = true, drawn = "";
  const strip = el("div.strip.film", { role: "listbox", "aria-label": "Previews by step", tabindex: "0" });
  const large = el("div.large"), slider = el("input", { type: "range", min: 0, max: 0, step: 1, "aria-label": "Step" }), words = el("span.num", {}, "");
  const hold = el("button.small", { "aria-pressed": "false", title: "c", onclick: () => pin() }, "Hold this one");
  slider.addEventListener("input", () => go(Number(slider.value)));
  strip.addEventListener("keydown", (event) => { if (event.key === "ArrowLeft" || event.key === "ArrowRight") { event.preventDefault(); event.stopPropagation(); go(at + (event.key === "ArrowLeft" ? -1 : 1)); } });
  place.replaceChildren(el("header", {}, el("h2.grow", {}, "Previews"), words, hold), large, el("label.scrub", {}, el("span.hidden-words", {}, "Step"), slider), strip);

  const columns = (index) => [...(frames.get(steps[index])?.values() || [])];
  const said = (prompt) => prompts[prompt] ?? `preview ${prompt + 1}`;

  function go(index) {
    at = Math.max(0, Math.min(steps.length - 1, index));
    newest = at === steps.length - 1;
    show();
  }

  function pin() { held = held === at ? -1 : at; hold.setAttribute("aria-pressed", String(held >= 0)); show(); }

  function picture(frame, note = "") {
    const image = el("img", { src: file(frame.name, frame.stamp), alt: `step ${frame.step}: ${said(frame.prompt)}`, loading: "lazy" });
    image.addEventListener("load", () => image.classList.toggle("pixel", image.naturalWidth <= 160));
    return el("button.shot", { onclick: () => enlarge(frame), title: "Larger" }, image, el("span.small", {}, `step ${frame.step}${note}`));
  }

  function show() {
    slider.max = String(Math.max(0, steps.length - 1)); slider.value = String(at); slider.disabled = steps.length < 2;
    slider.setAttribute("aria-valuetext", `step ${steps[at]}`);
    words.textContent = `step ${steps[at]}${held >= 0 && held !== at ? ` beside ${steps[held]}` : ""}`;
    hold.textContent = held >= 0 ? `Let go of step ${steps[held]}` : "Hold this one";
    const rows = [...new Set([...columns(at), ...(held >= 0 ? columns(held) : [])].map((frame) => frame.prompt))];
    const beside = [at, ...(held >= 0 && held !== at ? [held] : [])].sort((a, b) => a - b);
    large.replaceChildren(...rows.map((prompt) => el("figure", {}, el("div.row", {}, beside.map((index) => frames.get(steps[index])?.get(prompt)).filter(Boolean).map((frame) => picture(frame, frame.step === steps[held] && held !== at ? ", held" : ""))), el("figcaption.small.soft", {}, said(prompt)))));
    for (const [index, cell] of [...strip.children].entries()) { cell.setAttribute("aria-selected", String(index === at)); cell.classList.toggle("held", index === held); }
    const cell = strip.children[at];
    if (cell) strip.scrollLeft = newest ? strip.scrollWidth : cell.offsetLeft - strip.clientWidth / 2;
    strip.setAttribute("aria-activedescendant", cell?.id || "");
  }

  function enlarge(frame) {
    const otherStep = held >= 0 && steps[held] === frame.step ? steps[at] : steps[held], other = held >= 0 ? frames.get(otherStep)?.get(frame.prompt) : null, dialog = el("dialog.enlarged", { "aria-label": said(frame.prompt) });
    const over = el("img", { src: file(frame.name, frame.stamp), alt: `step ${frame.step}` }), under = other && other.step !== frame.step ? el("img.under", { src: file(other.name, other.stamp), alt: `step ${other.step}` }) : null;
    const wipe = under ? el("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": `Wipe between step ${other.step} and step ${frame.step}` }) : null;
    const draw = () => { if (wipe) over.style.clipPath = `inset(0 0 0 ${wipe.value}%)`; };
    wipe?.addEventListener("input", draw);
    for (const image of [over, under]) image?.addEventListener("load", () => image.classList.toggle("pixel", image.naturalWidth <= 160));
    draw();
    dialog.append(el("div.stack", {}, el("div.row", {}, el("b.grow", {}, under ? `step ${other.step} | step ${frame.step}` : `step ${frame.step}`), el("button.small", { onclick: () => dialog.close() }, "Close")), el("div.wipe", {}, under || "", over), wipe || "", el("p.small.soft", {}, said(frame.prompt))));
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog); dialog.showModal();
  }

  return {
    update(found, names) {
      const stamp = found.map((frame) => `${frame.step}.${frame.prompt}.${frame.stamp}`).join(" ");
      if (stamp === drawn) return;
      drawn = stamp; prompts = names;
      const step = steps[at], pinned = steps[held];
      frames = new Map();
      for (const frame of found) { if (!frames.has(frame.step)) frames.set(frame.step, new Map()); frames.get(frame.step).set(frame.prompt, frame); }
      steps = [...frames.keys()].sort((a, b) => a - b);
      held = steps.indexOf(pinned);
      at = newest || !steps.includes(step) ? steps.length - 1 : steps.indexOf(step);
      strip.replaceChildren(...steps.map((each, index) => {
        const cell = el("div.frame", { role: "option", id: `frame-${each}`, "aria-selected": "false", "aria-label": `step ${each}`, onclick: () => go(index) }, columns(index).slice(0, 4).map((frame) => el("img", { src: small(frame.name, 128, frame.stamp), alt: "", loading: "lazy" })), el("span.small", {}, String(each)));
        return cell;
      }));
      show();
    },
    move: (by) => go(at + by),
    hold: pin,
  };
}
