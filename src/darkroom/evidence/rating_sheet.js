"use strict";
const { sheet, pairs } = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const store = `darkroom-rating-${sheet.rater}-${sheet.seed}-${pairs[0].pair}-${pairs[0].seal}-${pairs.length}`;
let answers = [];
let since = 0;

function remembered() {
  try {
    const known = new Map(pairs.map((pair) => [pair.pair, pair.seal]));
    const kept = JSON.parse(localStorage.getItem(store) || "[]");
    return kept.filter((one, place) => pairs[place] && one.pair === pairs[place].pair && known.get(one.pair) === one.seal);
  } catch (error) {
    return [];
  }
}

function remember() {
  try {
    localStorage.setItem(store, JSON.stringify(answers));
    return true;
  } catch (error) {
    return false;
  }
}

function paint(side, picture) {
  const image = at(side);
  image.src = picture.uri;
  image.width = picture.width;
  image.height = picture.height;
  image.classList.toggle("tiny", picture.tiny);
}

function show() {
  const pair = pairs[answers.length];
  for (const id of ["pair", "shots", "keys"]) at(id).hidden = !pair;
  at("end").hidden = Boolean(pair);
  at("save").hidden = !pair || !answers.length;
  at("undo").disabled = !answers.length;
  at("progress").value = answers.length;
  at("count").textContent = pair ? `${answers.length + 1} of ${pairs.length}` : `${pairs.length} of ${pairs.length}`;
  if (!pair) {
    at("save-all").focus();
    return;
  }
  at("prompt").textContent = pair.prompt || "(no words)";
  paint("left", pair.left);
  paint("right", pair.right);
  since = performance.now();
  const next = pairs[answers.length + 1];
  if (next) for (const side of ["left", "right"]) new Image().src = next[side].uri;
}

function choose(answer) {
  const pair = pairs[answers.length];
  if (!pair) return;
  const seconds = Math.min(1e6, Math.round((performance.now() - since) / 10) / 100);
  answers.push({ pair: pair.pair, seal: pair.seal, answer, seconds });
  at("note").textContent = remember() ? "" : "This browser keeps nothing between visits: save before you close the page.";
  show();
}

function undo() {
  if (!answers.length) return;
  answers.pop();
  remember();
  at("note").textContent = "Taken back: answer this pair again.";
  show();
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify({ ...sheet, answers }, null, 1)], { type: "application/json" }));
  link.download = `${sheet.rater}-answers.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  at("note").textContent = `Saved as ${link.download}: ${answers.length} of ${pairs.length} answers.`;
}

at("command").textContent = `darkroom rate FOLDER --rater ${sheet.rater} --answers ${sheet.rater}-answers.json`;
for (const side of ["left", "right"]) at(`shot-${side}`).addEventListener("click", () => choose(side));
for (const answer of ["left", "tie", "right"]) at(`choose-${answer}`).addEventListener("click", () => choose(answer));
at("undo").addEventListener("click", undo);
at("save").addEventListener("click", save);
at("save-all").addEventListener("click", save);
addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const action = { ArrowLeft: () => choose("left"), ArrowRight: () => choose("right"), ArrowDown: () => choose("tie"), u: undo, U: undo }[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});
answers = remembered();
if (answers.length) at("note").textContent = `Going on after ${answers.length} answers that this browser kept.`;
show();
