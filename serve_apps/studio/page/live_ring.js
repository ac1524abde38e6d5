// The play-out buffer: takes blocks when they come, gives samples when they are needed. It holds a stated reserve
// against jitter and comes back to it by playing at most 0.1 % faster or slower, which nobody hears.

const MOST_STRETCH = 0.001;
const FADE = 0.005; // seconds
const WINDOW = 1; // seconds over which the lowest level is taken
const DEAD = 0.002; // seconds beside the target that are left alone
const SKIP = 0.15; // seconds above the target that are left out at once
const AUTO = { first: 0.02, step: 0.01, most: 0.16, calm: 60, less: 0.005 };

export class PlayoutBuffer {
  /** `target`: seconds that are still held when the next block arrives; null finds it out from what runs dry. */
  constructor(rate, target = null) {
    this.rate = rate;
    this.data = new Float32Array(2 ** Math.ceil(Math.log2(4 * rate)));
    this.mask = this.data.length - 1;
    this.read = 0; // both count samples since the beginning
    this.write = 0;
    this.end = 0; // place in the stream of the sample that comes after the last written one
    this.largest = 0;
    this.fade = Math.round(FADE * rate);
    this.step = this.wanted = 1;
    this.underruns = 0;
    this.skipped = 0;
    this.last = 0; // what sounded last, for an end without a click
    this.state = "empty"; // then "waiting" until the reserve has come about, then "playing"
    this.wait = 0;
    this.rise = 0;
    this.jump = null;
    this.lowest = Infinity;
    this.counted = 0;
    this.valley = 0;
    this.setTarget(target);
  }

  setTarget(seconds) {
    this.auto = seconds === null;
    this.target = Math.round((this.auto ? AUTO.first : seconds) * this.rate);
    this.calm = 0;
  }

  get held() {
    return this.write - this.read;
  }

  /** The place in the stream that sounds now, in samples. */
  get position() {
    return this.end - this.held;
  }

  push(samples, position) {
    const { data, mask, write } = this;
    for (let n = 0; n < samples.length; n++) data[(write + n) & mask] = samples[n];
    this.write += samples.length;
    this.end = position + samples.length;
    this.largest = Math.max(this.largest, samples.length);
    const room = data.length - this.rate;
    if (this.held > room) {
      this.skipped += this.held - this.rate;
      this.read = this.write - this.rate;
      this.rise = 0;
    }
  }

  /** Fills `out` with the next samples. */
  pull(out) {
    if (this.state === "empty" && this.held >= 1) {
      this.state = "waiting";
      this.wait = this.target;
    }
    if (this.state === "playing") this.catchUp(this.target + 2 * this.largest + SKIP * this.rate, this.largest);
    for (let n = 0; n < out.length; n++) out[n] = this.next();
    if (this.state === "playing") this.lowest = Math.min(this.lowest, this.held);
    this.counted += out.length;
    if (this.counted >= WINDOW * this.rate) this.regulate();
  }

  next() {
    if (this.state === "waiting" && this.wait-- <= 0) {
      this.state = "playing";
      this.rise = 0;
      this.lowest = Infinity;
      this.counted = 0;
    }
    // Between two samples the cubic needs two more; a whole place needs its own only.
    const exact = this.step === 1;
    if (this.state === "playing" && this.held < (exact ? 1 : 3)) this.runDry();
    if (this.state !== "playing") return (this.last *= 1 - 4 / this.fade);
    let value = exact ? this.data[this.read & this.mask] : this.between(this.read);
    if (this.jump) {
      const share = this.jump.left / this.fade;
      value = (1 - share) * value + share * this.between(this.read - this.jump.by);
      this.jump.left -= 1;
      if (this.jump.left <= 0) this.jump = null;
    }
    if (this.rise < this.fade) value *= this.rise++ / this.fade;
    this.read += this.step;
    if (this.wanted === 1 && !exact && Math.abs(this.read - Math.round(this.read)) <= MOST_STRETCH) {
      this.read = Math.round(this.read); // back on whole samples, where nothing is interpolated
      this.step = 1;
    }
    return (this.last = value);
  }

  /** Cubic (Catmull-Rom) interpolation. */
  between(place) {
    const { data, mask } = this;
    const at = Math.floor(place);
    const t = place - at;
    const [a, b, c, d] = [data[(at - 1) & mask], data[at & mask], data[(at + 1) & mask], data[(at + 2) & mask]];
    return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)));
  }

  runDry() {
    this.underruns += 1;
    this.state = "empty";
    this.read = this.write;
    this.step = this.wanted = 1;
    this.jump = null;
    if (this.auto) this.target = Math.min(AUTO.most * this.rate, this.target + AUTO.step * this.rate);
    this.calm = 0;
  }

  /** Leaves out what is held above `most`, so that `target` and `more` samples stay. */
  catchUp(most, more) {
    if (this.held <= most) return;
    const by = Math.round(this.held - this.target - more);
    this.skipped += by;
    this.read += by;
    this.jump = { by, left: this.fade };
  }

  /** Once a window: the lowest level decides how fast is played. */
  regulate() {
    if (Number.isFinite(this.lowest)) {
      this.valley = this.lowest;
      const error = (this.valley - this.target) / this.rate;
      if (error > SKIP) this.catchUp(0, this.held - this.valley);
      const share = Math.max(-1, Math.min(1, error / 0.01));
      this.wanted = Math.abs(error) < DEAD || error > SKIP ? 1 : 1 + MOST_STRETCH * share;
      if (this.wanted !== 1) this.step = this.wanted;
      this.calm += this.counted / this.rate;
      if (this.auto && this.calm > AUTO.calm) {
        this.target = Math.max(AUTO.first * this.rate, this.target - AUTO.less * this.rate);
        this.calm = 0;
      }
    }
    this.lowest = Infinity;
    this.counted = 0;
  }
}
