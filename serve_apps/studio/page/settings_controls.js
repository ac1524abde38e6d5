// The kinds of controls of the settings. Each is made with (field, id, change) and gives
// {nodes, show(value), disable(off), focus()}; a choice also has setChoices([[value, label, off]]).

import { el, icon, replace } from "./dom.js";
import { clamp } from "./units.js";

export const CONTROLS = {
  range({ low, high, step, unit, show, ends }, id, change) {
    const digits = step >= 1 ? 0 : step >= 0.1 ? 1 : 2;
    const slide = el("input", {
      type: "range",
      id,
      min: String(low),
      max: String(high),
      step: String(step),
      "aria-describedby": `${id}-why`,
      on: { input: () => change(Number(slide.value)) },
    });
    const number = el("input", {
      type: "number",
      min: String(low),
      max: String(high),
      step: String(step),
      class: "short",
      "aria-label": "exact value",
      on: { change: () => change(number.value === "" ? low : clamp(Number(number.value), low, high)) },
    });
    return {
      nodes: [
        slide,
        number,
        unit && el("span", { class: "unit" }, unit),
        ends && el("p", { class: "ends" }, el("span", {}, ends[0]), el("span", {}, ends[1])),
      ],
      show(value) {
        slide.value = String(value);
        number.value = String(Number(value.toFixed(digits)));
        slide.setAttribute("aria-valuetext", show ? show(value) : `${value.toFixed(digits)} ${unit ?? ""}`.trim());
        number.setAttribute("aria-label", document.querySelector(`label[for="${id}"]`)?.textContent ?? id);
      },
      disable: (off) => (slide.disabled = number.disabled = off),
      focus: () => slide.focus(),
    };
  },

  number({ low, high }, id, change) {
    const input = el("input", {
      type: "number",
      id,
      min: String(low),
      max: String(high),
      step: "1",
      "aria-describedby": `${id}-why`,
      on: { change: () => change(clamp(Math.round(Number(input.value) || 0), low, high)) },
    });
    return {
      nodes: [input],
      show: (value) => (input.value = String(value)),
      disable: (off) => (input.disabled = off),
      focus: () => input.focus(),
    };
  },

  switch(field, id, change) {
    const input = el("input", {
      type: "checkbox",
      id,
      role: "switch",
      "aria-describedby": `${id}-why`,
      on: { change: () => change(input.checked) },
    });
    return {
      nodes: [input],
      show: (value) => (input.checked = value),
      disable: (off) => (input.disabled = off),
      focus: () => input.focus(),
    };
  },

  choice({ choices, standard }, id, change) {
    const select = el("select", {
      id,
      "aria-describedby": `${id}-why`,
      on: { change: () => change(typeof standard === "number" ? Number(select.value) : select.value) },
    });
    let shown = "";
    const setChoices = (wanted) => {
      if (JSON.stringify(wanted) === shown) return;
      shown = JSON.stringify(wanted);
      replace(
        select,
        wanted.map(([value, label, off]) => el("option", { value: String(value), disabled: Boolean(off) }, label)),
      );
    };
    setChoices(choices);
    return {
      nodes: [select],
      show: (value) => (select.value = String(value)),
      disable: (off) => (select.disabled = off),
      focus: () => select.focus(),
      setChoices,
    };
  },

  /** Whole semitones with a stepper, and hundredths apart. */
  key({ low, high }, id, change) {
    let [whole, cents] = [0, 0];
    const tell = () => change(clamp(Number((whole + cents / 100).toFixed(2)), low, high));
    const step = (by) => {
      whole = clamp(whole + by, low, high);
      tell();
    };
    const number = el("input", {
      type: "number",
      id,
      min: String(low),
      max: String(high),
      step: "1",
      "aria-describedby": `${id}-why`,
      on: {
        change: () => {
          const value = clamp(Number(number.value) || 0, low, high);
          whole = Math.round(value);
          if (value !== whole) cents = Math.round(100 * (value - whole));
          tell();
        },
      },
    });
    const fine = el("input", {
      type: "range",
      min: "-50",
      max: "50",
      step: "1",
      "aria-label": "Fine tune in cents",
      title: "Fine tune",
      on: {
        input: () => {
          cents = Number(fine.value);
          tell();
        },
      },
    });
    const shown = el("span", { class: "unit cents" });
    const stepper = (by, label) =>
      el(
        "button",
        { type: "button", class: "step", "aria-label": label, title: label, on: { click: () => step(by) } },
        Math.abs(by) === 12 ? (by < 0 ? "−12" : "+12") : icon(by < 0 ? "minus" : "plus"),
      );
    const buttons = [
      stepper(-12, "Octave down"),
      stepper(-1, "Semitone down"),
      stepper(1, "Semitone up"),
      stepper(12, "Octave up"),
    ];
    return {
      nodes: [
        el("div", { class: "stepper" }, buttons[0], buttons[1], number, buttons[2], buttons[3]),
        el("div", { class: "fine" }, el("span", { class: "unit" }, "fine"), fine, shown),
      ],
      show(value) {
        whole = Math.round(value);
        cents = Math.round(100 * (value - whole));
        number.value = String(whole);
        fine.value = String(cents);
        shown.textContent = `${cents > 0 ? "+" : cents < 0 ? "−" : ""}${Math.abs(cents)} ct`;
        fine.setAttribute("aria-valuetext", `${cents} cents`);
      },
      disable(off) {
        for (const part of [number, fine, ...buttons]) part.disabled = off;
      },
      focus: () => number.focus(),
    };
  },
};
