// Integrated loudness of a mono signal, ITU-R BS.1770-4: K weighting, 400 ms blocks, gates at -70 LUFS and -10 LU.

/** The two filters of the K weighting for any rate, by the bilinear transform. */
function weighting(rate) {
  const shelf = (() => {
    const k = Math.tan((Math.PI * 1681.974450955533) / rate);
    const high = 10 ** (3.999843853973347 / 20);
    const band = high ** 0.4996667741545416;
    const q = 0.7071752369554196;
    const a0 = 1 + k / q + k * k;
    return {
      b: [(high + (band * k) / q + k * k) / a0, (2 * (k * k - high)) / a0, (high - (band * k) / q + k * k) / a0],
      a: [(2 * (k * k - 1)) / a0, (1 - k / q + k * k) / a0],
    };
  })();
  const rumble = (() => {
    const k = Math.tan((Math.PI * 38.13547087602444) / rate);
    const q = 0.5003270373238773;
    const a0 = 1 + k / q + k * k;
    return { b: [1, -2, 1], a: [(2 * (k * k - 1)) / a0, (1 - k / q + k * k) / a0] };
  })();
  return [shelf, rumble];
}

/** LUFS of mono samples; -Infinity for silence. Takes shorter than a block are measured whole. */
export function loudness(samples, rate) {
  const [shelf, rumble] = weighting(rate);
  const step = Math.round(rate / 10);
  const steps = [];
  let [x1, x2, y1, y2, z1, z2] = [0, 0, 0, 0, 0, 0];
  let sum = 0;
  for (let n = 0; n < samples.length; n++) {
    const x = samples[n];
    const y = shelf.b[0] * x + shelf.b[1] * x1 + shelf.b[2] * x2 - shelf.a[0] * y1 - shelf.a[1] * y2;
    const z = y - 2 * y1 + y2 - rumble.a[0] * z1 - rumble.a[1] * z2;
    [x2, x1, y2, y1, z2, z1] = [x1, x, y1, y, z1, z];
    sum += z * z;
    if ((n + 1) % step === 0) {
      steps.push(sum / step);
      sum = 0;
    }
  }
  if (steps.length < 4) {
    const rest = (steps.reduce((total, power) => total + power * step, 0) + sum) / Math.max(1, samples.length);
    return lufs(rest);
  }
  const blocks = steps.slice(3).map((power, i) => (steps[i] + steps[i + 1] + steps[i + 2] + power) / 4);
  const loud = blocks.filter((power) => lufs(power) > -70);
  if (!loud.length) return -Infinity;
  const gate = lufs(mean(loud)) - 10;
  return lufs(mean(loud.filter((power) => lufs(power) > gate)));
}

const mean = (values) => values.reduce((total, value) => total + value, 0) / values.length;
const lufs = (power) => -0.691 + 10 * Math.log10(power);
