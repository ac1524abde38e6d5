// Building elements, and the few page-wide things that every part needs.

const SVG = "http://www.w3.org/2000/svg";

/** An element. `on` holds listeners, `data` data attributes; true and false set and leave out an attribute. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name === "class") node.className = value;
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An icon of icons.svg; decoration only, the element around it carries the name. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "glyph");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `/studio/icons.svg#${name}`);
  svg.append(use);
  return svg;
}

/** A button with an icon and, where `text` is given, a word; else `label` names it for everybody. */
export function button({ glyph, text, label, title, press, ...attributes }) {
  return el(
    "button",
    {
      type: "button",
      class: text ? undefined : "icon",
      "aria-label": text && !label ? undefined : label,
      title: title ?? (text ? undefined : label),
      on: press ? { click: press } : undefined,
      ...attributes,
    },
    glyph && icon(glyph),
    text && el("span", {}, text),
  );
}

export const byId = (id) => document.getElementById(id);

/** Say something to people who do not see the page. */
export function announce(text) {
  const live = byId("live");
  live.textContent = "";
  requestAnimationFrame(() => (live.textContent = text));
}

/** Text that people type for machines is never markup: every value goes in as text. */
export function replace(node, ...children) {
  node.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
}

/** A preference that outlives the visit; works without storage, too. */
export const preference = {
  get(name, fallback) {
    try {
      const text = localStorage.getItem(`rocktop.${name}`);
      return text === null ? fallback : JSON.parse(text);
    } catch {
      return fallback;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(`rocktop.${name}`, JSON.stringify(value));
    } catch {
      // no storage: the choice lives as long as the page
    }
  },
};

/** A colour of the style sheet. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
