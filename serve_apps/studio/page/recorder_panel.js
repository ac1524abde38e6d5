// The recorder's face: input, level with peak hold and clip light, time, stop.

import { announce, button, el, preference, replace } from "./dom.js";
import { CannotRecord, inputs, Recorder } from "./recorder.js";
import { clock, decibels, kilohertz, stamp } from "./units.js";

const HOLD = 1500; // milliseconds that a peak stays
const CLIP = 0.999;
const LOW_DB = -60;

export class RecorderPanel {
  /** `done(file)` gets the WAV file; `failed(text)` what went wrong. */
  constructor(root, toggle, { done, failed, limit }) {
    Object.assign(this, { root, toggle, done, failed, limit });
    this.recorder = new Recorder({
      heard: (block) => this.heard(block),
      ended: (why) => this.ended(why),
      get limit() {
        return limit();
      },
    });
    this.hold = { peak: 0, until: 0 };
    this.build();
  }

  build() {
    this.device = el("select", { "aria-label": "Input", on: { change: () => this.listen() } });
    this.channels = el(
      "select",
      { "aria-label": "Channels", on: { change: () => this.listen() } },
      el("option", { value: "1" }, "mono"),
      el("option", { value: "2" }, "stereo"),
    );
    this.bits = el(
      "select",
      { "aria-label": "Sample format", on: { change: () => preference.set("bits", Number(this.bits.value)) } },
      el("option", { value: "32" }, "32-bit float"),
      el("option", { value: "24" }, "24-bit"),
    );
    this.channels.value = String(preference.get("channels", 1));
    this.bits.value = String(preference.get("bits", 32));
    this.bar = el(
      "div",
      {
        class: "level",
        role: "meter",
        "aria-label": "Input level",
        "aria-valuemin": String(LOW_DB),
        "aria-valuemax": "0",
        "aria-valuenow": String(LOW_DB), // a meter must have a value before the first level comes
      },
      el("i"),
      el("u"),
    );
    this.clip = button({
      text: "CLIP",
      class: "clip",
      label: "Clip light, press to reset",
      press: () => this.clip.classList.remove("on"),
    });
    this.number = el("span", { class: "db" });
    this.time = el("output", { class: "time" }, clock(0, 1));
    this.go = button({ glyph: "record", text: "Start", class: "go", press: () => this.press() });
    this.cancel = button({ text: "Cancel", press: () => this.hide() });
    this.note = el("p", { class: "hint" });
    replace(
      this.root,
      el("div", { class: "row" }, this.device),
      el("div", { class: "row" }, this.channels, this.bits),
      el("div", { class: "row" }, this.bar, this.number, this.clip),
      el("div", { class: "row" }, this.time, el("span", { class: "gap" }), this.cancel, this.go),
      this.note,
    );
  }

  get shown() {
    return !this.root.hidden;
  }

  /** R: open and start, then stop. */
  async press() {
    if (this.recorder.recording) return this.finish();
    if (!this.shown && !(await this.show())) return;
    if (!this.recorder.open) return;
    this.recorder.start(Number(this.bits.value));
    this.startedAt = new Date();
    this.clip.classList.remove("on");
    this.root.classList.add("on");
    replace(this.go, el("span", {}, "Stop"));
    this.go.setAttribute("aria-label", "Stop recording");
    for (const choice of [this.device, this.channels, this.bits]) choice.disabled = true;
    announce("Recording");
  }

  /** Opens the panel with the meter running; false when there is nothing to record from. */
  async show() {
    this.root.hidden = false;
    this.toggle.setAttribute("aria-expanded", "true");
    const opened = await this.listen();
    if (opened) this.go.focus();
    return opened;
  }

  hide() {
    this.recorder.close();
    this.root.hidden = true;
    this.root.classList.remove("on");
    this.toggle.setAttribute("aria-expanded", "false");
    this.rest();
    this.toggle.focus();
  }

  async listen() {
    this.go.disabled = true;
    this.note.textContent = "Opening the input…";
    preference.set("channels", Number(this.channels.value));
    try {
      await this.recorder.listen(this.device.value || preference.get("device", ""), Number(this.channels.value));
    } catch (error) {
      if (!(error instanceof CannotRecord)) throw error;
      if (!this.device.value && preference.get("device", "")) {
        preference.set("device", ""); // the input of last time is gone
        return this.listen();
      }
      this.note.textContent = error.message;
      announce(error.message);
      return false;
    }
    const [track] = this.recorder.stream.getAudioTracks();
    const current = track.getSettings().deviceId ?? "";
    replace(
      this.device,
      (await inputs()).map(({ id, name }) => el("option", { value: id }, name)),
    );
    this.device.value = current;
    preference.set("device", current);
    const wide = this.recorder.channels === 1 ? "mono" : "stereo";
    this.note.textContent = `${kilohertz(this.recorder.rate)}, ${wide}, as the input gives it. Aim for peaks near −12 dB.`;
    this.go.disabled = false;
    return true;
  }

  heard({ peak, frames }) {
    const now = performance.now();
    if (peak >= this.hold.peak || now > this.hold.until) this.hold = { peak, until: now + HOLD };
    const share = (level) => Math.max(0, Math.min(1, 1 - (20 * Math.log10(Math.max(level, 1e-6))) / LOW_DB));
    this.bar.style.setProperty("--level", share(peak).toFixed(3));
    this.bar.style.setProperty("--hold", share(this.hold.peak).toFixed(3));
    const held = 20 * Math.log10(this.hold.peak);
    this.bar.setAttribute("aria-valuenow", String(Math.round(Math.max(LOW_DB, held))));
    this.bar.setAttribute("aria-valuetext", decibels(held));
    this.number.textContent = decibels(held);
    if (peak >= CLIP) this.clip.classList.add("on");
    if (this.recorder.recording) this.time.textContent = clock(frames / this.recorder.rate, 1);
  }

  async finish() {
    this.go.disabled = true;
    const blob = await this.recorder.stop();
    const name = `take ${stamp(this.startedAt)}.wav`;
    this.hide();
    if (blob) this.done(new File([blob], name, { type: "audio/wav" }));
    else this.failed("Nothing was captured. Check the input, then record again.");
  }

  ended(why) {
    announce(why);
    if (this.recorder.recording) this.finish();
    else {
      this.recorder.close();
      this.note.textContent = why;
      this.go.disabled = true;
    }
  }

  rest() {
    this.time.textContent = clock(0, 1);
    this.go.removeAttribute("aria-label");
    this.go.disabled = false;
    const fresh = button({ glyph: "record", text: "Start" });
    replace(this.go, ...fresh.childNodes);
    for (const choice of [this.device, this.channels, this.bits]) choice.disabled = false;
  }
}
