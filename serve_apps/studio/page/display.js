// What can be chosen about the pictures: F0 over the spectrogram, its axis and range, zoom.

import { button, el, preference } from "./dom.js";
import { TOPS } from "./spectrogram.js";
import { kilohertz } from "./units.js";

/** Lowest and highest level of the colours, in dB. */
export const RANGES = [
  [-100, -10],
  [-90, -10],
  [-80, -10],
  [-70, -10],
  [-60, -10],
];

export function displayTools(stage) {
  const top = el(
    "select",
    {
      "aria-label": "Highest frequency",
      on: { change: () => stage.setAxis(Number(top.value), stage.axis.logarithmic) },
    },
    TOPS.map((value) => el("option", { value: String(value) }, kilohertz(value))),
  );
  top.value = String(stage.axis.top);
  const scale = el(
    "select",
    { "aria-label": "Frequency scale", on: { change: () => stage.setAxis(stage.axis.top, scale.value === "log") } },
    el("option", { value: "log" }, "log"),
    el("option", { value: "linear" }, "linear"),
  );
  scale.value = stage.axis.logarithmic ? "log" : "linear";
  const floor = el(
    "select",
    {
      "aria-label": "Lowest level shown",
      class: "floor",
      on: {
        change: () => {
          stage.floor = Number(floor.value);
          preference.set("floor", stage.floor);
          stage.sheets.spectrum.refresh();
        },
      },
    },
    RANGES.map(([low], at) => el("option", { value: String(at) }, `−${-low} dB`)),
  );
  floor.value = String(stage.floor);
  const overlay = el("input", {
    type: "checkbox",
    on: {
      change: () => {
        stage.overlay = overlay.checked;
        preference.set("overlay", stage.overlay);
        stage.sheets.spectrum.refresh();
      },
    },
  });
  overlay.checked = stage.overlay;
  return el(
    "div",
    { class: "tools", role: "group", "aria-label": "Display" },
    el("label", { class: "check" }, overlay, "F0"),
    scale,
    top,
    floor,
    el("span", { class: "gap" }),
    button({ glyph: "zoom-out", label: "Zoom out (−)", press: () => stage.view.zoom(0.5, stage.anchor) }),
    button({ glyph: "zoom-in", label: "Zoom in (+)", press: () => stage.view.zoom(2, stage.anchor) }),
    button({ glyph: "fit", label: "Show all (0)", press: () => stage.view.fit() }),
  );
}
