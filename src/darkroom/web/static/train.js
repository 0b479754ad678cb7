// Train: the form, its preflight, and the order; what goes on is in train-live.js.
import { all, api, doing, el, keys, one, tell } from "/static/core.js";
import { Form, at, put } from "/static/form.js";
import { preflight } from "/static/train-check.js";
import { ownRecipes } from "/static/train-recipes.js";
import { watchRuns } from "/static/train-live.js";

const FIRST = [["data.images", "Pictures"], ["data.subject", "Subject, trigger word first"], ["base", "Base model"], ["train.length", "Length"], ["method.rank", "Rank"], ["method.adapter.rank", "Rank"],
  ["optimizer.rate", "Learning rate"], ["data.resolution", "Resolution"], ["data.batch_size", "Batch"], ["train.seed", "Seed"]];
const DRAFT = "darkroom.train";
const asked = new URLSearchParams(location.search);
let facts, recipe, form, offered = { pictures: [], models: [] }, plan = null, checked = null, asking = null, timer;

const copy = (value) => JSON.parse(JSON.stringify(value));
const draft = () => { try { return JSON.parse(localStorage.getItem(DRAFT)) || {}; } catch { return {}; } };
const choices = (path, node) => (node.names === "model" ? offered.models : node.names === "place" ? offered.pictures : []);

async function choose(name, values) {
  recipe = await api(`/api/train/recipe?name=${encodeURIComponent(name)}`);
  const mine = values || copy(recipe.values);
  if (!values) for (const key of ["data.images", "data.subject"]) if (form && at(form.values, key) && !at(mine, key)) put(mine, key, at(form.values, key));
  one("#recipe").value = name;
  one("#about").textContent = [recipe.values.about, facts.recipes.find((each) => each.name === name)?.method].filter(Boolean).join(" · ");
  draw(mine);
  changed();
}

function draw(values) {
  const open = new Set(all("#rest details[open]").map((part) => part.dataset.path)), focused = document.activeElement?.closest?.(".field")?.dataset.path;
  form = new Form(facts.schema, { values, base: recipe.values, notes: recipe.notes, skip: [...FIRST.map(([key]) => key), "about"], choices, onchange: (path, whole) => { if (whole) draw(form.values); changed(); } });
  one("#first").replaceChildren(...FIRST.map(([key, label]) => form.field(key, label)).filter(Boolean));
  const plain = [], tables = [];
  for (const [key, node] of Object.entries(facts.schema.properties)) {
    if (form.skip.has(key)) continue;
    if (node.$ref || node.oneOf) tables.push(form.section(key, key, node, open.has(key)));
    else plain.push(form.one(key, node));
  }
  one("#rest").replaceChildren(el("div.fields", {}, plain), ...tables);
  for (const part of all("#rest details")) part.open = open.has(part.dataset.path);
  if (focused) one(`.field[data-path="${CSS.escape(focused)}"] select`)?.focus();
  filter();
}

/** Fields that hold what is looked for; parts that hold none are not shown. */
function filter() {
  const words = one("#search").value.toLowerCase().split(/\s+/).filter(Boolean), only = one("#only").checked;
  let found = 0;
  for (const field of all("#rest .field")) {
    const text = `${field.dataset.path} ${field.textContent}`.toLowerCase();
    field.hidden = !(words.every((word) => text.includes(word)) && (!only || field.classList.contains("changed")));
    found += !field.hidden;
  }
  for (const part of all("#rest details").reverse()) {
    part.hidden = (words.length > 0 || only) && !part.querySelector(".field:not([hidden])");
    if (words.length || only) part.open = !part.hidden;
  }
  one("#none").hidden = found > 0;
}

function count() {
  for (const part of all("#rest details")) {
    const many = part.querySelectorAll(".field.changed").length;
    part.querySelector(".count").textContent = many ? `${many} changed` : "";
  }
  if (one("#only").checked) filter();
}

/** Something else is asked for: what was known of it holds no longer. */
function changed() {
  localStorage.setItem(DRAFT, JSON.stringify({ recipe: recipe.name, values: form.values }));
  plan = null;
  asking?.abort();
  clearTimeout(timer);
  timer = setTimeout(look, 300);
  count();
  ready();
}

async function look() {
  const mine = asking = new AbortController(), body = { recipe: recipe.name, values: form.values };
  try {
    plan = await api("/api/train/plan", { method: "POST", body, signal: mine.signal });
    one("#command").textContent = plan.command; one("#toml").textContent = plan.toml || "# nothing";
    form.wrong("");
    const missing = !at(form.values, "data.images") ? "Choose the folder of your pictures." : !at(form.values, "data.subject") ? "Say what they show, trigger word first." : "";
    if (missing) { preflight({ state: "missing", words: missing }); ready(); return; }
    if (checked?.stamp === plan.stamp) { show(); return; }
    preflight({ state: "asking", base: form.values.base });
    ready();
    await new Promise((resolve) => { setTimeout(resolve, 700); });
    if (mine.signal.aborted) return;
    checked = await api("/api/train/check", { method: "POST", body, signal: mine.signal });
    show();
  } catch (error) {
    if (error.name === "AbortError" || mine.signal.aborted) return;
    const rest = form.wrong(error.message);
    one("#command").textContent = one("#toml").textContent = "";
    preflight({ state: "wrong", words: error.message.replaceAll("the form: ", ""), rest });
    filter();
  } finally {
    if (asking === mine) ready();
  }
}

function show() { preflight({ state: "fine", facts: checked.preflight, memory: facts.devices.find((device) => device.name === one("#device").value) }); ready(); }

function ready() {
  const fine = plan && checked?.stamp === plan.stamp;
  one("#train").disabled = !fine;
  one("#why").textContent = fine ? "The preflight went well. It goes on when this page is closed." : "The button works once the preflight of exactly these values went well.";
  if (document.activeElement !== one("#name")) one("#name").placeholder = usualName();
}

const usualName = () => `${recipe.name.split("/").pop().replace(/\.toml$/, "")}-${(at(form.values, "data.subject") || "").trim().split(/\s+/)[0].replace(/[^\p{L}\p{N}]/gu, "-") || "run"}`;

async function train() {
  const body = { recipe: recipe.name, values: form.values, name: one("#name").value.trim(), device: one("#device").value };
  const made = await api("/api/train/start", { method: "POST", body });
  tell(`${made.run} is in the queue.`);
  watch.open(made.run);
  tab("watch");
}

function tab(name, remember = true) {
  for (const each of ["new", "watch"]) {
    one(`#${each}`).hidden = each !== name;
    one(`#tab-${each}`).setAttribute("aria-selected", String(each === name));
    one(`#tab-${each}`).tabIndex = each === name ? 0 : -1;
  }
  watch.seen(name === "watch");
  if (remember) history.replaceState(null, "", name === "watch" && watch.name() ? `/train?run=${encodeURIComponent(watch.name())}` : "/train");
}

const copied = (id) => (event) => doing(event.currentTarget, async () => { await navigator.clipboard.writeText(one(id).textContent); tell("Copied."); });
ownRecipes({ values: () => form.values, name: () => recipe.name, choose: async (name) => { facts = await api("/api/train/form"); list(); await choose(name); } });
const watch = watchRuns({ again: (run) => { choose(`${run}/recipe.toml`); tab("new"); } });

const list = () => one("#recipe").replaceChildren(...facts.recipes.map((each) => el("option", { value: each.name }, each.name)));

async function open() {
  facts = await api("/api/train/form");
  list();
  one("#device").replaceChildren(...facts.devices.map((device) => el("option", { value: device.name }, `${device.title} (${device.name})`)));
  one("#device-field").hidden = facts.devices.length < 2;
  const before = draft(), wanted = asked.get("recipe") || before.recipe || "demo";
  const known = facts.recipes.some((each) => each.name === wanted) || asked.has("recipe") || wanted.endsWith("/recipe.toml");
  if (wanted.endsWith(".toml") && !facts.recipes.some((each) => each.name === wanted)) one("#recipe").append(el("option", { value: wanted }, wanted));
  await choose(known ? wanted : "demo", known && !asked.has("recipe") ? before.values : undefined).catch(() => choose("demo"));
  for (const [name, key] of [["images", "data.images"], ["subject", "data.subject"], ["base", "base"]]) if (asked.has(name)) put(form.values, key, asked.get(name));
  if (asked.has("images")) { draw(form.values); changed(); }
  api("/api/train/choices").then((found) => {
    offered = { pictures: found.pictures.map(([name, many]) => [name, `${many} pictures`]), models: [["pocket", "the embedded model"], ...found.models.map((name) => [name, ""])] };
    if (!document.activeElement?.closest?.("#new .field")) draw(form.values);
  }).catch(() => {});
}

one("#recipe").addEventListener("change", () => choose(one("#recipe").value).catch((error) => tell(error.message, "bad")));
one("#search").addEventListener("input", filter);
one("#only").addEventListener("change", filter);
one("#device").addEventListener("change", () => { if (checked?.stamp === plan?.stamp) show(); });
one("#back").addEventListener("click", () => { const kept = form.values; draw(copy(recipe.values)); for (const key of ["data.images", "data.subject"]) put(form.values, key, at(kept, key)); draw(form.values); changed(); });
one("#train").addEventListener("click", (event) => doing(event.currentTarget, train).then(ready));
one("#copy-command").addEventListener("click", copied("#command"));
one("#copy-toml").addEventListener("click", copied("#toml"));
for (const name of ["new", "watch"]) one(`#tab-${name}`).addEventListener("click", () => tab(name));
one("[role=tablist]").addEventListener("keydown", (event) => { if (["ArrowLeft", "ArrowRight"].includes(event.key)) { const other = one("#new").hidden ? "new" : "watch"; tab(other); one(`#tab-${other}`).focus(); } });
keys({ "/": ["Find a setting", () => { tab("new"); one("#search").focus(); }], n: ["New training", () => tab("new")], w: ["Trainings", () => tab("watch")] });

await doing(null, open);
const going = await watch.begin({ run: asked.get("run"), job: asked.get("job") });
if (going && !asked.has("recipe") && !asked.has("images")) tab("watch", Boolean(asked.get("run")));
