// What goes in and what comes out, kept as two WAV files on one clock: the answer is put back to where it was sung.

import { WavWriter } from "./wav.js";

const TOGETHER = 4 << 20; // bytes that are handed to the browser's own storage at a time
const BITS = 32;

/** A WAV file that grows by position: what is missing is silence, what came twice is taken once. */
class Track {
  constructor(rate, from) {
    this.writer = new WavWriter(rate, 1, BITS);
    this.next = from;
    this.fresh = 0;
  }

  put(samples, position, end = Infinity) {
    const gap = position - this.next;
    if (gap > 0) this.push(new Float32Array(Math.max(0, Math.min(gap, end - this.next))));
    const part = samples.subarray(Math.max(0, this.next - position), Math.max(0, end - position));
    if (part.length) this.push(part.slice());
  }

  push(samples) {
    this.writer.push(samples);
    this.next += samples.length;
    this.fresh += samples.byteLength;
    if (this.fresh < TOGETHER) return;
    this.writer.parts = [new Blob(this.writer.parts)];
    this.fresh = 0;
  }

  finish(end) {
    if (end > this.next) this.push(new Float32Array(end - this.next));
    return this.writer.blob();
  }
}

export class LiveRecording {
  /** Begins at `position` of the capture; ends by itself after `limit` seconds. */
  constructor(rate, position, limit) {
    Object.assign(this, { rate, from: position, last: position + Math.round(limit * rate), end: Infinity });
    this.dry = new Track(rate, position);
    this.wet = new Track(rate, position);
  }

  get seconds() {
    return (this.dry.next - this.from) / this.rate;
  }

  take(samples, position) {
    this.dry.put(samples, position, Math.min(this.last, this.end));
  }

  /** An answer; its content is `delay` samples older than its position says. */
  answer(samples, position, delay) {
    this.wet.put(samples, position - delay, Math.min(this.last, this.end));
  }

  /** No more input; true once every answer is there. */
  stop() {
    this.end = Math.min(this.end, this.dry.next);
    return this.complete;
  }

  get complete() {
    return this.wet.next >= this.end;
  }

  get full() {
    return this.dry.next >= this.last;
  }

  /** {dry, wet, seconds}: WAV files of one length; null if nothing was captured. */
  files() {
    if (!this.seconds) return null;
    return { dry: this.dry.finish(this.dry.next), wet: this.wet.finish(this.dry.next), seconds: this.seconds };
  }
}
