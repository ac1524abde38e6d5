// A button that does something as long as it is held: with the mouse, a finger, Space or Enter, or a key of the page.

import { button } from "./dom.js";

/** {node, press(), release()}; `held(on)` hears each change. */
export function holdButton({ text, title, glyph, held }) {
  let on = false;
  const set = (wanted) => {
    if (on === wanted) return;
    on = wanted;
    node.setAttribute("aria-pressed", String(on));
    held(on);
  };
  const node = button({ text, title, glyph, class: "hold", "aria-pressed": "false" });
  const pressing = (event) => event.key === " " || event.key === "Enter";
  node.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    node.setPointerCapture(event.pointerId);
    set(true);
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture", "blur"]) {
    node.addEventListener(end, () => set(false));
  }
  node.addEventListener("keydown", (event) => {
    if (!pressing(event)) return;
    event.preventDefault();
    if (!event.repeat) set(true);
  });
  node.addEventListener("keyup", (event) => {
    if (!pressing(event)) return;
    event.preventDefault();
    set(false);
  });
  // Aids that can only press: one press holds, the next lets go.
  node.addEventListener("click", (event) => event.detail === 0 && set(!on));
  node.addEventListener("contextmenu", (event) => event.preventDefault()); // a long touch
  window.addEventListener("blur", () => set(false));
  return { node, press: () => !node.disabled && set(true), release: () => set(false) };
}
