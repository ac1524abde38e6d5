// How old is what the singer hears, and where that comes from.

const SMOOTH = 0.1; // share of a new measurement

export class Delay {
  constructor() {
    this.total = null;
  }

  /**
   * One measurement, all in samples of `rate`: `captured` and `played` are the places of the stream at the input and
   * at the output at one instant, `delay` what the server states. `hardware` and `trip` are seconds.
   */
  measure({ captured, played, delay, rate, block, trip, hardware }) {
    const inside = (captured - played + delay) / rate;
    this.total = this.total === null || Math.abs(inside - this.inside) > 0.25 ? inside : this.total;
    this.inside = inside;
    this.total += SMOOTH * (inside - this.total);
    const parts = { conversion: delay / rate, block: block / rate, trip: trip ?? 0, hardware };
    parts.reserve = Math.max(0, this.total - parts.conversion - parts.block - parts.trip);
    return { total: this.total + hardware, parts };
  }
}
