// Two clips on one clock. Both sources start at the same instant of the audio clock and at the same place of the take;
// what is heard is chosen by two gains, so switching never moves the playhead by a sample.

import { clamp } from "./units.js";

const LEAD = 0.03; // seconds from the order to the sound: both sources are ready by then
const FADE = 0.008;
const SHORTEST_LOOP = 0.05;

export class Transport extends EventTarget {
  constructor() {
    super();
    this.clips = { A: null, B: null };
    this.heard = "A";
    this.playing = false;
    this.matched = false;
    this.volume = 1;
    this.loop = null; // {start, end} in seconds
    this.looping = false;
    this.place = 0; // where playing (re)started
    this.startedAt = 0; // that instant on the audio clock
    this.sources = {};
    this.context = null;
  }

  /** Made at the first sound: browsers want a person's gesture before. */
  open(context = null) {
    if (this.context) return this.context;
    this.context = context ?? new AudioContext({ sampleRate: 48_000, latencyHint: "interactive" });
    this.master = new GainNode(this.context, { gain: this.volume });
    this.meter = new AnalyserNode(this.context, { fftSize: 2048 });
    this.master.connect(this.meter).connect(this.context.destination);
    this.gains = {};
    for (const slot of ["A", "B"]) {
      this.gains[slot] = new GainNode(this.context, { gain: this.level(slot) });
      this.gains[slot].connect(this.master);
    }
    return this.context;
  }

  get seconds() {
    return Math.max(this.clips.A?.seconds ?? 0, this.clips.B?.seconds ?? 0);
  }

  get ready() {
    return Boolean(this.clips.A || this.clips.B);
  }

  /** Where the take is heard now, in seconds. */
  get position() {
    if (!this.playing) return this.place;
    const late = this.context.outputLatency || 0;
    return this.at(Math.max(0, this.context.currentTime - late - this.startedAt));
  }

  /** Where the take is after `elapsed` seconds of playing. */
  at(elapsed) {
    const place = this.place + elapsed;
    const loop = this.activeLoop;
    if (loop && place > loop.end) return loop.start + ((place - loop.start) % (loop.end - loop.start));
    return Math.min(place, this.seconds);
  }

  get activeLoop() {
    return this.looping ? (this.loop ?? { start: 0, end: this.seconds }) : null;
  }

  /** Gain of a slot: 0 when the other is heard; matched, the louder one is turned down to the other. */
  level(slot) {
    if (slot !== this.heard) return 0;
    const own = this.clips[slot]?.lufs;
    const other = this.clips[slot === "A" ? "B" : "A"]?.lufs;
    if (!this.matched || !Number.isFinite(own) || !Number.isFinite(other)) return 1;
    return 10 ** (Math.min(0, other - own) / 20);
  }

  /** Decibels by which matching turns a slot down. */
  trim(slot) {
    const own = this.clips[slot]?.lufs;
    const other = this.clips[slot === "A" ? "B" : "A"]?.lufs;
    return Number.isFinite(own) && Number.isFinite(other) ? Math.min(0, other - own) : 0;
  }

  setClip(slot, clip) {
    if (this.clips[slot] === clip) return;
    const place = this.position;
    this.clips[slot] = clip;
    if (!clip && this.heard === slot && this.clips[other(slot)]) this.heard = other(slot);
    if (clip && !this.clips[this.heard]) this.heard = slot;
    if (this.loop && this.loop.start > this.seconds - SHORTEST_LOOP) this.loop = null;
    this.restart(Math.min(place, this.seconds));
    this.tell("clips");
  }

  async play() {
    if (!this.ready || this.playing) return;
    const context = this.open();
    await context.resume();
    if (this.place >= this.seconds - 0.01) this.place = 0;
    this.playing = true;
    this.start();
    this.tell("play");
  }

  pause() {
    if (!this.playing) return;
    this.place = this.position;
    this.playing = false;
    this.stop();
    this.tell("play");
  }

  toggle() {
    return this.playing ? this.pause() : this.play();
  }

  seek(seconds) {
    this.restart(clamp(seconds, 0, this.seconds));
    this.tell("seek");
  }

  hear(slot) {
    if (!this.clips[slot] || slot === this.heard) return;
    this.heard = slot;
    this.fade();
    this.tell("heard");
  }

  swap() {
    this.hear(other(this.heard));
  }

  setMatched(matched) {
    this.matched = matched;
    this.fade();
    this.tell("heard");
  }

  setVolume(volume) {
    this.volume = volume;
    if (this.context) this.master.gain.setTargetAtTime(volume, this.context.currentTime, 0.01);
    this.tell("volume");
  }

  /** A region in seconds, or null; regions that are too short to hear as such are null. */
  setLoop(region, looping = this.looping) {
    const place = this.position;
    if (region) {
      const start = clamp(region.start, 0, this.seconds);
      const end = clamp(region.end, 0, this.seconds);
      region = end - start >= SHORTEST_LOOP ? { start, end } : null;
    }
    this.loop = region;
    this.looping = looping;
    this.restart(place);
    this.tell("loop");
  }

  /** Peak of what leaves, 0..1 and above. */
  outputPeak() {
    if (!this.playing) return 0;
    this.wave ??= new Float32Array(this.meter.fftSize);
    this.meter.getFloatTimeDomainData(this.wave);
    return this.wave.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  }

  // Inside

  fade() {
    if (!this.context) return;
    const now = this.context.currentTime;
    for (const slot of ["A", "B"]) {
      const { gain } = this.gains[slot];
      gain.cancelScheduledValues(now);
      gain.setValueAtTime(gain.value, now);
      gain.linearRampToValueAtTime(this.level(slot), now + FADE);
    }
  }

  restart(place) {
    if (this.playing) this.stop();
    this.place = place;
    if (this.playing && this.ready) this.start();
    else this.playing = false;
  }

  start() {
    const loop = this.activeLoop;
    if (loop && (this.place >= loop.end || this.place < loop.start)) this.place = loop.start;
    this.startedAt = this.context.currentTime + LEAD;
    this.fade();
    for (const slot of ["A", "B"]) {
      const clip = this.clips[slot];
      if (!clip || (!loop && this.place >= clip.seconds)) continue;
      const source = new AudioBufferSourceNode(this.context, { buffer: clip.buffer });
      if (loop) Object.assign(source, { loop: true, loopStart: loop.start, loopEnd: Math.min(loop.end, clip.seconds) });
      source.connect(this.gains[slot]);
      source.start(this.startedAt, this.place);
      this.sources[slot] = source;
    }
    if (loop) return;
    const longest = Object.values(this.sources).sort((one, two) => two.buffer.duration - one.buffer.duration)[0];
    if (longest) longest.onended = () => this.ended();
  }

  stop() {
    for (const source of Object.values(this.sources)) {
      source.onended = null;
      source.stop();
      source.disconnect();
    }
    this.sources = {};
  }

  ended() {
    this.stop();
    this.playing = false;
    this.place = 0;
    this.tell("play");
  }

  tell(what) {
    this.dispatchEvent(new CustomEvent("change", { detail: what }));
  }
}

export const other = (slot) => (slot === "A" ? "B" : "A");
