// A level meter: peak as a bar with a hold line, RMS as a mark and a number, a light that stays on after clipping.

import { button, el } from "./dom.js";
import { clamp, decibels } from "./units.js";

const LOW = -60;
const HOLD = 1500; // milliseconds that a peak stays
const CLIP = 0.999;
const FALL = 24; // dB per second

const inDb = (level) => 20 * Math.log10(Math.max(level, 1e-6));
const share = (db) => clamp(1 - db / LOW, 0, 1).toFixed(3);

export class Meter {
  constructor(label) {
    this.bar = el(
      "div",
      {
        class: "level",
        role: "meter",
        "aria-label": `${label} level`,
        "aria-valuemin": String(LOW),
        "aria-valuemax": "0",
      },
      el("i"),
      el("s"),
      el("u"),
    );
    this.clip = button({
      text: "CLIP",
      class: "clip",
      label: `${label} clip light, press to reset`,
      press: () => this.clip.classList.remove("on"),
    });
    this.number = el("span", { class: "db" });
    this.node = el("div", { class: "meter" }, el("span", { class: "name" }, label), this.bar, this.number, this.clip);
    this.reset();
  }

  reset() {
    this.shown = this.held = LOW;
    this.until = this.at = 0;
    this.square = 0;
    this.clip.classList.remove("on");
    this.show({ peak: 0, rms: 0 });
  }

  show({ peak, rms }) {
    const now = performance.now();
    const db = inDb(peak);
    this.shown = Math.max(db, this.shown - (FALL * Math.min(1000, now - this.at)) / 1000);
    this.at = now;
    if (db >= this.held || now > this.until) [this.held, this.until] = [db, now + HOLD];
    this.square += 0.15 * (rms * rms - this.square); // about 0.3 s, as a VU meter has it
    const average = inDb(Math.sqrt(this.square));
    this.bar.style.setProperty("--level", share(this.shown));
    this.bar.style.setProperty("--rms", share(average));
    this.bar.style.setProperty("--hold", share(this.held));
    const value = Math.round(clamp(average, LOW, 0));
    this.bar.setAttribute("aria-valuenow", String(value));
    this.bar.setAttribute("aria-valuetext", `${decibels(average)} RMS, peak ${decibels(this.held)}`);
    this.number.textContent = average <= -100 ? decibels(-Infinity) : decibels(average);
    this.number.title = `RMS; peak ${decibels(this.held)}`;
    if (peak >= CLIP) this.clip.classList.add("on");
  }
}
