// Hands the captured samples over as they are, interleaved, in blocks of 4096 frames, with the peak of each.

class Capture extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    this.channels = processorOptions.channels;
    this.block = new Float32Array(4096 * this.channels);
    this.filled = 0;
    this.on = true;
    this.port.onmessage = () => {
      this.send();
      this.on = false;
      this.port.postMessage({ last: true });
    };
  }

  process([input]) {
    if (!this.on) return false;
    if (!input.length) return true;
    for (let n = 0; n < input[0].length; n++) {
      for (let channel = 0; channel < this.channels; channel++) {
        this.block[this.filled++] = (input[channel] ?? input[0])[n];
      }
      if (this.filled === this.block.length) this.send();
    }
    return true;
  }

  send() {
    const samples = this.block.slice(0, this.filled);
    let peak = 0;
    for (const sample of samples) peak = Math.max(peak, Math.abs(sample));
    this.filled = 0;
    this.port.postMessage({ samples, peak }, [samples.buffer]);
  }
}

registerProcessor("capture", Capture);
