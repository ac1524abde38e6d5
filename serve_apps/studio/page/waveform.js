// Waveform of one clip: peaks when there are many samples to a pixel, the samples themselves when there are few.

import { colour } from "./dom.js";
import { decibels } from "./units.js";
import { PEAK_BLOCK } from "./clips.js";

/** Draws `clip` in `ink`, `top` at full height; what is not heard is drawn paler. */
export function drawWaveform(context, width, height, { clip, view, ink, heard, top }) {
  const middle = height / 2;
  context.strokeStyle = colour("line");
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(0, Math.round(middle) + 0.5);
  context.lineTo(width, Math.round(middle) + 0.5);
  context.stroke();
  if (!clip) return;
  context.globalAlpha = heard ? 1 : 0.45;
  context.fillStyle = ink;
  context.strokeStyle = ink;
  const samplesPerPixel = (view.width * clip.buffer.sampleRate) / width;
  if (samplesPerPixel > 2) drawPeaks(context, width, middle, clip, view, top);
  else drawSamples(context, width, middle, clip, view, top);
  context.globalAlpha = 1;
  drawOvers(context, width, clip, view);
  context.font = "10px system-ui, sans-serif";
  context.textBaseline = "top";
  const text = `full height ${decibels(20 * Math.log10(top), "dBFS")}`;
  context.fillStyle = colour("muted");
  if (heard && height > 30) context.fillText(text, width - context.measureText(text).width - 6, 4);
}

function drawPeaks(context, width, middle, clip, view, top) {
  const rate = clip.buffer.sampleRate;
  const coarse = (view.width * rate) / width >= PEAK_BLOCK;
  const scale = (middle - 2) / top;
  const samples = clip.buffer.getChannelData(0);
  const columns = Math.ceil(width * 2);
  for (let column = 0; column < columns; column++) {
    const x = column / 2;
    const first = view.time(x, width) * rate;
    const last = view.time(x + 0.5, width) * rate;
    if (first >= samples.length) break;
    const [low, high] = coarse ? ofPeaks(clip.peaks, first, last) : ofSamples(samples, first, last);
    const upper = middle - high * scale;
    context.fillRect(x, upper, 0.5, Math.max(1, (high - low) * scale));
  }
}

function ofPeaks(peaks, first, last) {
  let [low, high] = [0, 0];
  const end = Math.min(peaks.length / 2, Math.max(Math.floor(first / PEAK_BLOCK) + 1, Math.ceil(last / PEAK_BLOCK)));
  for (let block = Math.max(0, Math.floor(first / PEAK_BLOCK)); block < end; block++) {
    low = Math.min(low, peaks[2 * block]);
    high = Math.max(high, peaks[2 * block + 1]);
  }
  return [low, high];
}

function ofSamples(samples, first, last) {
  let [low, high] = [Infinity, -Infinity];
  const end = Math.min(samples.length, Math.max(Math.ceil(last), Math.floor(first) + 1));
  for (let n = Math.max(0, Math.floor(first)); n < end; n++) {
    low = Math.min(low, samples[n]);
    high = Math.max(high, samples[n]);
  }
  return [low, high];
}

function drawSamples(context, width, middle, clip, view, top) {
  const rate = clip.buffer.sampleRate;
  const samples = clip.buffer.getChannelData(0);
  const end = Math.min(samples.length - 1, Math.ceil(view.end * rate) + 1);
  context.beginPath();
  for (let n = Math.max(0, Math.floor(view.start * rate)); n <= end; n++) {
    context.lineTo(view.x(n / rate, width), middle - (samples[n] * (middle - 2)) / top);
  }
  context.lineWidth = 1.25;
  context.stroke();
}

/** Red marks where the clip is at or above full scale. */
function drawOvers(context, width, clip, view) {
  if (!(clip.peak >= 0.9999)) return;
  context.fillStyle = colour("danger");
  const seconds = PEAK_BLOCK / clip.buffer.sampleRate;
  for (let block = Math.max(0, Math.floor(view.start / seconds)); block * seconds < view.end; block++) {
    if (2 * block >= clip.peaks.length) return;
    if (clip.peaks[2 * block + 1] < 0.9999 && clip.peaks[2 * block] > -0.9999) continue;
    context.fillRect(view.x(block * seconds, width), 0, 2, 3);
  }
}
