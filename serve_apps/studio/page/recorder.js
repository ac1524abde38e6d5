// Capture from an input, untouched: no echo cancellation, noise suppression or gain control, no lossy codec.

import { WavWriter } from "./wav.js";

/** Why nothing can be recorded, in words that help. */
export class CannotRecord extends Error {}

const REASONS = {
  NotAllowedError: "The browser was not allowed to use the microphone. Allow it in the address bar, then try again.",
  NotFoundError: "No input was found. Connect a microphone or an interface, then try again.",
  NotReadableError:
    "The input is in use by another program, or its driver refused. Close the other program, then try again.",
  OverconstrainedError: "That input is gone. Choose another one.",
};

/** Inputs with their names; the names are there once the microphone was allowed. */
export const inputs = () => devicesOf("audioinput", "Input");

/** Outputs likewise; browsers that cannot choose one name none. */
export const outputs = () => devicesOf("audiooutput", "Output");

async function devicesOf(kind, word) {
  if (!navigator.mediaDevices) return [];
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices
    .filter((device) => device.kind === kind && device.deviceId)
    .map((device, at) => ({ id: device.deviceId, name: device.label || `${word} ${at + 1}` }));
}

/** An input as it is, without processing; `wishes` are further constraints. Raises CannotRecord. */
export async function openInput(device, wishes) {
  if (!navigator.mediaDevices) {
    throw new CannotRecord("Browsers record on https or on localhost only. Open the studio there, or add a file.");
  }
  const audio = {
    deviceId: device ? { exact: device } : undefined,
    echoCancellation: false,
    noiseSuppression: false,
    autoGainControl: false,
    ...wishes,
  };
  try {
    return await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    throw new CannotRecord(REASONS[error.name] ?? `The input cannot be used: ${error.message}`);
  }
}

export class Recorder {
  /** `heard({peak, frames})` comes with every block; `limit` seconds end the recording by themselves, `ended()` says so. */
  constructor({ heard, ended, limit }) {
    Object.assign(this, { heard, ended, limit });
    this.stream = null;
    this.writer = null;
  }

  get open() {
    return Boolean(this.stream);
  }

  get recording() {
    return Boolean(this.writer);
  }

  /** Listen to an input without keeping anything, for the level meter. Raises CannotRecord. */
  async listen(device, channels) {
    this.close();
    this.stream = await openInput(device, { channelCount: { ideal: channels }, sampleRate: { ideal: 48_000 } });
    const [track] = this.stream.getAudioTracks();
    track.addEventListener("ended", () => this.ended("The input was disconnected."));
    this.channels = Math.min(channels, track.getSettings().channelCount ?? channels);
    this.context = await contextOf(track, this.stream);
    await this.context.audioWorklet.addModule("/studio/recorder_worklet.js");
    this.input = this.context.createMediaStreamSource(this.stream);
    this.node = new AudioWorkletNode(this.context, "capture", {
      numberOfOutputs: 0,
      channelCount: this.channels,
      channelCountMode: "explicit",
      processorOptions: { channels: this.channels },
    });
    this.node.port.onmessage = ({ data }) => this.take(data);
    this.input.connect(this.node);
    await this.context.resume();
  }

  get rate() {
    return this.context?.sampleRate ?? 0;
  }

  start(bits) {
    this.writer = new WavWriter(this.rate, this.channels, bits);
  }

  take({ samples, peak, last }) {
    if (last) return this.finished?.();
    if (!samples.length) return;
    this.writer?.push(samples);
    this.heard({ peak, frames: this.writer?.frames ?? 0 });
    if (this.writer && this.writer.frames >= this.limit * this.rate)
      this.ended("The longest take that the server accepts was reached.");
  }

  /** The recording as a WAV file; null if nothing was captured. The input is let go. */
  async stop() {
    await new Promise((resolve) => {
      this.finished = resolve;
      this.node.port.postMessage("stop");
      setTimeout(resolve, 500);
    });
    const blob = this.writer?.frames ? this.writer.blob() : null;
    this.close();
    return blob;
  }

  close() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    if (this.node) this.node.port.onmessage = null;
    this.context?.close();
    this.stream = this.context = this.node = this.writer = null;
  }
}

/** A context at the input's own rate, so that nothing is resampled; some browsers insist on theirs. */
async function contextOf(track, stream) {
  const { sampleRate } = track.getSettings();
  if (sampleRate) {
    let context = null;
    try {
      context = new AudioContext({ sampleRate, latencyHint: "balanced" });
      context.createMediaStreamSource(stream).disconnect();
      return context;
    } catch {
      await context?.close();
    }
  }
  return new AudioContext({ latencyHint: "balanced" });
}
