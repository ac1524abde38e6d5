// Numbers as people of the field write them.

const NAMES = ["C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B"];
const MINUS = "\u2212";

export const signed = (value, digits = 0) => {
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? text : (value < 0 ? MINUS : "+") + text;
};

/** 83.25 -> "1:23.250" */
export function clock(seconds, digits = 3) {
  const scale = 10 ** digits;
  const ticks = Math.round(Math.max(0, seconds) * scale);
  const whole = Math.floor(ticks / scale);
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  const rest = String(whole % 60).padStart(2, "0");
  const fraction = digits ? `.${String(ticks % scale).padStart(digits, "0")}` : "";
  return `${hours ? `${hours}:${String(minutes).padStart(2, "0")}` : minutes}:${rest}${fraction}`;
}

/** 83.25 -> "1 min 23 s", for people who listen to the page. */
export function spoken(seconds) {
  const minutes = Math.floor(seconds / 60);
  return `${minutes ? `${minutes} min ` : ""}${(seconds % 60).toFixed(1)} s`;
}

export function bytes(count) {
  if (count < 1000) return `${count} B`;
  const units = ["kB", "MB", "GB"];
  let size = count / 1000;
  let unit = 0;
  while (size >= 1000 && unit < 2) [size, unit] = [size / 1000, unit + 1];
  return `${size.toFixed(size < 10 ? 1 : 0)} ${units[unit]}`;
}

export const decibels = (value, unit = "dB") =>
  Number.isFinite(value) ? `${value < -0.05 ? MINUS : ""}${Math.abs(value).toFixed(1)} ${unit}` : `${MINUS}∞ ${unit}`;

/** Hz -> MIDI note number with fraction (A4 = 440 Hz = 69). */
export const midi = (hertz) => 69 + 12 * Math.log2(hertz / 440);
export const hertz = (note) => 440 * 2 ** ((note - 69) / 12);

/** MIDI number -> "A3" */
export const noteName = (note) => NAMES[((note % 12) + 12) % 12] + (Math.floor(note / 12) - 1);

/** Hz -> "A3 +12 ct"; empty where nothing is sung. */
export function pitchName(frequency) {
  if (!(frequency > 0)) return "";
  const exact = midi(frequency);
  const nearest = Math.round(exact);
  return `${noteName(nearest)} ${signed(100 * (exact - nearest))} ct`;
}

export const kilohertz = (rate) => `${(rate / 1000).toLocaleString("en", { maximumFractionDigits: 3 })} kHz`;

export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** 2026-11-22 14.03.55, in local time, fit for file names. */
export function stamp(date) {
  const two = (number) => String(number).padStart(2, "0");
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join("-");
  return `${day} ${[date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(".")}`;
}
