// Which part of the take is on the screen: one window for all lanes.

import { clamp } from "./units.js";

const SHORTEST = 0.05;

export class View extends EventTarget {
  constructor() {
    super();
    this.seconds = 0;
    this.start = 0;
    this.end = 1;
  }

  /** A take of another length comes on: all of it is shown. */
  setSeconds(seconds) {
    if (Math.abs(seconds - this.seconds) < 1e-3) return;
    this.seconds = seconds;
    this.set(0, seconds || 1);
  }

  get width() {
    return this.end - this.start;
  }

  get whole() {
    return this.width >= this.seconds - 1e-6;
  }

  set(start, end) {
    const limit = this.seconds || 1;
    const width = clamp(end - start, Math.min(SHORTEST, limit), limit);
    this.start = clamp(start, 0, limit - width);
    this.end = this.start + width;
    this.dispatchEvent(new Event("change"));
  }

  fit() {
    this.set(0, this.seconds || 1);
  }

  /** `factor` above 1 shows less, around `centre` seconds. */
  zoom(factor, centre = (this.start + this.end) / 2) {
    const width = clamp(this.width / factor, Math.min(SHORTEST, this.seconds || 1), this.seconds || 1);
    const share = (centre - this.start) / this.width;
    this.set(centre - share * width, centre + (1 - share) * width);
  }

  pan(seconds) {
    this.set(this.start + seconds, this.end + seconds);
  }

  /** Turn the page when the playhead leaves it. */
  follow(seconds) {
    if (this.whole || (seconds >= this.start && seconds <= this.end)) return;
    this.set(seconds - 0.02 * this.width, seconds + 0.98 * this.width);
  }

  x(seconds, pixels) {
    return ((seconds - this.start) / this.width) * pixels;
  }

  time(x, pixels) {
    return this.start + (x / pixels) * this.width;
  }
}

/** Distances between lines of the ruler: the first of 1, 2, 5 x 10^n (or minutes) that leaves `room` pixels. */
export function ticks(view, pixels, room = 80) {
  const steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200];
  const step = steps.find((wide) => (wide / view.width) * pixels >= room) ?? 1800;
  const found = [];
  for (let n = Math.ceil(view.start / step - 1e-9); n * step <= view.end + 1e-9; n++) found.push(n * step);
  return { step, times: found };
}
