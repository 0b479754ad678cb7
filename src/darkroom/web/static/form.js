// A form from a JSON schema of pydantic's: nested tables, tables of several kinds, lists, choices, bounds, what may be nothing, durations.
// It knows nothing of any particular key: what a recipe learns to say appears here by itself.
import { el } from "/static/core.js";

const DURATION = "^\\d+ (step|epoch)s?$";
const copy = (value) => (value === undefined ? undefined : JSON.parse(JSON.stringify(value)));
export const same = (a, b) => JSON.stringify(ordered(a)) === JSON.stringify(ordered(b));
const ordered = (value) => (Array.isArray(value) ? value.map(ordered) : value && typeof value === "object" ? Object.fromEntries(Object.keys(value).sort().map((key) => [key, ordered(value[key])])) : value);
const spoken = (key) => { const words = key.replaceAll("_", " "); return words[0].toUpperCase() + words.slice(1); };
let numbered = 0;

/** The value at "a.b.c", and the same set. */
export const at = (tree, path) => path.split(".").reduce((place, key) => place?.[key], tree);
export function put(tree, path, value) {
  const keys = path.split("."), last = keys.pop();
  let place = tree;
  for (const key of keys) place = place[key] ??= {};
  place[last] = value;
}

/** What a value is by default, all of its tables filled in. */
export function usual(schema, node) {
  const real = resolve(schema, node);
  if (node.default !== undefined) return copy(node.default);
  if (real.default !== undefined) return copy(real.default);
  if (real.oneOf) return usual(schema, real.oneOf[0]);
  if (real.properties) return Object.fromEntries(Object.entries(real.properties).map(([key, inner]) => [key, usual(schema, inner)]));
  return null;
}

export function resolve(schema, node) {
  return node.$ref ? { ...schema.$defs[node.$ref.split("/").pop()], ...without(node, "$ref") } : node;
}
const without = (object, key) => Object.fromEntries(Object.entries(object).filter(([name]) => name !== key));

/** Of anyOf: what it is where it is something, and whether it may be nothing. */
function shape(schema, node) {
  const real = resolve(schema, node);
  if (!real.anyOf) return { real, nullable: false };
  const some = real.anyOf.map((part) => resolve(schema, part)).filter((part) => part.type !== "null");
  const numbers = some.every((part) => ["integer", "number"].includes(part.type));
  const inner = some.length === 1 ? some[0] : numbers ? { type: "number", minimum: real.ge, exclusiveMinimum: real.gt, maximum: real.le, exclusiveMaximum: real.lt } : { type: "string" };
  return { real: { ...without(real, "anyOf"), ...inner, description: real.description || inner.description, title: real.title }, nullable: some.length < real.anyOf.length };
}

/** A form of `schema` over `values`. `base` is what a field can be put back to; `notes` what is said of base's values; `onchange()` after each change. */
export class Form {
  constructor(schema, { values, base, notes = {}, skip = [], choices = () => [], onchange = () => {} }) {
    Object.assign(this, { schema, values, base, notes, skip: new Set(skip), choices, onchange, fields: new Map() });
  }

  /** One field anywhere: `field("data.batch_size")`. */
  field(path, label) {
    const node = this.node(path);
    return node ? this.one(path, node, label) : null;
  }

  /** The schema at a path, through the kinds that are chosen; null where there is none. */
  node(path) {
    let node = this.schema, tree = this.values;
    for (const key of path.split(".")) {
      let { real } = shape(this.schema, node);
      if (real.oneOf) real = this.kind(real, tree) || {};
      if (!real.properties?.[key]) return null;
      node = real.properties[key]; tree = tree?.[key];
    }
    return node;
  }

  kind(real, value) {
    const kinds = real.oneOf.map((part) => resolve(this.schema, part));
    return kinds.find((kind) => kind.properties.kind?.const === value?.kind) || kinds[0];
  }

  /** All fields of the table at `path`, tables in it as sections below. */
  table(path) {
    const node = path ? this.node(path) : this.schema;
    let { real } = shape(this.schema, node);
    const kinds = real.oneOf ? this.kinds(path, real) : null;
    if (real.oneOf) real = this.kind(real, at(this.values, path));
    const plain = [], tables = [];
    for (const [key, inner] of Object.entries(real.properties || {})) {
      const whole = path ? `${path}.${key}` : key;
      if (key === "kind" || this.skip.has(whole)) continue;
      const { real: below, nullable } = shape(this.schema, inner);
      if (below.oneOf || below.properties) tables.push([whole, key, inner, below, nullable]);
      else plain.push(this.one(whole, inner));
    }
    return el("div.stack", {}, kinds, real.description && kinds ? el("p.small.soft", {}, real.description) : null, plain.length ? el("div.fields", {}, plain) : null,
      tables.map(([whole, key, inner, below, nullable]) => (nullable ? this.optional(whole, key, inner, below) : this.section(whole, key, inner))));
  }

  section(path, key, node, open = false) {
    const { real } = shape(this.schema, node);
    return el("details.part", { open, dataset: { path } }, el("summary", {}, el("b", {}, spoken(key)), el("span.count", {})), real.description ? el("p.small.soft", {}, real.description) : null, this.table(path));
  }

  /** A table that may be nothing: a tick that makes it. */
  optional(path, key, node, real) {
    const holder = el("div.stack.optional", { dataset: { path } });
    const box = el("input", { type: "checkbox", id: `f${++numbered}`, checked: at(this.values, path) !== null });
    const draw = () => holder.replaceChildren(el("label.check", { for: box.id }, box, el("span", {}, el("b", {}, spoken(key)), el("span.small.soft", {}, ` ${node.description || real.description || ""}`))), at(this.values, path) === null ? "" : this.table(path));
    box.addEventListener("change", () => { put(this.values, path, box.checked ? usual(this.schema, { ...real, default: undefined }) : null); draw(); this.changed(path); });
    draw();
    return holder;
  }

  /** The choice of a table's kind. Another kind begins with its own defaults, or with the recipe's where it is the recipe's. */
  kinds(path, real) {
    const kinds = real.oneOf.map((part) => resolve(this.schema, part));
    const select = el("select", { id: `f${++numbered}` }, kinds.map((kind) => el("option", { value: kind.properties.kind.const, selected: kind.properties.kind.const === at(this.values, path)?.kind }, kind.properties.kind.const.replaceAll("_", " "))));
    select.addEventListener("change", () => {
      const own = at(this.base, path), chosen = kinds.find((kind) => kind.properties.kind.const === select.value);
      const fresh = own?.kind === select.value ? copy(own) : Object.fromEntries(Object.entries(chosen.properties).map(([key, inner]) => [key, usual(this.schema, inner)]));
      put(this.values, path, { ...fresh, kind: select.value });
      this.changed(path, true);
    });
    return this.wrapped(`${path}.kind`, select, { description: "" }, "Kind", { get: () => select.value, set: () => {} });
  }

  one(path, node, label) {
    const { real, nullable } = shape(this.schema, node);
    const control = this.control(path, real, nullable, node);
    return this.wrapped(path, control.element, { ...real, ...node, ...(node.description ? {} : { description: real.description }) }, label || spoken(path.split(".").pop()), control);
  }

  /** Label, control, what it means, what the recipe says and where that comes from, and what is wrong with it. */
  wrapped(path, element, node, label, control) {
    const id = `f${++numbered}`, input = element.matches("input, select, textarea") ? element : element.querySelector("input, select, textarea");
    input.id = id;
    const help = el("span.help", { id: `${id}h` }, node.description || ""), wrong = el("span.wrong", { id: `${id}w`, role: "alert", hidden: true });
    const from = el("span.from", { id: `${id}f` }), reset = el("button.ghost.reset", { type: "button", hidden: true, title: "Put it back to the recipe's", "aria-label": `Put ${label} back` }, "↺");
    input.setAttribute("aria-describedby", `${id}h ${id}f ${id}w`);
    const box = el("div.field", { dataset: { path } }, el("div.row.name", {}, el("label", { for: id }, label), el("span.mark", { hidden: true, title: "Other than the recipe" }, "changed"), reset), element, help, from, wrong);
    const field = { path, box, input, wrong, control, node, from, reset, mark: box.querySelector(".mark") };
    reset.addEventListener("click", () => { put(this.values, path, copy(at(this.base, path))); control.set(at(this.values, path)); this.changed(path); input.focus(); });
    if (!path.endsWith(".kind")) { if (!this.fields.has(path)) this.fields.set(path, []); this.fields.get(path).push(field); this.show(field); }
    return box;
  }

  control(path, real, nullable, node) {
    const value = at(this.values, path), take = (next) => { put(this.values, path, next); this.changed(path); };
    if (real.type === "boolean") {
      const input = el("input", { type: "checkbox", checked: Boolean(value) });
      input.addEventListener("change", () => take(input.checked));
      return { element: el("span.tick", {}, input, el("span.soft", {}, "on")), set: (next) => { input.checked = Boolean(next); } };
    }
    if (real.enum) {
      const input = el("select", {}, nullable ? el("option", { value: "" }, "none") : null, real.enum.map((one) => el("option", { value: one, selected: one === value }, String(one).replaceAll("_", " "))));
      input.addEventListener("change", () => take(input.value === "" && nullable ? null : input.value));
      return { element: input, set: (next) => { input.value = next ?? ""; } };
    }
    if (real.pattern === DURATION) return duration(value, take);
    if (real.type === "integer" || real.type === "number") return number(real, nullable, value, take);
    if (real.type === "array") return real.prefixItems ? several(real, value, take) : lines(real, value, take);
    if (real.type === "object") return pairs(real, value, take);
    return this.text(path, node, value, nullable, take);
  }

  text(path, node, value, nullable, take) {
    const offered = this.choices(path, node), id = `f${++numbered}`;
    const input = el("input", { type: "text", value: value ?? "", list: offered.length ? id : null, spellcheck: false, autocomplete: "off" });
    input.addEventListener("input", () => take(nullable && input.value === "" ? null : input.value));
    return { element: offered.length ? el("span.listed", {}, input, el("datalist", { id }, offered.map(([name, words]) => el("option", { value: name }, words)))) : input, set: (next) => { if (input.value !== (next ?? "")) input.value = next ?? ""; } };
  }

  /** After a change: marks, twins of the same field elsewhere, and whoever listens. `whole`: other fields are there now. */
  changed(path, whole = false) {
    for (const field of this.fields.get(path) || []) {
      if (document.activeElement !== field.input) field.control.set(at(this.values, path));
      this.show(field);
    }
    this.onchange(path, whole);
  }

  show(field) {
    const base = at(this.base, field.path), now = at(this.values, field.path), fresh = base === undefined;
    const changed = !fresh && !same(base, now), note = this.notes[field.path], usualValue = field.node.default;
    field.mark.hidden = field.reset.hidden = !changed;
    field.box.classList.toggle("changed", changed);
    const said = fresh ? usualValue : base, where = !fresh && note ? note : fresh || same(base, usualValue) ? field.node.source || "Darkroom's own" : "the recipe's own";
    const text = said === "" || said === null || same(said, {}) || same(said, []) ? "nothing" : typeof said === "object" ? JSON.stringify(said) : typeof said === "boolean" ? (said ? "on" : "off") : String(said);
    field.from.replaceChildren(changed ? "Recipe: " : "Default: ", el("b", {}, text), text === "nothing" && !note ? "" : ` · ${where}`);
  }

  /** Show mistakes at their fields: the words of an error, a line each. Returns the lines that belong to no field. */
  wrong(message) {
    for (const field of [...this.fields.values()].flat()) { field.wrong.hidden = true; field.wrong.textContent = ""; field.input.removeAttribute("aria-invalid"); }
    const rest = [];
    for (const line of (message || "").split("\n").filter(Boolean)) {
      const words = line.replace(/^the form: /, ""), keys = words.match(/\b[a-z_0-9]+(\.[a-z_0-9]+)*\b/g) || [];
      const key = keys.find((word) => this.fields.has(word) && (word.includes(".") || words.startsWith(word)));
      if (!key) { rest.push(words); continue; }
      for (const field of this.fields.get(key)) { field.wrong.hidden = false; field.wrong.textContent = words.startsWith(`${key} = `) ? words.replace(/^.*?: /, "") : words; field.input.setAttribute("aria-invalid", "true"); field.box.closest("details")?.setAttribute("open", ""); }
    }
    return rest;
  }
}

function number(real, nullable, value, take) {
  const least = real.minimum ?? real.exclusiveMinimum ?? real.ge, most = real.maximum ?? real.exclusiveMaximum ?? real.le;
  const input = el("input", { type: "text", inputmode: real.type === "integer" ? "numeric" : "decimal", value: value ?? "", placeholder: nullable ? "none" : "", autocomplete: "off" });
  const bounds = [least !== undefined ? `${real.exclusiveMinimum !== undefined ? ">" : "≥"} ${least}` : "", most !== undefined ? `${real.exclusiveMaximum !== undefined ? "<" : "≤"} ${most}` : ""].filter(Boolean).join(", ");
  input.title = [real.type === "integer" ? "a whole number" : "a number", bounds].filter(Boolean).join(", ");
  input.addEventListener("input", () => { const text = input.value.trim(), read = Number(text); take(text === "" && nullable ? null : text === "" || Number.isNaN(read) ? text : read); });
  input.addEventListener("keydown", (event) => {
    if (real.type !== "integer" || !["ArrowUp", "ArrowDown"].includes(event.key) || !/^-?\d+$/.test(input.value)) return;
    event.preventDefault();
    input.value = Math.min(most ?? Infinity, Math.max(least ?? -Infinity, Number(input.value) + (event.key === "ArrowUp" ? 1 : -1)));
    take(Number(input.value));
  });
  return { element: input, set: (next) => { input.value = next ?? ""; } };
}

function duration(value, take) {
  const input = el("input", { type: "text", inputmode: "numeric", autocomplete: "off" }), unit = el("select", { "aria-label": "unit" }, el("option", { value: "steps" }, "steps"), el("option", { value: "epochs" }, "epochs"));
  const set = (next) => { const [amount, word = "steps"] = String(next ?? "").split(" "); input.value = amount; unit.value = word.startsWith("epoch") ? "epochs" : "steps"; };
  const tell = () => take(`${input.value.trim()} ${unit.value}`);
  input.addEventListener("input", tell); unit.addEventListener("change", tell);
  set(value);
  return { element: el("span.pair", {}, input, unit), set };
}

function several(real, value, take) {
  const inputs = real.prefixItems.map((_, i) => el("input", { type: "text", inputmode: "decimal", "aria-label": `number ${i + 1}`, value: value?.[i] ?? "", autocomplete: "off" }));
  for (const input of inputs) input.addEventListener("input", () => take(inputs.map((one) => (one.value.trim() === "" || Number.isNaN(Number(one.value)) ? one.value : Number(one.value)))));
  return { element: el("span.pair", {}, inputs), set: (next) => inputs.forEach((input, i) => { input.value = next?.[i] ?? ""; }) };
}

function lines(real, value, take) {
  const numbers = ["integer", "number"].includes(real.items?.type), input = el("textarea", { rows: 2, placeholder: "one a line", value: (value || []).join("\n") });
  input.addEventListener("input", () => take(input.value.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => (numbers && !Number.isNaN(Number(line)) ? Number(line) : line))));
  return { element: input, set: (next) => { input.value = (next || []).join("\n"); } };
}

function pairs(real, value, take) {
  const numbers = ["integer", "number"].includes(real.additionalProperties?.type), input = el("textarea", { rows: 2, placeholder: "name = value, one a line" });
  const set = (next) => { input.value = Object.entries(next || {}).map(([key, one]) => `${key} = ${one}`).join("\n"); };
  input.addEventListener("input", () => take(Object.fromEntries(input.value.split("\n").filter((line) => line.trim()).map((line) => { const [key, ...rest] = line.split("="); const one = rest.join("=").trim(); return [key.trim().replace(/^"|"$/g, ""), numbers && one !== "" && !Number.isNaN(Number(one)) ? Number(one) : one]; }))));
  set(value);
  return { element: input, set };
}
