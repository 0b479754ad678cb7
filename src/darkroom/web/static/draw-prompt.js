// A prompt and how it is read, while it is typed.
import { api, el } from "/static/core.js";

/** The line below a prompt: spans with their weights, tags, tokens. */
export function readingLine() {
  const line = el("div.read", { role: "status", "aria-live": "off" });
  line.show = (reading) => {
    if (reading.error) return line.replaceChildren(el("span.bad", {}, reading.error));
    const parts = reading.stages.flatMap((stage, i) => [i ? el("span.badge", {}, `from step ${stage.from}`) : null, ...stage.spans.filter((span) => span.text.trim()).map(spanned)]);
    const tags = reading.tags.map((tag) => el(`span.badge${tag.known ? ".good" : ".bad"}`, {}, `${tag.name} ${tag.weight}${tag.known ? "" : ": no such file in adapters/"}`));
    const weighted = reading.stages.length > 1 || reading.tags.length || reading.stages.some((stage) => stage.spans.some((span) => span.weight !== 1));
    const tokens = el(`span.badge${reading.tokens > 75 ? ".warn" : ""}`, {}, `${reading.tokens} of ${75 * reading.chunks} tokens${reading.chunks > 1 ? `, read in ${reading.chunks} parts` : ""}`);
    return line.replaceChildren(...(weighted ? parts.filter(Boolean) : []), ...tags, reading.tokens || reading.tags.length ? tokens : "", weighted && reading.language !== "plain" ? el("span.badge", {}, reading.language) : "");
  };
  return line;
}

function spanned({ text, weight }) {
  const kind = weight > 1 ? ".more" : weight < 1 ? ".less" : "";
  return el(`span.span${kind}`, {}, text.trim(), weight === 1 ? null : el("sub", {}, `${+weight.toFixed(3)}`));
}

/** Ask how both sides are read, a moment after the last key; an answer that was overtaken is thrown away. */
export function reader(collect, show) {
  let timer, last;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      last?.abort();
      last = new AbortController();
      try { show(await api("/api/draw/read", { method: "POST", body: collect(), signal: last.signal })); } catch { /* the next key asks again */ }
    }, 180);
  };
}

/** Ctrl+Up and Ctrl+Down: the weight of the selection, or of the word at the cursor, by 0.1, in A1111's language. */
export function weighKeys(area, changed) {
  area.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || !["ArrowUp", "ArrowDown"].includes(event.key)) return;
    event.preventDefault();
    const step = event.key === "ArrowUp" ? .1 : -.1, text = area.value;
    let [from, to] = [area.selectionStart, area.selectionEnd];
    const around = [...text.matchAll(/\(([^()]*):([\d.]+)\)/g)].find((found) => found.index <= from && found.index + found[0].length >= to);
    if (around) return replace(area, around.index, around.index + around[0].length, around[1], Number(around[2]) + step, changed);
    if (from === to) {
      while (from > 0 && !/[\s,()]/.test(text[from - 1])) from--;
      while (to < text.length && !/[\s,()]/.test(text[to])) to++;
    }
    while (from < to && text[from] === " ") from++;
    while (to > from && text[to - 1] === " ") to--;
    if (from < to) replace(area, from, to, text.slice(from, to), 1 + step, changed);
  });
}

function replace(area, from, to, words, weight, changed) {
  const rounded = Math.round(weight * 100) / 100;
  const made = Math.abs(rounded - 1) < .001 ? words : `(${words}:${rounded})`;
  area.setRangeText(made, from, to, "select");
  changed();
}
