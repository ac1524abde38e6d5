// WAV files (RIFF, WAVE_FORMAT_EXTENSIBLE is not needed for mono and stereo): 32-bit float or 24-bit integers.

const FORMATS = { 32: { tag: 3, bytes: 4 }, 24: { tag: 1, bytes: 3 } };

/** Turns blocks of interleaved float samples into the bytes of one WAV file, block by block. */
export class WavWriter {
  /** `bits`: 32 is float, as captured; 24 is integer with triangular dither. */
  constructor(rate, channels, bits) {
    Object.assign(this, { rate, channels, bits, parts: [], bytes: 0 });
  }

  push(samples) {
    const data = this.bits === 32 ? samples : pack24(samples);
    this.parts.push(data);
    this.bytes += data.byteLength;
  }

  get frames() {
    return this.bytes / (this.channels * FORMATS[this.bits].bytes);
  }

  /** The whole file; nothing is copied. */
  blob() {
    const pad = this.bytes % 2 ? [new Uint8Array(1)] : [];
    return new Blob([this.header(), ...this.parts, ...pad], { type: "audio/wav" });
  }

  header() {
    const { tag, bytes } = FORMATS[this.bits];
    const isFloat = tag === 3;
    // Float WAV files have an 18-byte "fmt " and a "fact" chunk.
    const size = isFloat ? 58 : 44;
    const view = new DataView(new ArrayBuffer(size));
    let at = 0;
    const text = (word) => [...word].forEach((letter) => view.setUint8(at++, letter.charCodeAt(0)));
    const word = (value) => (view.setUint16(at, value, true), (at += 2));
    const long = (value) => (view.setUint32(at, value, true), (at += 4));
    text("RIFF");
    long(size - 8 + this.bytes + (this.bytes % 2));
    text("WAVEfmt ");
    long(isFloat ? 18 : 16);
    word(tag);
    word(this.channels);
    long(this.rate);
    long(this.rate * this.channels * bytes);
    word(this.channels * bytes);
    word(8 * bytes);
    if (isFloat) {
      word(0);
      text("fact");
      long(4);
      long(this.frames);
    }
    text("data");
    long(this.bytes);
    return view.buffer;
  }
}

function pack24(samples) {
  const out = new Uint8Array(3 * samples.length);
  for (let n = 0; n < samples.length; n++) {
    const dither = Math.random() - Math.random();
    const value = Math.max(-8388608, Math.min(8388607, Math.round(samples[n] * 8388607 + dither)));
    out[3 * n] = value & 255;
    out[3 * n + 1] = (value >> 8) & 255;
    out[3 * n + 2] = (value >> 16) & 255;
  }
  return out;
}
