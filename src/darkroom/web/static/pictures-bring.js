// The datasets of the workspace, and how pictures come into one: dropped, chosen, by a table of addresses, or the demo's cats.
import { api, doing, el, keys, one, send, small, takeFiles, tell } from "/static/core.js";
import { watch } from "/static/pictures-ask.js";
import { many, on } from "/static/pictures-store.js";

const PICTURES = /\.(jpe?g|png|webp|gif|bmp|tiff?|avif|heic)$/i, TABLES = /\.(csv|tsv|json|jsonl|parquet)$/i, TEXTS = /\.(txt|caption)$/i;
const known = [];
let opened = () => {}, given = [];

const plain = (name) => name.replace(/\.[^.]*$/, "").replace(/[^\p{L}\p{N} ._-]+/gu, "-").replace(/^[^\p{L}\p{N}]+|[. ]+$/gu, "").slice(0, 60);

/** What was given, sorted: { pictures, tables, captions, others }. */
function sorted(files) {
  const pictures = files.filter(({ name }) => PICTURES.test(name));
  const tables = files.filter(({ name }) => TABLES.test(name) && !/(^|\/)metadata\.jsonl$/i.test(name) || (!pictures.length && /\.txt$/i.test(name)));
  const captions = files.filter(({ name }) => pictures.length && (TEXTS.test(name) || /(^|\/)metadata\.jsonl$/i.test(name)));
  return { pictures, tables, captions, others: files.filter((file) => ![...pictures, ...tables, ...captions].includes(file)) };
}

function suggested({ pictures, tables }) {
  const first = (pictures[0] || tables[0])?.name || "pictures";
  return plain(first.includes("/") ? first.split("/")[0] : tables.length && !pictures.length ? first : "pictures") || "pictures";
}

function bringer() {
  const drop = el("div.empty.drop", { tabindex: "0", role: "button", "aria-label": "Choose pictures, or drop a folder, pictures or a table of addresses here" });
  const files = el("button", { onclick: (event) => { event.stopPropagation(); chooseFiles(); } }, "Choose files"), folder = el("button", { onclick: (event) => { event.stopPropagation(); chooseFolder(); } }, "Choose a folder");
  drop.append(el("p", {}, el("b", {}, "Drop a folder, pictures, or a table of addresses here")), el("p.small", {}, "A table is a .csv, .tsv, .json, .jsonl, .parquet, or a .txt with one address a line. A .txt beside a picture is its caption."), el("div.row", {}, files, folder));
  const after = el("div.stack", {});
  const taken = (list) => { given = list; plan(after); };
  const chooseFiles = takeFiles(drop, { many: true }, taken), holder = el("div", { hidden: true }), chooseFolder = takeFiles(holder, { folder: true }, taken);
  drop.addEventListener("click", (event) => { if (!event.target.closest("button, input")) chooseFiles(); });
  drop.addEventListener("keydown", (event) => { if ((event.key === "Enter" || event.key === " ") && event.target === drop) { event.preventDefault(); chooseFiles(); } });
  return el("section.sheet", { "aria-labelledby": "bring-head" }, el("h2", { id: "bring-head" }, "Bring pictures in"), drop, holder, after);
}

/** What will be brought, under which name, and the button that does it. */
function plan(after) {
  const found = sorted(given);
  if (!found.pictures.length && !found.tables.length) { after.replaceChildren(el("div.note.bad", {}, `${many(given.length, "file")}: no picture and no table of addresses among them.`)); return; }
  const name = el("input", { id: "bring-name", value: suggested(found), "aria-describedby": "bring-there" }), there = el("span.help", { id: "bring-there" });
  const hint = () => { there.textContent = known.some((one) => one.folder === `datasets/${name.value.trim()}`) ? "That dataset is there: these are added to it." : `Goes to datasets/${name.value.trim()} in the workspace.`; };
  name.addEventListener("input", hint);
  hint();
  const smallest = el("input", { id: "bring-smallest", type: "number", min: "1", placeholder: "512" });
  const columns = Object.fromEntries([["column", "the one that obviously does"], ["prefix", "https://image.tmdb.org/t/p/w600"], ["suffix", ""], ["caption_column", "text or caption"], ["licence_column", "licence"]].map(([key, placeholder]) => [key, el("input", { placeholder })]));
  const words = { column: "Column of addresses", prefix: "Put before each", suffix: "Put after each", caption_column: "Column of captions", licence_column: "Column of licences" };
  const progress = el("div.stack", { role: "status" });
  const go = el("button.primary", { id: "bring-go", onclick: () => doing(go, () => bring(name.value.trim(), smallest.value, columns, progress)) }, "Bring them in");
  const counts = [found.pictures.length && many(found.pictures.length, "picture"), found.captions.length && many(found.captions.length, "caption file"), found.tables.length && many(found.tables.length, "table")].filter(Boolean).join(", ");
  after.replaceChildren(el("p", {}, el("b", {}, counts), found.others.length ? el("span.soft", {}, `; ${many(found.others.length, "other file")} left out: ${found.others.slice(0, 3).map((one) => one.name).join(", ")}${found.others.length > 3 ? " …" : ""}`) : ""),
    el("div.fields", {}, el("div.field", {}, el("label", { for: "bring-name" }, "Name"), name, there), el("div.field", {}, el("label", { for: "bring-smallest" }, "Smallest side"), smallest, el("span.help", {}, "Pixels. Screening rejects what is smaller."))),
    found.tables.length ? el("details", {}, el("summary", {}, "Columns of the table"), el("div.fields", {}, Object.entries(columns).map(([key, input]) => el("label.field", {}, el("span.label", {}, words[key]), input)))) : "",
    el("div.row", {}, go), progress);
  name.select();
  name.focus();
}

async function bring(name, smallest, columns, progress) {
  const found = sorted(given), wanted = [...found.pictures, ...found.tables, ...found.captions];
  const fill = el("i"), said = el("span", {});
  progress.replaceChildren(said, el("div.meter", {}, fill));
  const sent = await send(wanted, (done, total) => { fill.style.width = `${(100 * done) / total}%`; said.textContent = `Sent ${done} of ${total}.`; });
  const refused = sent.refused.length ? el("details.note.warn", { open: true }, el("summary", {}, `${many(sent.refused.length, "file")} refused`), el("ul", {}, sent.refused.slice(0, 200).map((one) => el("li", {}, one.why.startsWith(one.name) ? one.why : `${one.name}: ${one.why}`)))) : "";
  if (!sent.taken.length) { progress.replaceChildren(el("div.note.bad", {}, "None of the files was taken."), refused); return; }
  const body = { batch: sent.batch, name, ...(smallest ? { smallest: Number(smallest) } : {}), ...Object.fromEntries(Object.entries(columns).map(([key, input]) => [key, input.value.trim()])) };
  let answer;
  try { answer = await api("/api/pictures/bring", { method: "POST", body }); } catch (error) { progress.replaceChildren(el("div.note.bad", { role: "alert" }, error.message), refused); await api(`/api/uploads/${sent.batch}`, { method: "DELETE" }); return; }
  given = [];
  progress.replaceChildren(el("p", {}, `${many(sent.taken.length, "file")} sent. Collecting and screening are jobs: they go on when this page is closed.`), refused);
  const jobs = await watch(answer.orders);
  if (jobs.every((job) => job.state === "done")) {
    const failed = jobs.flatMap((job) => Object.values(job.result?.failed || {})).reduce((sum, count) => sum + count, 0);
    if (failed) tell(`${many(failed, "row")} gave no picture. “What failed” lists each with its reason.`, "bad");
    if (refused) progress.append(el("div", {}, el("button.primary", { onclick: () => opened(answer.dataset) }, `Open ${name}`)));
    else opened(answer.dataset);
  }
}

function card(one) {
  const shown = one.first.slice(0, 4).map((name) => el("img", { src: small(name, 128), alt: "", loading: "lazy", onerror: (event) => event.target.remove() }));
  const told = one.fault ? el("div.small.bad", {}, one.fault) : el("div.small.soft", {}, one.plain ? `${one.more ? "more than " : ""}${many(one.pictures, "picture")}, not screened` : `${many(one.pictures, "picture")}, ${one.screened ? `${one.kept.toLocaleString("en")} kept` : "not screened"}, ${one.captioned ? `${one.captioned.toLocaleString("en")} with a caption` : "no captions"}${one.held_out ? `, ${one.held_out} held out` : ""}`);
  return el("a.tile.card", { href: `/pictures?dataset=${encodeURIComponent(one.folder)}`, onclick: (event) => { if (event.ctrlKey || event.metaKey || one.fault) return; event.preventDefault(); opened(one.folder); } },
    el("div.four", { "aria-hidden": "true" }, shown), el("div.under", {}, el("b.clip", {}, one.folder), told));
}

/** The page without a dataset. */
export async function home(host, open) {
  opened = open;
  api("/api/pictures/sweep", { method: "POST", body: {} }).catch(() => {});
  const cats = el("button", { id: "cats", onclick: () => doing(cats, async () => { const answer = await api("/api/pictures/cats", { method: "POST", body: {} }); const jobs = await watch(answer.orders); if (jobs.every((job) => job.state === "done")) opened(answer.dataset); }) }, "Try it with nine cats");
  host.replaceChildren(bringer(), el("div.row", {}, cats, el("span.small.soft", {}, "Drawings that come with Darkroom: enough to screen, caption, train and draw within minutes.")), el("div.stack", { id: "listed" }));
  await list();
}

/** What there is now; what is being brought in stays as it is. */
export async function list() {
  const { datasets } = await api("/api/pictures/datasets");
  known.splice(0, known.length, ...datasets);
  const made = datasets.filter((one) => !one.plain), plainOnes = datasets.filter((one) => one.plain);
  const group = (title, list, words) => (list.length ? el("section.stack", {}, el("h2", {}, title), words ? el("p.small.soft", {}, words) : null, el("div.tiles.cards", {}, list.map(card))) : "");
  one("#listed")?.replaceChildren(group("Datasets", made), group("Folders of pictures", plainOnes, "As they lie in the workspace. Open one to screen and caption it where it is; nothing is moved."));
}

on("ended", (job) => { if (job.command === "collect") api("/api/pictures/sweep", { method: "POST", body: {} }).catch(() => {}); });
keys({ o: ["Choose files to bring in", () => one("#home:not([hidden]) .drop button")?.click()] });
