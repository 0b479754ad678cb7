// What the preflight says: what will happen, or why it cannot.
import { el, one } from "/static/core.js";

const mib = (value) => (value >= 1024 ? `${(value / 1024).toFixed(1)} GiB` : `${Math.round(value)} MiB`);

/** Show one of: missing | asking | wrong | fine. */
export function preflight({ state, base, words, rest = [], facts, memory }) {
  const box = one("#preflight");
  box.dataset.state = state;
  const head = (badge, kind) => el("header", {}, el("h2.grow", {}, "Preflight"), el(`span.badge${kind}`, {}, badge));
  if (state === "missing") box.replaceChildren(head("waits", ""), el("p.soft", {}, words));
  else if (state === "asking") { box.classList.add("stale"); box.querySelector("header")?.replaceWith(head("asking", ".warn")); if (!box.querySelector(".answer")) box.replaceChildren(head("asking", ".warn"), el("p.soft", {}, "Captions, buckets, steps and memory are being worked out, as `darkroom train --check` does.", base?.includes("/") ? " A base from the hub is downloaded first where it is not on this machine: that takes its time." : "")); }
  else if (state === "wrong") box.replaceChildren(head("cannot train", ".bad"), el("div.note.bad", {}, rest.length ? rest.join("\n") : words));
  else box.replaceChildren(head("would work", ".good"), el("div.stack.answer", {}, answer(facts, memory)));
  if (state !== "asking") box.classList.remove("stale");
}

function answer(facts, memory) {
  const cut = facts.captions.filter((row) => row.cut).length, prior = facts.prior;
  return [
    el("p", {}, el("b", {}, `${facts.steps} steps`), ` = ${facts.epochs} epochs of ${facts.pictures} pictures, batch ${facts.batch_size}${facts.accumulate > 1 ? ` × ${facts.accumulate} accumulated` : ""}.`,
      facts.held_out ? ` Held out: ${facts.held_out}.` : "", facts.masked ? ` With a mask: ${facts.masked}.` : "", facts.upscaled ? ` Enlarged: ${facts.upscaled}.` : "",
      facts.smaller_bucket ? ` Too small for the resolution, and in smaller buckets: ${facts.smaller_bucket}.` : ""),
    prior ? el("p", {}, `Beside each picture one of ${prior.wanted} of the class: “${prior.prompt}” (${prior.tokens} tokens), weight ${prior.weight}.`, prior.wanted > prior.pictures ? ` ${prior.wanted - prior.pictures} of them are drawn first.` : "") : null,
    facts.remarks.map((remark) => el("div.note.warn", {}, remark)),
    bar(facts.memory_mib, memory?.memory_mib, memory),
    el("details", { open: cut > 0 || facts.captions.length < 6 }, el("summary", {}, `Captions as the model sees them${cut ? `: ${cut} cut` : ""}`), captions(facts.captions)),
    el("details", {}, el("summary", {}, `${facts.buckets.length} ${facts.buckets.length === 1 ? "bucket" : "buckets"}`), buckets(facts.buckets)),
  ];
}

function captions(rows) {
  const groups = new Map();
  for (const row of rows) { const key = `${row.caption}\0${row.tokens}`; groups.set(key, [...(groups.get(key) || []), row]); }
  const shown = [...groups.values()];
  return el("div.scroll", {}, el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, "Pictures"), el("th", {}, "Caption"), el("th.num", {}, "Tokens"))),
    el("tbody", {}, shown.slice(0, 40).map((group) => el("tr", {}, el("td.nowrap", { title: group.map((row) => row.file).join("\n") }, group.length === 1 ? group[0].file : `${group.length} pictures`),
      el("td", {}, group[0].caption || el("i", {}, "empty")), el("td.num", {}, group[0].tokens, group[0].cut ? [" ", el("span.badge.bad", {}, "cut after 75")] : ""))))),
    shown.length > 40 ? el("p.small.soft", {}, `and ${shown.length - 40} more captions`) : "");
}

function buckets(rows) {
  return el("div.scroll", {}, el("table", {}, el("thead", {}, el("tr", {}, ["Size", "Pictures", "Batches", "Crop takes"].map((head, i) => el(i ? "th.num" : "th", {}, head)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, el("td.nowrap", {}, `${row.width} × ${row.height}`), el("td.num", {}, row.pictures), el("td.num", {}, batches(row.batches)), el("td.num", {}, `${(100 * row.cut_away).toFixed(1)} %`))))));
}

function batches(sizes) {
  const counts = new Map();
  for (const size of sizes) counts.set(size, (counts.get(size) || 0) + 1);
  return [...counts].map(([size, many]) => (many > 1 ? `${many} × ${size}` : size)).join(", ");
}

/** The memory forecast as a bar of its parts, against what the device has. */
function bar(found, there, device) {
  const parts = Object.entries(found).filter(([name, value]) => name !== "total" && value > 0), little = there && found.total < there / 5, whole = Math.max(little ? 0 : there || 0, found.total, parts.reduce((sum, [, value]) => sum + value, 0)), over = there && found.total > there;
  const row = el("div.memory", { role: "img", "aria-label": `Memory: ${mib(found.total)} forecast${there ? ` of ${mib(there)}` : ""}` });
  parts.forEach(([name, value], i) => { const part = el(`i.part${i % 7}`, { title: `${name} ${mib(value)}` }); part.style.width = `${(100 * value) / whole}%`; row.append(part); });
  return el("div.stack.tight", {}, el("div.row", {}, el("b.grow", {}, "Memory"), el(`span${over ? ".bad" : ""}`, {}, `about ${mib(found.total)}${there ? ` of ${mib(there)}` : ""}${over ? ": too much" : little ? `, ${(100 * found.total / there).toFixed(1)} % of it` : ""}`)), row,
    el("ul.legend", {}, parts.map(([name, value], i) => el("li", {}, el(`i.part${i % 7}`, { "aria-hidden": "true" }), `${name} ${mib(value)}`))),
    el("p.small.soft", {}, `What the libraries themselves take comes on top.${device ? ` ${device.title}${device.name === "cpu" ? ": main memory" : ""}.` : ""}`));
}
