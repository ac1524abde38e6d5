// Spectrogram of one clip: levels come from the worker, colours and axes are made here.

import { FLOOR_DB } from "./clips.js";
import { colour } from "./dom.js";
import { colourMap } from "./canvas.js";

export const LOWEST = 50;
export const TOPS = [5_000, 12_000, 24_000];

const MAPS = {
  dark: {
    A: [
      [0, "#0b0e12"],
      [0.3, "#10263f"],
      [0.55, "#1d5a93"],
      [0.8, "#63b1f2"],
      [1, "#f2f9ff"],
    ],
    B: [
      [0, "#0b0e12"],
      [0.3, "#331a0c"],
      [0.55, "#8a4513"],
      [0.8, "#f0a04b"],
      [1, "#fffaf0"],
    ],
  },
  light: {
    A: [
      [0, "#ffffff"],
      [0.3, "#dcebf9"],
      [0.55, "#7fb4e4"],
      [0.8, "#1d5fa6"],
      [1, "#06172b"],
    ],
    B: [
      [0, "#ffffff"],
      [0.3, "#f9e9d8"],
      [0.55, "#e6ab6d"],
      [0.8, "#a5530c"],
      [1, "#2a1200"],
    ],
  },
};

/** Frequency axis: logarithmic from 50 Hz, or linear from 0. */
export class Axis {
  constructor(top, logarithmic) {
    this.top = top;
    this.logarithmic = logarithmic;
  }

  /** Hz at a share of the height, 0 = bottom. */
  frequency(share) {
    return this.logarithmic ? LOWEST * (this.top / LOWEST) ** share : this.top * share;
  }

  share(frequency) {
    return this.logarithmic ? Math.log(frequency / LOWEST) / Math.log(this.top / LOWEST) : frequency / this.top;
  }

  get marks() {
    const marks = this.logarithmic
      ? [100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000]
      : this.top > 12_000
        ? [4_000, 8_000, 12_000, 16_000, 20_000]
        : this.top > 5_000
          ? [2_000, 4_000, 6_000, 8_000, 10_000]
          : [1_000, 2_000, 3_000, 4_000];
    return marks.filter((mark) => mark < this.top * 0.97);
  }
}

/** Keeps the levels of what is on the screen for both slots, and asks for new ones when that changes. */
export class Spectrogram {
  /** `arrived()` is called when there is something new to draw. */
  constructor(arrived) {
    this.arrived = arrived;
    this.images = { A: null, B: null };
    this.asked = { A: "", B: "" };
    this.busy = { A: false, B: false };
    this.wanted = { A: null, B: null };
  }

  /** Ask for the levels of a slot, one question at a time, the latest wins. */
  async update(slot, clip, view, axis, width, height) {
    if (!clip || width < 2 || height < 2) {
      this.images[slot] = null;
      this.asked[slot] = "";
      return;
    }
    const request = { start: view.start, end: view.end, width, height };
    const name = `${clip.key} ${view.start} ${view.end} ${width}x${height} ${axis.top} ${axis.logarithmic}`;
    if (name === this.asked[slot]) {
      this.wanted[slot] = null;
      return;
    }
    this.wanted[slot] = () => this.update(slot, clip, view, axis, width, height);
    if (this.busy[slot]) return;
    this.wanted[slot] = null;
    this.busy[slot] = true;
    this.asked[slot] = name;
    const frequencies = Float64Array.from({ length: height }, (_, row) => axis.frequency(1 - (row + 0.5) / height));
    const levels = await clip.spectrogram({ ...request, frequencies });
    this.busy[slot] = false;
    this.images[slot] = { ...request, levels, key: clip.key, axis };
    this.arrived(slot);
    this.wanted[slot]?.();
  }

  /** Paint a slot's levels between two dB values; an older picture is stretched until the new one is there. */
  draw(context, width, height, { slot, clip, view, range, theme }) {
    const image = this.images[slot];
    context.fillStyle = MAPS[theme][slot][0][1];
    context.fillRect(0, 0, width, height);
    if (!image || !clip || image.key !== clip.key) return;
    const [low, high] = range.map((decibels) => (255 * (decibels - FLOOR_DB)) / -FLOOR_DB);
    const map = colourMap(MAPS[theme][slot]);
    const shown = Uint32Array.from({ length: 256 }, (_, level) => {
      return map[Math.round(255 * Math.min(1, Math.max(0, (level - low) / (high - low))))];
    });
    const pixels = new ImageData(image.width, image.height);
    const words = new Uint32Array(pixels.data.buffer);
    for (let at = 0; at < words.length; at++) words[at] = shown[image.levels[at]];
    this.buffer ??= document.createElement("canvas");
    this.buffer.width = image.width;
    this.buffer.height = image.height;
    this.buffer.getContext("2d").putImageData(pixels, 0, 0);
    const left = view.x(image.start, width);
    context.imageSmoothingEnabled = false;
    context.drawImage(this.buffer, left, 0, view.x(image.end, width) - left, height);
  }
}

/** Numbers of the frequency axis, on the picture's left edge. */
export function drawFrequencies(context, width, height, axis) {
  context.font = "10px system-ui, sans-serif";
  context.textBaseline = "middle";
  for (const mark of axis.marks) {
    const y = height * (1 - axis.share(mark));
    if (y < 8 || y > height - 6) continue;
    context.fillStyle = colour("grid");
    context.fillRect(0, Math.round(y), width, 1);
    const text = mark >= 1000 ? `${mark / 1000}k` : String(mark);
    plate(context, text, 3, y);
  }
}

/** The dB scale: a ramp with its ends written, in the upper right corner. */
export function drawScale(context, width, { slot, range, theme }) {
  const [wide, high] = [84, 6];
  const left = width - wide - 8;
  const ramp = context.createLinearGradient(left, 0, left + wide, 0);
  for (const [at, hex] of MAPS[theme][slot]) ramp.addColorStop(at, hex);
  context.font = "10px system-ui, sans-serif";
  context.fillStyle = colour("plate");
  context.fillRect(left - 4, 3, wide + 8, high + 18);
  context.fillStyle = ramp;
  context.fillRect(left, 6, wide, high);
  context.fillStyle = colour("muted");
  context.textBaseline = "top";
  context.fillText(`−${-range[0]}`, left, 9 + high - 2);
  const text = `${range[1] < 0 ? `−${-range[1]}` : "0"} dB`;
  context.fillText(text, left + wide - context.measureText(text).width, 9 + high - 2);
}

/** Text that stays readable on a picture. */
export function plate(context, text, x, y) {
  const width = context.measureText(text).width;
  context.fillStyle = colour("plate");
  context.fillRect(x - 2, y - 7, width + 4, 13);
  context.fillStyle = colour("muted");
  context.fillText(text, x, y);
}
