// Captions: a list where each is edited in place, and many changed at once after a look at what would change.
import { doing, el, small } from "/static/core.js";
import { captionField } from "/static/pictures-caption.js";
import { badge } from "/static/pictures-card.js";
import { captioning } from "/static/pictures-ask.js";
import { Scroll } from "/static/pictures-scroll.js";
import { change, chosen, choose, flip, isChosen, many, on, path, rows, store, targets } from "/static/pictures-store.js";

const HOW = [["set", "Set to"], ["prepend", "Put in front"], ["append", "Put behind"], ["replace", "Replace"], ["add_tag", "Add a tag"], ["remove_tag", "Remove a tag"]];

function entry(row) {
  const name = row.file.slice(row.file.lastIndexOf("/") + 1);
  const pick = el("label.check", {}, el("input", { type: "checkbox", checked: isChosen(row.file), "aria-label": `Choose ${name}`, onchange: () => flip(row) }), el("span.clip", { title: row.file }, name));
  const picture = el("img", { src: small(path(row), 128, row.changed), alt: "", decoding: "async" });
  return el("div.entry", { dataset: { file: row.file } }, el("div.stack.tight", {}, picture, pick, row.kept ? null : badge(row)), captionField(row));
}

/** The panel that changes many. */
function together(query, total) {
  const preview = el("div.stack.preview", { "aria-live": "polite" });
  const text = el("textarea", { rows: 2, "aria-label": "Text", oninput: stale }), other = el("input", { "aria-label": "Replace it by", placeholder: "nothing", oninput: stale });
  const whole = check("Whole words"), cased = check("Match case", true), first = check("In front of the others");
  const how = el("select", { "aria-label": "How", onchange: shape }, HOW.map(([value, words]) => el("option", { value }, words)));
  const scope = el("p.small.soft", { role: "status" });
  const apply = el("button.primary", { disabled: true, onclick: (event) => go(true, event.currentTarget) }, "Change them");
  const ask = el("button", { onclick: (event) => go(false, event.currentTarget) }, "Look at what changes");
  let stamp = "";

  function check(words, checked = false) { return el("label.check", {}, el("input", { type: "checkbox", checked, onchange: stale }), words); }
  const ticked = (label) => label.firstChild.checked;
  function stale() { apply.disabled = true; stamp = ""; preview.replaceChildren(); }
  function shape() {
    stale();
    const kind = how.value;
    other.hidden = whole.hidden = cased.hidden = kind !== "replace";
    first.hidden = kind !== "add_tag";
    text.placeholder = { set: "TOK cat", prepend: "TOK,", append: ", in oil", replace: "what is looked for", add_tag: "solo", remove_tag: "watermark" }[kind];
  }
  const which = () => (chosen.count ? targets() : { query: { ...query(), ...store.view } });
  const rewrite = () => ({ how: how.value, text: text.value, ...(how.value === "replace" ? { other: other.value, whole_words: ticked(whole), match_case: ticked(cased) } : {}), ...(how.value === "add_tag" ? { first: ticked(first) } : {}) });

  async function go(real, button) {
    const answer = await change("rewrite", { ...which(), rewrite: rewrite(), apply: real, stamp }, button);
    if (!answer) return;
    if (real) { preview.replaceChildren(el("div.note.good", {}, `${many(answer.done, "caption")} changed.`)); stamp = ""; apply.disabled = true; return; }
    stamp = answer.stamp;
    apply.disabled = !answer.changed;
    preview.replaceChildren(el("div.note", {}, `${many(answer.changed, "caption")} of ${answer.asked} would change.`, answer.long ? ` ${answer.long} of them would have more than ${store.about.limit} tokens.` : ""),
      ...answer.shown.slice(0, 50).map((one) => el("div.change.small", {}, el("div.clip.soft", {}, one.file), el("del", {}, one.before || "no caption"), el("ins", {}, one.after || "no caption"), el(`span.tokens${one.tokens > store.about.limit ? ".over" : ""}`, {}, many(one.tokens, "token")))),
      answer.changed > 50 ? el("p.small.soft", {}, `and ${answer.changed - 50} more`) : "");
  }

  const sources = el("select", { "aria-label": "Captions by" });
  function refresh() {
    scope.textContent = chosen.count ? `For the ${many(chosen.count, "chosen picture")}.` : `For all ${many(total(), "picture")} that are listed. Choose some to change only those.`;
    sources.replaceChildren(...Object.entries(store.about.sources).map(([by, count]) => el("option", { value: by }, `${by} (${count})`)));
    if (stamp && stamp !== store.about.stamp) stale();
  }
  shape();
  const close = on("chosen", () => { stale(); refresh(); });
  const wide = innerWidth > 900;
  const element = el("div.stack.aside", {},
    el("details.sheet", { open: wide }, el("summary", {}, "Many at once"), scope, el("div.row", {}, how), text, other, el("div.row", {}, whole, cased, first), el("div.row", {}, ask, apply), preview),
    el("details.sheet", { open: wide }, el("summary", {}, "Learn from captions by"), el("div.row.one-line", {}, sources,
      el("button", { onclick: (event) => change("choose", { ...which(), by: sources.value }, event.currentTarget) }, "Take these"))),
    captioning());
  return { element, refresh, close };
}

/** The view of the tab. */
export function captions() {
  const host = el("div", { role: "list", "aria-label": "Captions" }), empty = el("div.empty", { hidden: true }, el("p", {}, "No picture is like that."));
  const scroll = new Scroll(host, {
    height: (width) => (width < 560 ? 208 : 168), gap: 10,
    fetch: (from, count) => rows(store.query, from, count),
    draw: (row) => entry(row),
    mark: (element, row) => { element.setAttribute("role", "listitem"); const box = element.querySelector("input[type=checkbox]"); if (box) box.checked = isChosen(row.file); },
    ready: (total) => { empty.hidden = total > 0; panel.refresh(); },
  });
  const panel = together(() => store.query, () => scroll.total);
  return {
    show: (view) => view.replaceChildren(el("div.split.turned", {}, panel.element, el("div", {}, host, empty))),
    renew: (other) => scroll.renew(other), remark: () => scroll.remark(), close: () => { scroll.close(); panel.close(); },
    keys: { Escape: ["Choose none", () => choose([])] },
  };
}
