// Cuts the input into blocks of one length. What is missing from the input is silence: the stream's clock goes on.

const METERED = 0.04; // seconds

class LiveCapture extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    this.block = new Float32Array(processorOptions.block);
    this.filled = 0;
    this.position = 0;
    this.out = null; // the port that gets the blocks
    this.running = this.began = false;
    this.on = true;
    this.peak = this.squares = this.metered = 0;
    this.port.onmessage = ({ data }) => {
      if (data.port) this.out = data.port;
      if (data.begin) this.begin();
      if (data.end) this.running = false;
      if (data.close) this.on = false;
    };
  }

  begin() {
    this.running = true;
    this.began = false;
    this.filled = this.position = 0;
  }

  process([[input]]) {
    const frames = input?.length ?? 128;
    if (this.running && !this.began) {
      this.began = true;
      this.port.postMessage({ began: currentFrame });
    }
    for (let n = 0; n < frames; n++) {
      const sample = input ? input[n] : 0;
      this.peak = Math.max(this.peak, Math.abs(sample));
      this.squares += sample * sample;
      if (!this.running) continue;
      this.block[this.filled++] = sample;
      if (this.filled === this.block.length) this.send();
    }
    this.metered += frames;
    if (this.metered >= METERED * sampleRate) {
      this.port.postMessage({ peak: this.peak, rms: Math.sqrt(this.squares / this.metered) });
      this.peak = this.squares = this.metered = 0;
    }
    return this.on;
  }

  send() {
    const samples = this.block.slice();
    this.out?.postMessage({ samples, position: this.position }, [samples.buffer]);
    this.position += this.filled;
    this.filled = 0;
  }
}

registerProcessor("live-capture", LiveCapture);
