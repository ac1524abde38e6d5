// Plays what comes back, out of the play-out buffer, and tells what sounds when.

import { PlayoutBuffer } from "./live_ring.js";

const TOLD = 0.04; // seconds

class LivePlayback extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    this.buffer = new PlayoutBuffer(sampleRate, processorOptions.target);
    this.on = true;
    this.peak = this.squares = this.told = 0;
    this.port.onmessage = ({ data }) => {
      if (data.port) data.port.onmessage = ({ data: block }) => this.buffer.push(block.samples, block.position);
      if (data.target !== undefined) this.buffer.setTarget(data.target);
      if (data.close) this.on = false;
    };
  }

  process(_, [[out]]) {
    this.buffer.pull(out);
    for (const sample of out) {
      this.peak = Math.max(this.peak, Math.abs(sample));
      this.squares += sample * sample;
    }
    this.told += out.length;
    if (this.told >= TOLD * sampleRate) this.tell(currentFrame + out.length);
    return this.on;
  }

  tell(frame) {
    const { state, position, valley, target, step, underruns, skipped } = this.buffer;
    this.port.postMessage({
      frame,
      position,
      playing: state === "playing",
      reserve: valley / sampleRate,
      target: target / sampleRate,
      stretch: step - 1,
      underruns,
      skipped: skipped / sampleRate,
      peak: this.peak,
      rms: Math.sqrt(this.squares / this.told),
    });
    this.peak = this.squares = this.told = 0;
  }
}

registerProcessor("live-playback", LivePlayback);
