// A canvas that is sharp on every screen: its pixels are the screen's, its units CSS pixels.

export class Sheet {
  /** `draw(context, width, height)` in CSS pixels, called when the size changes and by `refresh`. */
  constructor(canvas, draw) {
    this.canvas = canvas;
    this.draw = draw;
    this.width = 0;
    this.height = 0;
    this.ratio = 1;
    this.waiting = false;
    new ResizeObserver(() => this.measure()).observe(canvas);
  }

  measure() {
    const { width, height } = this.canvas.getBoundingClientRect();
    this.ratio = Math.min(3, window.devicePixelRatio || 1);
    this.width = width;
    this.height = height;
    const [across, down] = [Math.round(width * this.ratio), Math.round(height * this.ratio)];
    if (this.canvas.width !== across || this.canvas.height !== down) {
      this.canvas.width = across;
      this.canvas.height = down;
    }
    this.paint();
  }

  /** Draw before the next frame, once however often it is asked. */
  refresh() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.paint();
    });
  }

  paint() {
    if (!this.width || !this.height) return;
    const context = this.canvas.getContext("2d");
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    this.draw(context, this.width, this.height);
  }
}

/** A colour map of 256 RGBA words through stops [level 0..1, "#rrggbb"]. */
export function colourMap(stops) {
  const table = new Uint32Array(256);
  const channel = (hex, at) => parseInt(hex.slice(1 + 2 * at, 3 + 2 * at), 16);
  for (let level = 0; level < 256; level++) {
    const place = level / 255;
    let at = stops.findIndex(([edge]) => edge >= place);
    at = Math.max(1, at);
    const [[from, low], [to, high]] = [stops[at - 1], stops[at]];
    const share = (place - from) / (to - from);
    const mix = [0, 1, 2].map((k) => Math.round(channel(low, k) * (1 - share) + channel(high, k) * share));
    table[level] = (255 << 24) | (mix[2] << 16) | (mix[1] << 8) | mix[0];
  }
  return table;
}
