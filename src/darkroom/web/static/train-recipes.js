// Recipes of one's own: keep the form as one, bring in settings of another program.
import { api, doing, el, one, tell } from "/static/core.js";

export function ownRecipes({ values, name, choose }) {
  const bringing = one("#bringing"), keeping = one("#keeping"), said = one("#bring-said");
  let from = "imported";
  one("#bring").addEventListener("click", () => { said.replaceChildren(); bringing.showModal(); });
  one("#keep").addEventListener("click", () => { one("#keep-name").value = name().split("/").pop().replace(/\.toml$/, ""); keeping.showModal(); one("#keep-name").select(); });
  one("#bring-file").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (!file) return;
    if (file.size > 500_000) { tell(`${file.name}: settings are no larger than 500 kB.`, "bad"); return; }
    one("#bring-text").value = await file.text();
    from = file.name.replace(/\.[^.]*$/, "").replace(/[^A-Za-z0-9 _.-]/g, "-").replace(/^[^A-Za-z0-9]+/, "") || "imported";
  });
  one("#bring-go").addEventListener("click", (event) => doing(event.currentTarget, async () => {
    said.replaceChildren();
    try {
      const found = await api("/api/train/import", { method: "POST", body: { text: one("#bring-text").value, name: from.slice(0, 60) } });
      said.replaceChildren(...told(found));
      await choose(found.recipe);
    } catch (error) { said.replaceChildren(el("div.note.bad", { role: "alert" }, error.message)); }
  }));
  one("#keep-go").addEventListener("click", (event) => doing(event.currentTarget, async () => {
    const found = await api("/api/train/keep", { method: "POST", body: { values: values(), name: one("#keep-name").value.trim() } });
    keeping.close();
    await choose(found.recipe);
    tell(`Kept as ${found.recipe}.`);
  }));
}

function told(found) {
  const { mapped, implied, no_equal, unknown } = found.counts;
  return [el("div.note.good", {}, `${found.recipe}, from ${found.program}: ${mapped} settings mapped, ${implied} so anyway, ${no_equal} without an equal, ${unknown} unknown there too.`),
    found.outside.length ? el("div.note.warn", {}, `Left out, for it lies outside of the studio's folders: ${found.outside.join(", ")}`) : "",
    ...found.todo.map((line) => el("div.note.warn", {}, line)),
    found.lost.length ? el("details", {}, el("summary", {}, "Without an equal"), el("div.scroll", {}, el("table", {}, el("tbody", {}, found.lost.map((row) => el("tr", {}, el("td", {}, el("code", {}, row.key)), el("td", {}, row.value), el("td", {}, row.why))))))) : ""];
}
