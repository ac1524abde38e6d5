// Fast Fourier transform (Cooley-Tukey, radix 2, in place) of real signals, and its windows.

export class Fft {
  /** `size` is a power of two. */
  constructor(size) {
    this.size = size;
    this.cos = new Float64Array(size / 2);
    this.sin = new Float64Array(size / 2);
    for (let k = 0; k < size / 2; k++) {
      this.cos[k] = Math.cos((2 * Math.PI * k) / size);
      this.sin[k] = Math.sin((2 * Math.PI * k) / size);
    }
    this.order = new Uint32Array(size);
    const bits = Math.log2(size);
    for (let i = 0; i < size; i++) {
      let reversed = 0;
      for (let bit = 0; bit < bits; bit++) if (i & (1 << bit)) reversed |= 1 << (bits - 1 - bit);
      this.order[i] = reversed;
    }
    this.re = new Float64Array(size);
    this.im = new Float64Array(size);
    // Hann, scaled so that a full-scale sine reads 0 dB: the window's mean is 1/2, a sine's line is half its height.
    this.window = Float64Array.from({ length: size }, (_, n) => (2 / size) * (1 - Math.cos((2 * Math.PI * n) / size)));
  }

  /** Power of the bins 0..size/2 of `size` samples of `signal` around `centre`; silence lies outside the signal. */
  power(signal, centre, out) {
    const { size, re, im, order, window } = this;
    const start = Math.round(centre) - size / 2;
    for (let i = 0; i < size; i++) {
      const n = order[i];
      const at = start + n;
      re[i] = at >= 0 && at < signal.length ? signal[at] * window[n] : 0;
      im[i] = 0;
    }
    this.transform();
    for (let k = 0; k <= size / 2; k++) out[k] = re[k] * re[k] + im[k] * im[k];
    return out;
  }

  transform() {
    const { size, re, im, cos, sin } = this;
    for (let half = 1; half < size; half *= 2) {
      const stride = size / (2 * half);
      for (let start = 0; start < size; start += 2 * half) {
        for (let k = 0; k < half; k++) {
          const c = cos[k * stride];
          const s = -sin[k * stride];
          const low = start + k;
          const high = low + half;
          const r = re[high] * c - im[high] * s;
          const i = re[high] * s + im[high] * c;
          re[high] = re[low] - r;
          im[high] = im[low] - i;
          re[low] += r;
          im[low] += i;
        }
      }
    }
  }
}
