// Audio that is ready to play and to draw: decoded once, measured in a worker, the longest unused one forgotten first.

export const PEAK_BLOCK = 256;
export const FLOOR_DB = -110;
const PART = 1 << 20;
const HELD_SECONDS = 45 * 60;
// Above this length the listening copy has 16 kHz: an hour then takes 230 MB instead of 690 MB. Downloads stay whole.
const LONG_SECONDS = 20 * 60;
const FULL_RATE = 48_000;
const SMALL_RATE = 16_000;

class Analysis {
  constructor() {
    this.worker = new Worker("/studio/analysis_worker.js", { type: "module" });
    this.calls = new Map();
    this.last = 0;
    this.worker.onmessage = ({ data }) => {
      const { resolve, reject } = this.calls.get(data.call);
      this.calls.delete(data.call);
      if (data.error) reject(new Error(data.error));
      else resolve(data);
    };
  }

  tell(task, data, transfer = []) {
    this.worker.postMessage({ task, ...data }, transfer);
  }

  ask(task, data) {
    return new Promise((resolve, reject) => {
      this.last += 1;
      this.calls.set(this.last, { resolve, reject });
      this.worker.postMessage({ task, call: this.last, ...data });
    });
  }
}

/** What can be played. `melody` is F0 in Hz at 100/s, or null while unknown. */
export class Clip {
  constructor(key, buffer, analysis) {
    this.key = key;
    this.buffer = buffer;
    this.analysis = analysis;
    this.seconds = buffer.duration;
    this.peaks = null;
    this.lufs = null;
    this.peak = null;
    this.melody = null;
    this.reduced = buffer.sampleRate < FULL_RATE;
  }

  /** Levels of a part of the clip; see the worker. */
  async spectrogram(request) {
    return (await this.analysis.ask("spectrogram", { id: this.key, ...request })).levels;
  }

  /** Hz at a time, 0 where nothing is sung. */
  pitchAt(seconds) {
    return this.melody?.[Math.floor(seconds * 100)] ?? 0;
  }
}

export class Clips {
  constructor() {
    this.held = new Map();
    this.analysis = null;
  }

  /** The clip of `key`; `fetchBlob` is asked for its file when it is not held. Raises NotPlayable. */
  get(key, fetchBlob) {
    const found = this.held.get(key);
    if (found) {
      this.held.delete(key);
      this.held.set(key, found);
      return found;
    }
    const coming = this.load(key, fetchBlob);
    this.held.set(key, coming);
    coming.then(
      () => this.spare(),
      () => this.held.delete(key),
    );
    return coming;
  }

  async load(key, fetchBlob) {
    const blob = await fetchBlob();
    const rate = (await lengthOf(blob)) > LONG_SECONDS ? SMALL_RATE : FULL_RATE;
    let buffer;
    try {
      buffer = await new OfflineAudioContext(1, 1, rate).decodeAudioData(await blob.arrayBuffer());
    } catch {
      throw new NotPlayable("This browser cannot play the file's format. It can be converted all the same.");
    }
    this.analysis ??= new Analysis();
    const clip = new Clip(key, buffer, this.analysis);
    await this.send(clip);
    Object.assign(clip, await this.analysis.ask("measure", { id: key }));
    return clip;
  }

  /** The mono mix to the worker in parts, so that a long take does not stop the page. */
  async send({ key, buffer }) {
    this.analysis.tell("open", { id: key, rate: buffer.sampleRate, length: buffer.length });
    const channels = Array.from({ length: buffer.numberOfChannels }, (_, at) => buffer.getChannelData(at));
    for (let at = 0; at < buffer.length; at += PART) {
      const part = channels[0].slice(at, at + PART);
      if (channels.length > 1) {
        for (const channel of channels.slice(1)) for (let n = 0; n < part.length; n++) part[n] += channel[at + n];
        for (let n = 0; n < part.length; n++) part[n] /= channels.length;
      }
      this.analysis.tell("push", { id: key, at, part }, [part.buffer]);
      await new Promise((resolve) => setTimeout(resolve));
    }
  }

  /** Forget the longest unused clips when there is too much in memory; the two newest stay. */
  async spare() {
    const held = await Promise.allSettled(this.held.values());
    let seconds = held.reduce((sum, { value }) => sum + (value?.seconds ?? 0), 0);
    for (const [at, { value }] of held.entries()) {
      if (seconds <= HELD_SECONDS || at >= held.length - 2) return;
      if (!value) continue;
      seconds -= value.seconds;
      this.forget(value.key);
    }
  }

  forget(key) {
    if (this.held.delete(key)) this.analysis?.tell("drop", { id: key });
  }
}

export class NotPlayable extends Error {}

/** Seconds of a file by its header, 0 if the browser cannot tell; decodes nothing. */
export function lengthOf(blob) {
  return new Promise((resolve) => {
    const url = URL.createObjectURL(blob);
    const probe = new Audio();
    const done = (seconds) => {
      clearTimeout(late);
      URL.revokeObjectURL(url);
      probe.removeAttribute("src");
      resolve(Number.isFinite(seconds) ? seconds : 0);
    };
    const late = setTimeout(() => done(0), 3000);
    probe.preload = "metadata";
    probe.onloadedmetadata = () => done(probe.duration);
    probe.onerror = () => done(0);
    probe.src = url;
  });
}
