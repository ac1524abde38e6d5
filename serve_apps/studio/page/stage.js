// The lanes: ruler, both waveforms, spectrogram, piano roll; one view, one playhead, one loop over all of them.

import { Sheet } from "./canvas.js";
import { displayTools, RANGES } from "./display.js";
import { button, colour, el, preference, replace } from "./dom.js";
import { drawLine, drawRoll, noteRange } from "./melody.js";
import { listenToPointer } from "./pointer.js";
import { Axis, drawFrequencies, drawScale, Spectrogram } from "./spectrogram.js";
import { clamp, clock, decibels, noteName, pitchName } from "./units.js";
import { ticks } from "./view.js";
import { drawWaveform } from "./waveform.js";

const SLOTS = ["A", "B"];
const FINEST = 1.5; // most picture pixels to a CSS pixel of the spectrogram

export class Stage {
  /** `theme()` is "light" or "dark"; `open` and `record` are behind the buttons of the empty stage. */
  constructor(root, { transport, view, theme, open, record }) {
    Object.assign(this, { root, transport, view, theme, open, record });
    this.axis = new Axis(preference.get("top", 12_000), preference.get("log", true));
    this.floor = clamp(preference.get("floor", 1), 0, RANGES.length - 1);
    this.overlay = preference.get("overlay", true);
    this.spectrogram = new Spectrogram((slot) => slot === this.slot && this.sheets.spectrum.refresh());
    this.cursor = null;
    this.range = null;
    this.build();
    view.addEventListener("change", () => this.refresh());
    transport.addEventListener("change", ({ detail }) => this.follow(detail));
    const tick = () => {
      this.frame();
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  /** What the spectrogram shows: the clip that is heard. */
  get slot() {
    return this.transport.heard;
  }

  build() {
    const lane = (name, label, draw) => {
      const canvas = el("canvas", { class: `lane ${name}`, role: "img", "aria-label": label });
      this.sheets[name] = new Sheet(canvas, draw);
      this.canvases[name] = canvas;
      return canvas;
    };
    this.sheets = {};
    this.canvases = {};
    const wave = (slot) => (context, width, height) =>
      drawWaveform(context, width, height, {
        clip: this.transport.clips[slot],
        view: this.view,
        ink: colour(slot.toLowerCase()),
        heard: slot === this.slot,
        top: this.top,
      });
    this.over = el("canvas", { class: "over", "aria-hidden": "true" });
    this.sheets.over = new Sheet(this.over, (context, width, height) => this.drawOver(context, width, height));
    this.empty = el(
      "div",
      { class: "empty" },
      el("p", { class: "big" }, "Drop a take anywhere"),
      el("p", {}, "WAV, FLAC, AIFF, MP3, Opus, M4A. Several at once become a batch. Pasting works, too."),
      el(
        "div",
        { class: "group" },
        button({ glyph: "open", text: "Open files", press: () => this.open() }),
        button({ glyph: "record", text: "Record", press: () => this.record() }),
      ),
    );
    this.surface = el(
      "div",
      { class: "surface" },
      lane("ruler", "Time", (context, width, height) => this.drawRuler(context, width, height)),
      lane("wave a", "Waveform of A", wave("A")),
      lane("wave b", "Waveform of B", wave("B")),
      lane("spectrum", "Spectrogram", (context, width, height) => this.drawSpectrum(context, width, height)),
      lane("roll", "Melodies of A and B", (context, width, height) => this.drawMelodies(context, width, height)),
      this.over,
      this.empty,
    );
    this.readout = el("p", { class: "readout", "aria-hidden": "true" });
    replace(this.root, displayTools(this), this.surface, this.readout);
    listenToPointer(this);
  }

  setAxis(top, logarithmic) {
    this.axis = new Axis(top, logarithmic);
    preference.set("top", top);
    preference.set("log", logarithmic);
    this.sheets.spectrum.refresh();
  }

  /** Zooming keeps the playhead's place, when it is in sight. */
  get anchor() {
    const place = this.transport.position;
    return place >= this.view.start && place <= this.view.end ? place : undefined;
  }

  follow(what) {
    if (what === "clips") {
      const { clips, seconds } = this.transport;
      this.view.setSeconds(seconds);
      this.range = noteRange([clips.A?.melody, clips.B?.melody]);
      this.empty.hidden = this.transport.ready;
      this.describe();
    }
    if (what === "clips" || what === "heard") this.refresh();
    this.sheets.over.refresh();
  }

  /** Melodies arrive after the audio. */
  melodyChanged() {
    this.follow("clips");
  }

  /** Full height of both waveforms: the larger peak, so that they can be compared by eye. */
  get top() {
    const { A, B } = this.transport.clips;
    return Math.max(0.01, A?.peak ?? 0, B?.peak ?? 0);
  }

  describe() {
    for (const slot of SLOTS) {
      const clip = this.transport.clips[slot];
      const label = clip
        ? `Waveform of ${slot}: ${clip.seconds.toFixed(1)} s, ${decibels(clip.lufs, "LUFS")}, peak ${decibels(20 * Math.log10(clip.peak), "dBFS")}`
        : `Waveform of ${slot}: empty`;
      this.canvases[`wave ${slot.toLowerCase()}`].setAttribute("aria-label", label);
    }
    const notes = this.range && `from ${noteName(this.range[0])} to ${noteName(this.range[1])}`;
    this.canvases.roll.setAttribute(
      "aria-label",
      notes ? `Melodies of A and B, ${notes}` : "Melodies of A and B: not known yet",
    );
  }

  refresh() {
    for (const sheet of Object.values(this.sheets)) sheet.refresh();
  }

  frame() {
    const { transport } = this;
    if (!transport.playing) return;
    this.view.follow(transport.position);
    this.sheets.over.paint();
  }

  // Drawing

  drawRuler(context, width, height) {
    const { step, times } = ticks(this.view, width);
    const digits = step < 0.1 ? 2 : step < 1 ? 1 : 0;
    context.font = "10px system-ui, sans-serif";
    context.textBaseline = "middle";
    for (const time of times) {
      const x = Math.round(this.view.x(time, width)) + 0.5;
      context.fillStyle = colour("line");
      context.fillRect(x, height - 6, 1, 6);
      context.fillStyle = colour("muted");
      const text = clock(time, digits);
      const room = context.measureText(text).width;
      if (x + 4 + room < width) context.fillText(text, x + 4, height / 2);
    }
  }

  drawSpectrum(context, width, height) {
    const { clips } = this.transport;
    const theme = this.theme();
    const fine = Math.min(this.sheets.spectrum.ratio, FINEST);
    for (const slot of SLOTS) {
      const size = [Math.round(width * fine), Math.round(height * fine)];
      this.spectrogram.update(slot, clips[slot], this.view, this.axis, ...size);
    }
    const range = RANGES[this.floor];
    this.spectrogram.draw(context, width, height, {
      slot: this.slot,
      clip: clips[this.slot],
      view: this.view,
      range,
      theme,
    });
    if (!this.transport.ready) return;
    drawFrequencies(context, width, height, this.axis);
    if (this.overlay) {
      const y = (frequency) => height * (1 - this.axis.share(frequency));
      for (const slot of this.order) {
        const ink = colour(`${slot.toLowerCase()}-line`);
        drawLine(context, width, this.view, clips[slot]?.melody, ink, y, slot === this.slot);
      }
    }
    drawScale(context, width, { slot: this.slot, range, theme });
  }

  drawMelodies(context, width, height) {
    const melodies = SLOTS.map((slot) => ({
      melody: this.transport.clips[slot]?.melody,
      ink: colour(`${slot.toLowerCase()}-line`),
      heard: slot === this.slot,
    }));
    drawRoll(context, width, height, { view: this.view, melodies, range: this.range });
    if (this.transport.ready && !this.range) {
      context.font = "12px system-ui, sans-serif";
      context.fillStyle = colour("muted");
      context.textAlign = "center";
      context.textBaseline = "middle";
      context.fillText("The melodies are drawn when the take has been converted.", width / 2, height / 2);
      context.textAlign = "start";
    }
  }

  /** The clip that is heard is drawn last. */
  get order() {
    return this.slot === "A" ? ["B", "A"] : ["A", "B"];
  }

  drawOver(context, width, height) {
    const { transport, view } = this;
    if (!transport.ready) return this.read(null);
    const loop = this.dragged ?? transport.loop;
    if (loop) {
      const [left, right] = [view.x(loop.start, width), view.x(loop.end, width)];
      context.fillStyle = colour(transport.looping || this.dragged ? "loop" : "loop-off");
      context.fillRect(left, 0, right - left, height);
      context.fillStyle = colour("loop-edge");
      context.fillRect(left, 0, 1, height);
      context.fillRect(right, 0, 1, height);
    }
    if (this.cursor !== null) {
      context.fillStyle = colour("cursor");
      context.fillRect(Math.round(view.x(this.cursor.time, width)), 0, 1, height);
    }
    const x = Math.round(view.x(transport.position, width));
    context.fillStyle = colour("playhead");
    context.fillRect(x - 0.5, 0, 2, height);
    context.beginPath();
    context.moveTo(x - 5, 0);
    context.lineTo(x + 6, 0);
    context.lineTo(x + 0.5, 7);
    context.fill();
    this.read(this.cursor?.time ?? transport.position);
  }

  /** Numbers at the mouse, or at the playhead. */
  read(time) {
    if (time === null) {
      this.readout.textContent = "";
      return;
    }
    const parts = [clock(time)];
    for (const slot of SLOTS) {
      const frequency = this.transport.clips[slot]?.pitchAt(time);
      if (frequency > 0) parts.push(`${slot} ${frequency.toFixed(1)} Hz ${pitchName(frequency)}`);
    }
    if (this.cursor?.frequency) parts.push(`cursor ${Math.round(this.cursor.frequency)} Hz`);
    const text = parts.join("   ");
    if (this.readout.textContent !== text) this.readout.textContent = text;
  }
}
