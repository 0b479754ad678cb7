// What a page does to a person who cannot see it, or sees little, or has no mouse: [[what, element, value]]. It needs nothing but the browser.
(() => {
  const visible = (node) => node.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && node.getClientRects().length > 0;
  const named = (node) => `${node.tagName.toLowerCase()}${node.id ? `#${node.id}` : ""}${[...node.classList].map((one) => `.${one}`).join("")}${node.textContent.trim() ? ` "${node.textContent.trim().slice(0, 40)}"` : ""}`;
  const top = () => [...document.querySelectorAll("dialog[open]")].at(-1) || document;

  /** As far as it comes from attributes, labels and text. A placeholder or a title alone is no name. */
  function accessibleName(node) {
    const by = (node.getAttribute("aria-labelledby") || "").split(" ").map((id) => document.getElementById(id)?.textContent || "").join(" ").trim();
    const labels = [...(node.labels || [])].map((label) => label.textContent).join(" ").trim();
    const inner = ["BUTTON", "A", "SUMMARY"].includes(node.tagName) || node.getAttribute("role") ? `${node.textContent} ${[...node.querySelectorAll("img[alt], [aria-label]")].map((one) => one.alt || one.ariaLabel).join(" ")}`.trim() : "";
    return by || (node.getAttribute("aria-label") || "").trim() || labels || inner;
  }

  function colour(text) {
    const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
    return [r, g, b, a];
  }
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)];
  const light = (rgb) => rgb.slice(0, 3).map((part) => part / 255).map((part) => (part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4)).reduce((sum, part, i) => sum + part * [.2126, .7152, .0722][i], 0);
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((m, n) => n - m); return (x + .05) / (y + .05); };

  /** What lies behind an element's text; null where a picture does. */
  function ground(node) {
    const layers = [];
    for (let at = node; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      if (style.backgroundImage !== "none") return null;
      const found = colour(style.backgroundColor);
      if (found[3] > 0) layers.push(found);
      if (found[3] === 1) break;
    }
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  }

  function opacity(node) { let all = 1; for (let at = node; at; at = at.parentElement) all *= Number(getComputedStyle(at).opacity); return all; }

  function contrast(found) {
    const walker = document.createTreeWalker(top() === document ? document.body : top(), NodeFilter.SHOW_TEXT), seen = new Set();
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const holder = node.parentElement;
      if (!node.data.trim() || seen.has(holder) || ["SCRIPT", "STYLE", "OPTION", "DATALIST"].includes(holder.tagName) || !visible(holder) || holder.closest(":disabled, [aria-disabled=true], [aria-hidden=true], .skip:not(:focus)")) continue;
      seen.add(holder);
      const style = getComputedStyle(holder), behind = ground(holder), size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
      if (!behind) continue;
      const ink = colour(holder.namespaceURI.endsWith("svg") ? style.fill : style.color);
      const value = ratio(over([...ink.slice(0, 3), ink[3] * opacity(holder)], behind), behind);
      if (value < (large ? 3 : 4.5)) found.push(["contrast", named(holder), value.toFixed(2)]);
    }
    for (const input of top().querySelectorAll("input[placeholder], textarea[placeholder]")) {
      if (!visible(input) || input.value) continue;
      const behind = ground(input), value = ratio(over(colour(getComputedStyle(input, "::placeholder").color), behind), behind);
      if (value < 4.5) found.push(["contrast of the placeholder", named(input), value.toFixed(2)]);
    }
  }

  const FOCUSED = "a[href], button, input, select, textarea, summary, [tabindex]";
  const tabbable = () => [...top().querySelectorAll(FOCUSED)].filter((node) => node.tabIndex >= 0 && !node.disabled && visible(node) && !node.closest("[inert]"));

  function audit() {
    const found = [], ids = new Map();
    for (const node of top().querySelectorAll("input:not([type=hidden]), select, textarea, button, a[href], summary, dialog, [role=option], [role=tab], [role=listbox], [role=progressbar], [role=img], [role=tabpanel], iframe")) {
      if (visible(node) && !accessibleName(node) && !(node.tagName === "IFRAME" && node.title)) found.push(["no name", named(node), node.outerHTML.slice(0, 120)]);
    }
    for (const node of document.querySelectorAll("[id]")) ids.set(node.id, (ids.get(node.id) || 0) + 1);
    for (const [id, count] of ids) if (count > 1) found.push(["id is not unique", id, count]);
    for (const kind of ["aria-labelledby", "aria-describedby", "aria-controls", "for", "list", "aria-activedescendant"]) {
      for (const node of document.querySelectorAll(`[${kind}]`)) for (const id of node.getAttribute(kind).split(" ").filter(Boolean)) if (!document.getElementById(id)) found.push([`${kind} leads nowhere`, named(node), id]);
    }
    const heads = [...document.querySelectorAll("h1")].filter(visible).length;
    if (heads !== 1) found.push(["one h1", "document", heads]);
    for (const image of document.querySelectorAll("img:not([alt])")) found.push(["an image without alt", named(image), image.src]);
    for (const node of top().querySelectorAll("*")) {
      if (getComputedStyle(node).cursor === "pointer" && visible(node) && !node.closest(`${FOCUSED}, label`) && !node.querySelector(FOCUSED)) found.push(["can be clicked, not reached by Tab", named(node), ""]);
    }
    const page = document.documentElement;
    if (page.scrollWidth > innerWidth) {
      const wide = [...document.querySelectorAll("body *")].filter((node) => visible(node) && node.getBoundingClientRect().right > innerWidth + 1).slice(0, 5).map(named);
      found.push(["scrolls sideways", wide.join("; "), `${page.scrollWidth} > ${innerWidth}`]);
    }
    contrast(found);
    return found;
  }

  const look = (node) => { const style = getComputedStyle(node); return [style.outlineStyle === "none" ? "" : `${style.outlineWidth} ${style.outlineColor}`, style.boxShadow, style.backgroundColor, style.borderColor, style.textDecoration].join("|"); };
  const unfocused = () => { for (const node of tabbable()) node.dataset.unfocused = look(node); return tabbable().length; };
  const focused = () => {
    const node = document.activeElement;
    if (!node || node === document.body) return null;
    node.dataset.reached = "1";
    const shown = look(node) !== node.dataset.unfocused, line = getComputedStyle(node);
    const inner = document.getElementById(node.getAttribute("aria-activedescendant")); // a list shows where it is by the row that is current
    if (inner && (getComputedStyle(inner).boxShadow !== "none" || getComputedStyle(inner).outlineStyle !== "none")) return { name: named(node), shown: true };
    return { name: named(node), shown: shown && (line.outlineStyle !== "none" ? parseFloat(line.outlineWidth) > 0 : true) };
  };
  const unreached = () => tabbable().filter((node) => !node.dataset.reached && !(node.type === "radio")).map(named);
  window.audited = { audit, unfocused, focused, unreached, named, at: () => (document.activeElement ? named(document.activeElement) : ""), inside: () => Boolean(top() !== document && top().contains(document.activeElement)) };
})();
