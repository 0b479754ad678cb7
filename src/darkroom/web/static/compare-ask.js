// How a form of a trial ends: drawn and compared, or only planned; what is wrong with it stands above the buttons.
import { api, doing, el } from "/static/core.js";

/** The last rows of the form in a dialog. `read()` gives what is sent; `asked({ order, name, plan })` comes once the trial is in the queue. */
export function ending(dialog, address, read, asked) {
  const wrong = el("div.note.bad", { role: "alert", hidden: true });
  const put = (plan) => (event) => doing(event.currentTarget, async () => {
    event.preventDefault();
    try {
      const found = await api(address, { method: "POST", body: { ...read(), plan } });
      dialog.close();
      asked({ ...found, plan });
    } catch (error) { wrong.textContent = error.message; wrong.hidden = false; wrong.scrollIntoView({ block: "nearest" }); }
  });
  return [wrong, el("div.row", {}, el("button.primary", { type: "submit", onclick: put(false) }, "Draw and compare"),
    el("button", { type: "button", onclick: put(true), title: "Draws a small pilot and says how many prompts and seeds it takes to see a difference" }, "Only plan"),
    el("button.ghost", { type: "button", onclick: () => dialog.close() }, "Close"))];
}
