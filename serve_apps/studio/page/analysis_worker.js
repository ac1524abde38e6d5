// Heavy listening, off the page's thread: peaks, loudness and spectra of clips that were sent over in parts.

import { Fft } from "./fft.js";
import { loudness } from "./loudness.js";

const BLOCK = 256; // samples per stored peak
const FLOOR = -110; // dB that level 0 stands for; 255 stands for 0 dB
const PER_COLUMN = 4; // most spectra that one column of a wide view takes the largest of

const clips = new Map();
const transforms = new Map();

const tasks = {
  open({ id, rate, length }) {
    clips.set(id, { rate, samples: new Float32Array(length) });
  },

  push({ id, at, part }) {
    clips.get(id)?.samples.set(part, at);
  },

  drop({ id }) {
    clips.delete(id);
  },

  /** Peaks [min, max] of every 256 samples, loudness, largest sample. */
  measure({ id }) {
    const { samples, rate } = clips.get(id);
    const peaks = new Float32Array(2 * Math.ceil(samples.length / BLOCK));
    let largest = 0;
    for (let block = 0; 2 * block < peaks.length; block++) {
      let [low, high] = [Infinity, -Infinity];
      const end = Math.min(samples.length, (block + 1) * BLOCK);
      for (let n = block * BLOCK; n < end; n++) {
        if (samples[n] < low) low = samples[n];
        if (samples[n] > high) high = samples[n];
      }
      peaks[2 * block] = low;
      peaks[2 * block + 1] = high;
      largest = Math.max(largest, -low, high);
    }
    return { peaks, lufs: loudness(samples, rate), peak: largest };
  },

  /** Levels of `width` x `height` points, 0..255, top row first: `frequencies[row]` in Hz over `start`..`end` seconds. */
  spectrogram({ id, start, end, width, height, frequencies }) {
    const clip = clips.get(id);
    const levels = new Uint8Array(width * height);
    if (!clip) return { levels };
    const { samples, rate } = clip;
    const hop = ((end - start) * rate) / width;
    const fft = transform(hop > rate / 100 ? 4096 : 2048);
    const bins = fft.size / 2;
    const power = new Float64Array(bins + 1);
    const largest = new Float64Array(bins + 1);
    const places = Array.from(frequencies, (frequency) => (frequency / rate) * fft.size);
    const spectra = Math.min(PER_COLUMN, Math.max(1, Math.round((2 * hop) / fft.size)));
    for (let x = 0; x < width; x++) {
      largest.fill(0);
      for (let part = 0; part < spectra; part++) {
        const centre = start * rate + (x + (part + 0.5) / spectra) * hop;
        if (centre < 0 || centre >= samples.length) continue;
        fft.power(samples, centre, power);
        for (let k = 0; k <= bins; k++) if (power[k] > largest[k]) largest[k] = power[k];
      }
      for (let y = 0; y < height; y++) levels[y * width + x] = level(largest, places, y, bins);
    }
    return { levels };
  },
};

/** Between two bins the level is drawn in between; a row that covers several bins shows the largest. */
function level(power, places, row, bins) {
  const place = places[row];
  if (place > bins) return 0;
  const next = Math.min(bins, row > 0 ? places[row - 1] : place);
  let value;
  if (next - place > 1.5) {
    value = 0;
    for (let k = Math.ceil(place); k <= next; k++) value = Math.max(value, power[k]);
  } else {
    const low = Math.floor(place);
    const share = place - low;
    value = power[low] * (1 - share) + power[Math.min(bins, low + 1)] * share;
  }
  const decibels = 10 * Math.log10(value + 1e-14);
  return Math.max(0, Math.min(255, Math.round((255 * (decibels - FLOOR)) / -FLOOR)));
}

function transform(size) {
  if (!transforms.has(size)) transforms.set(size, new Fft(size));
  return transforms.get(size);
}

self.onmessage = ({ data }) => {
  const { task, call } = data;
  try {
    const answer = tasks[task](data);
    if (answer) self.postMessage({ call, ...answer }, [(answer.levels ?? answer.peaks).buffer]);
  } catch (error) {
    self.postMessage({ call, error: String(error) });
  }
};
