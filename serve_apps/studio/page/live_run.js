// One stream from start to stop: devices, the stream's thread, what it tells, what is measured.

import { Delay } from "./live_delay.js";
import { LiveAudio } from "./live_audio.js";
import { CannotRecord } from "./recorder.js";

const HOWL = { level: 0.56, seconds: 1 }; // -5 dBFS RMS: no voice does that for long, a loop of microphone and speaker does
const LOST_IN = "The microphone hears the loudspeaker: the sound was muted. Wear headphones, then switch it on again.";

/**
 * Events ("change" with `detail`): "phase", "level", "facts", "stats", "notice", "monitor", "recording", "recorded".
 * `phase`: idle, opening, connecting, live, away, ending.
 */
export class LiveRun extends EventTarget {
  constructor() {
    super();
    this.phase = "idle";
    this.monitoring = false; // muted until somebody says that there are headphones
    this.volume = 1;
    this.reset();
  }

  reset() {
    Object.assign(this, { audio: null, worker: null, started: null, stats: null, output: null, delay: null });
    Object.assign(this, { link: { resumes: 0, renewals: 0 }, trip: null, network: null, recordingSince: null });
    Object.assign(this, { loud: 0, ending: null, counts: { blocks: 0, late: 0, lost: 0 }, bypassed: false });
    this.measured = new Delay();
  }

  get running() {
    return this.phase !== "idle";
  }

  /** `devices`: {input, output, block, reserve}; `wanted`: {voice, settings}; raises CannotRecord. */
  async start(devices, wanted, key) {
    if (this.running) return;
    this.reset();
    this.to("opening", "Opening the input…");
    const audio = new LiveAudio((what, facts) => this.audioTold(what, facts));
    this.audio = audio;
    try {
      await audio.open({ ...devices, volume: this.monitoring ? this.volume : 0 });
    } catch (error) {
      if (this.audio !== audio) return; // stopped meanwhile
      this.close("");
      throw error;
    }
    if (this.audio !== audio) return audio.close();
    this.worker = new Worker("/studio/live_worker.js", { type: "module" });
    this.worker.onmessage = ({ data }) => this.told(data);
    this.worker.onerror = () => this.close("The stream's thread failed. Reload the page.");
    const { capture, playback } = audio.ports();
    const all = { ...wanted, rate: audio.rate, block: audio.block, bypass: false };
    this.to("connecting", "Asking the server for a stream…");
    this.worker.postMessage({ deed: "open", wanted: all, key, capture, playback }, [capture, playback]);
    this.keepAwake();
  }

  stop() {
    if (this.phase === "live" || this.phase === "away") {
      if (this.recordingSince) this.keepRecording();
      this.audio.setVolume(0);
      this.to("ending", "Ending…");
      this.send("end");
    } else if (this.phase !== "ending") this.close("");
  }

  close(text) {
    this.worker?.terminate();
    this.audio?.close();
    this.lock?.release().catch(() => {});
    this.worker = this.audio = this.lock = null;
    const recording = this.recordingSince;
    this.recordingSince = null;
    if (recording) this.tell("recording");
    this.to("idle", text);
  }

  send(deed, facts = {}) {
    this.worker?.postMessage({ deed, ...facts });
  }

  /** {voice, settings}: as the form has them now. */
  change(changes) {
    if (this.running) this.send("change", { changes });
  }

  bypass(on) {
    if (!this.running || this.bypassed === on) return;
    this.bypassed = on;
    this.change({ bypass: on });
    this.tell("bypass");
  }

  monitor(on, volume = this.volume) {
    const before = this.monitoring;
    Object.assign(this, { monitoring: on, volume, loud: 0 });
    this.audio?.setVolume(on ? volume : 0);
    if (before !== on) this.tell("monitor");
  }

  record(limit) {
    this.recordingSince = performance.now();
    this.send("record", { limit });
    this.tell("recording");
  }

  keepRecording() {
    this.recordingSince = null;
    this.send("keep");
    this.tell("recording");
  }

  // What is heard of it

  told(message) {
    const { type } = message;
    if (type === "state") return this.stateTold(message);
    if (type === "started" || type === "applied") {
      this.started = { ...this.started, ...message };
      this.tell("facts");
    }
    if (type === "stats") {
      Object.assign(this, { stats: message, counts: message.counts, trip: message.trip });
      this.tell("stats");
    }
    if (type === "pong") this.network = message.seconds;
    if (type === "notice") this.say(message.message || message.code, message.code);
    if (type === "error" || type === "closed") this.problem = message;
    if (type === "recorded") this.recorded(message.files);
  }

  stateTold({ phase, why, text, resumed, resumes, renewals }) {
    this.link = { resumes: resumes ?? 0, renewals: renewals ?? 0 };
    if (phase === "over") return this.over(why, text);
    if (phase === "away" && text) {
      if (this.phase === "live") this.say(text, "away");
      return this.to("away", "Reconnecting…");
    }
    if (phase !== "live") return;
    const again = this.phase === "away";
    if (!again) this.audio.begin();
    else this.say(resumed ? "Connected again." : "Connected again; the stream began anew.", "back");
    this.to("live", "");
  }

  over(why, text) {
    if (why === "key") this.ending = "key";
    this.close(why === "ended" ? "" : text);
    if (why === "key") this.tell("key");
    else if (why !== "ended") this.say(text, "error");
  }

  recorded(files) {
    this.recordingSince = null;
    this.tell("recording");
    if (files) this.tell("recorded", files);
  }

  audioTold(what, facts) {
    if (what === "ended") {
      this.say(facts, "error");
      return this.stop();
    }
    if (what === "input") this.listenForHowl(facts.rms);
    if (what === "output") {
      this.output = facts;
      this.measure(facts);
    }
    this.tell("level", { what, ...facts });
  }

  /** Only while what plays is what the stream gave. */
  measure({ frame, position, playing }) {
    const { audio, started } = this;
    if (!playing || !started || !audio || audio.began === null || audio.began === undefined) return;
    this.delay = this.measured.measure({
      captured: frame - audio.began,
      played: position,
      delay: started.delay,
      rate: audio.rate,
      block: audio.block,
      trip: this.trip,
      hardware: audio.hardware,
    });
  }

  listenForHowl(rms) {
    const now = performance.now();
    if (!this.monitoring || rms < HOWL.level) this.loud = 0;
    else if (!this.loud) this.loud = now;
    else if (now - this.loud > 1000 * HOWL.seconds) {
      this.monitor(false);
      this.say(LOST_IN, "howl");
    }
  }

  // Devices while running

  async use({ input, output, reserve }) {
    if (!this.audio?.context) return;
    try {
      if (input !== undefined) await this.audio.setInput(input);
      if (output !== undefined) await this.audio.setOutput(output);
    } catch (error) {
      if (!(error instanceof CannotRecord)) throw error;
      this.say(error.message, "error");
    }
    if (reserve !== undefined) this.audio?.setReserve(reserve);
  }

  /** A phone that falls asleep ends the sound. */
  async keepAwake() {
    try {
      this.lock = await navigator.wakeLock?.request("screen");
    } catch {
      // not allowed here: the screen goes dark as always
    }
  }

  to(phase, text) {
    this.phase = phase;
    this.text = text;
    this.tell("phase");
  }

  say(text, code) {
    this.tell("notice", { text, code });
  }

  tell(detail, facts = null) {
    this.dispatchEvent(Object.assign(new CustomEvent("change", { detail }), { facts }));
  }
}
