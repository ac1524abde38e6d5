// The audio side of a stream: input, capture, play-out and output in one context, hence on one clock.

import { CannotRecord, openInput } from "./recorder.js";

const RAMP = 0.015; // seconds of a change of volume

export class LiveAudio {
  /** `told(what, facts)` hears "input" and "output" levels, and "ended" when the input is gone. */
  constructor(told) {
    this.told = told;
    this.context = null;
  }

  /** Opens the devices; `block` and `reserve` in seconds, `reserve` null: found out. Raises CannotRecord. */
  async open({ input, output, block, reserve, volume }) {
    this.context = new AudioContext({ latencyHint: "interactive" });
    this.context.resume(); // while the press that started it counts
    try {
      await this.build({ input, output, block, reserve, volume });
    } catch (error) {
      this.close();
      throw error;
    }
  }

  async build({ input, output, block, reserve, volume }) {
    const { context } = this;
    await this.setInput(input);
    for (const name of ["capture", "playback"]) await context.audioWorklet.addModule(`/studio/live_${name}_worklet.js`);
    this.block = Math.round(block * context.sampleRate);
    this.capture = new AudioWorkletNode(context, "live-capture", {
      numberOfOutputs: 0,
      channelCount: 1,
      channelCountMode: "explicit",
      processorOptions: { block: this.block },
    });
    this.playback = new AudioWorkletNode(context, "live-playback", {
      numberOfInputs: 0,
      outputChannelCount: [1],
      processorOptions: { target: reserve },
    });
    this.monitor = new GainNode(context, { gain: volume });
    this.playback.connect(this.monitor).connect(context.destination);
    this.source.connect(this.capture);
    this.capture.port.onmessage = ({ data }) => {
      if ("began" in data) this.began = data.began;
      else this.told("input", data);
    };
    this.playback.port.onmessage = ({ data }) => this.told("output", data);
    context.onstatechange = () => context.state === "interrupted" && this.told("ended", "The system took the audio.");
    if (output) await this.setOutput(output);
    await context.resume();
  }

  /** The other ends of both worklets, for the stream's thread. */
  ports() {
    const found = {};
    for (const name of ["capture", "playback"]) {
      const { port1, port2 } = new MessageChannel();
      this[name].port.postMessage({ port: port1 }, [port1]);
      found[name] = port2;
    }
    return found;
  }

  get rate() {
    return this.context.sampleRate;
  }

  begin() {
    this.began = null;
    this.capture.port.postMessage({ begin: true });
  }

  /** Another input while running; the stream's clock goes on. Raises CannotRecord. */
  async setInput(device) {
    const stream = await openInput(device, { channelCount: { ideal: 1 }, latency: { ideal: 0 } });
    this.letGo();
    this.stream = stream;
    [this.track] = stream.getAudioTracks();
    this.track.addEventListener("ended", () => this.told("ended", "The input was disconnected."));
    try {
      this.source = this.context.createMediaStreamSource(stream);
    } catch (error) {
      throw new CannotRecord(`The input cannot be used: ${error.message}`);
    }
    if (this.capture) this.source.connect(this.capture);
  }

  letGo() {
    this.source?.disconnect();
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = this.source = null;
  }

  /** Where this browser lets pages choose. */
  static get choosesOutput() {
    return "setSinkId" in AudioContext.prototype;
  }

  /** "" is the system's own. Raises CannotRecord. */
  async setOutput(device) {
    if (!LiveAudio.choosesOutput || !this.context) return;
    try {
      await this.context.setSinkId(device);
    } catch (error) {
      throw new CannotRecord(`That output cannot be used: ${error.message}`);
    }
  }

  setVolume(volume) {
    this.monitor?.gain.setTargetAtTime(volume, this.context.currentTime, RAMP);
  }

  setReserve(seconds) {
    this.playback?.port.postMessage({ target: seconds });
  }

  /** What the browser says about the devices' own delay, in seconds. */
  get hardware() {
    const input = this.track?.getSettings().latency ?? 0;
    return input + (this.context?.outputLatency || this.context?.baseLatency || 0);
  }

  close() {
    for (const name of ["capture", "playback"]) {
      if (this[name]) this[name].port.onmessage = null;
      this[name]?.port.postMessage({ close: true });
      this[name] = null;
    }
    this.letGo();
    if (this.context) {
      this.context.onstatechange = null;
      this.context.close();
    }
    this.context = this.monitor = this.track = null;
  }
}
