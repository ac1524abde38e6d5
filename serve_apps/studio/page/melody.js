// F0 of both clips: over the spectrogram, and on a piano roll with note names.

import { colour } from "./dom.js";
import { midi, noteName } from "./units.js";
import { plate } from "./spectrogram.js";

const RATE = 100; // frames a second
const JUMP = 7; // semitones; a wider step is drawn as two lines
const BLACK = new Set([1, 3, 6, 8, 10]);

/** Lowest and highest note that both melodies need, at least an octave apart; null without a voiced frame. */
export function noteRange(melodies) {
  const notes = [];
  for (const melody of melodies) {
    if (!melody) continue;
    const step = Math.max(1, Math.floor(melody.length / 20_000));
    for (let n = 0; n < melody.length; n += step) if (melody[n] > 0) notes.push(midi(melody[n]));
  }
  if (!notes.length) return null;
  notes.sort((one, two) => one - two);
  // Single wrong frames do not squeeze the rest.
  let low = Math.floor(notes[Math.floor(0.005 * (notes.length - 1))]) - 1;
  let high = Math.ceil(notes[Math.ceil(0.995 * (notes.length - 1))]) + 1;
  if (high - low < 12) [low, high] = [Math.floor((low + high) / 2) - 6, Math.ceil((low + high) / 2) + 6];
  return [low, high];
}

/**
 * A melody; `y(hertz)` places it. The heard one is a fine line with a rim that keeps it readable on any picture, the
 * other one a broad band below it, so that both are seen where they sing the same.
 */
export function drawLine(context, width, view, melody, ink, y, heard) {
  if (!melody) return;
  const first = Math.max(0, Math.floor(view.start * RATE) - 1);
  const last = Math.min(melody.length - 1, Math.ceil(view.end * RATE) + 1);
  const path = new Path2D();
  let before = 0;
  for (let n = first; n <= last; n++) {
    const now = melody[n];
    if (now > 0) {
      const joined = before > 0 && Math.abs(12 * Math.log2(now / before)) < JUMP;
      const x = view.x((n + 0.5) / RATE, width);
      if (joined) path.lineTo(x, y(now));
      else {
        path.moveTo(x - 0.5, y(now));
        path.lineTo(x, y(now));
      }
    }
    before = now;
  }
  context.lineJoin = "round";
  context.lineCap = "round";
  context.strokeStyle = heard ? colour("rim") : ink;
  context.globalAlpha = heard ? 1 : 0.5;
  context.lineWidth = heard ? 4 : 5;
  context.stroke(path);
  context.globalAlpha = 1;
  if (!heard) return;
  context.strokeStyle = ink;
  context.lineWidth = 1.75;
  context.stroke(path);
}

/** Every note, every white one, or every C, by the room that there is. */
function named(note, row) {
  const degree = ((note % 12) + 12) % 12;
  if (row >= 12) return true;
  return row >= 8 ? !BLACK.has(degree) : row >= 5 ? [0, 4, 7, 9].includes(degree) : degree === 0;
}

/** Piano roll: `melodies` are {melody, ink, heard}. */
export function drawRoll(context, width, height, { view, melodies, range }) {
  context.fillStyle = colour("roll");
  context.fillRect(0, 0, width, height);
  if (!range) return;
  const [low, high] = range;
  const row = height / (high - low);
  const y = (note) => height - (note - low) * row;
  context.font = "10px system-ui, sans-serif";
  context.textBaseline = "middle";
  for (let note = low; note <= high; note++) {
    if (BLACK.has(((note % 12) + 12) % 12)) {
      context.fillStyle = colour("roll-black");
      context.fillRect(0, y(note + 0.5), width, row);
    }
    if (row >= 9) {
      context.fillStyle = colour("line");
      context.fillRect(0, Math.round(y(note + 0.5)), width, 1);
    }
  }
  for (const { melody, ink, heard } of [...melodies].sort((one, two) => one.heard - two.heard)) {
    drawLine(context, width, view, melody, ink, (frequency) => y(midi(frequency)), heard);
  }
  for (let note = low; note <= high; note++) {
    const place = y(note);
    if (place < 7 || place > height - 7 || !named(note, row)) continue;
    plate(context, noteName(note), 3, place);
  }
}
