// The live mode's face: devices, start and stop, meters, what is heard, the delay, how it goes.

import { notice } from "./dialogs.js";
import { announce, button, el, preference, replace } from "./dom.js";
import { LiveAudio } from "./live_audio.js";
import { LiveFacts } from "./live_facts.js";
import { holdButton } from "./live_hold.js";
import { Meter } from "./live_meter.js";
import { CannotRecord, inputs, outputs } from "./recorder.js";
import { clock } from "./units.js";

const BLOCKS = [20, 40, 100];
const RESERVES = ["auto", 10, 20, 40, 80, 160];
const LINES = 6; // of the log
const GRAVE = new Set(["error", "howl", "refused", "away"]);
const READ_EVERY = 5; // levels; numbers that change faster cannot be read
const MUTED =
  "Muted. Wear headphones before you switch this on: with loudspeakers the microphone hears the voice again, and it howls.";
const HEARD = "If it begins to howl, it is muted by itself.";

export class LivePanel {
  /** `wanted()`: {voice, settings}; `key()` asks for a key; `kept(files)` gets a recording; `limit()` in seconds. */
  constructor(root, run, { wanted, key, newKey, kept, limit }) {
    Object.assign(this, { root, run, wanted, key, newKey, kept, limit });
    this.facts = new LiveFacts();
    this.told = 0;
    this.meters = { input: new Meter("Input"), output: new Meter("Output") };
    this.build();
    run.addEventListener("change", ({ detail, facts }) => this.follow(detail, facts));
    navigator.mediaDevices?.addEventListener?.("devicechange", () => this.listDevices());
    this.phase();
    this.monitor();
  }

  build() {
    this.go = el("button", { type: "button", class: "go", id: "live-go", on: { click: () => this.toggle() } });
    this.state = el("p", { class: "state", role: "status" });
    this.input = this.choice("live-input", () => this.changed("input", this.input.value));
    this.output = this.choice("live-output", () => this.changed("output", this.output.value));
    this.block = this.choice("live-block", () => preference.set("live.block", Number(this.block.value)));
    this.reserve = this.choice("live-reserve", () => this.changed("reserve", this.reserve.value));
    replace(
      this.block,
      BLOCKS.map((value) => el("option", { value: String(value) }, `${value} ms`)),
    );
    replace(
      this.reserve,
      RESERVES.map((value) => el("option", { value: String(value) }, value === "auto" ? "automatic" : `${value} ms`)),
    );
    this.block.value = String(preference.get("live.block", 40));
    this.reserve.value = String(preference.get("live.reserve", "auto"));
    replace(this.input, el("option", { value: "" }, "the system's input"));
    replace(this.output, el("option", { value: "" }, "the system's output"));
    this.output.disabled = !LiveAudio.choosesOutput;
    this.hear = el("input", {
      type: "checkbox",
      role: "switch",
      id: "live-hear",
      "aria-describedby": "live-hear-why",
      on: { change: () => this.run.monitor(this.hear.checked) },
    });
    this.volume = el("input", {
      type: "range",
      min: "0",
      max: "1",
      step: "0.01",
      value: "1",
      "aria-label": "Volume of what you hear",
      on: { input: () => this.run.monitor(this.run.monitoring, Number(this.volume.value)) },
    });
    this.why = el("p", { class: "hint", id: "live-hear-why" });
    this.hold = holdButton({
      glyph: "swap",
      text: "Hold to hear yourself",
      title: "The take itself, equally late, as long as you hold (A)",
      held: (on) => this.run.bypass(on),
    });
    this.record = button({ glyph: "record", text: "Record", class: "record", press: () => this.keep() });
    this.time = el("output", { class: "time", hidden: true });
    this.log = el("div", { class: "log", role: "log", "aria-label": "What happened" });
    const field = (label, node, hint) =>
      el(
        "div",
        { class: "pair" },
        el("label", { for: node.id }, label),
        node,
        hint && el("p", { class: "hint" }, hint),
      );
    replace(
      this.root,
      el("div", { class: "live-head" }, el("div", {}, el("h2", { id: "live-title" }, "Live"), this.state), this.go),
      el(
        "div",
        { class: "live-body scroll" },
        el(
          "div",
          { class: "devices" },
          field("Input", this.input),
          field("Output", this.output, LiveAudio.choosesOutput ? "" : "This browser plays on the system's output."),
          field("Block", this.block),
          field("Reserve", this.reserve),
        ),
        el("div", { class: "meters" }, this.meters.input.node, this.meters.output.node),
        el(
          "div",
          { class: "monitor" },
          el("label", { class: "check", for: "live-hear" }, this.hear, "Hear it"),
          this.volume,
          this.why,
        ),
        el("div", { class: "row" }, this.hold.node, this.record, this.time),
        el("div", { class: "facts-of" }, this.facts.delayNode, this.facts.statsNode),
        this.log,
      ),
    );
  }

  choice(id, change) {
    return el("select", { id, on: { change } });
  }

  // Deeds

  toggle() {
    if (this.run.running) return this.run.stop();
    return this.start();
  }

  async start() {
    const wanted = this.wanted();
    if (!wanted.voice) return notice("There is no voice yet. Import one, then start.");
    const { value } = this.reserve;
    const devices = {
      input: this.input.value || preference.get("live.input", ""),
      output: this.output.value || preference.get("live.output", ""),
      block: Number(this.block.value) / 1000,
      reserve: value === "auto" ? null : Number(value) / 1000,
    };
    for (const meter of Object.values(this.meters)) meter.reset();
    try {
      await this.run.start(devices, wanted, this.key());
    } catch (error) {
      if (!(error instanceof CannotRecord)) throw error;
      if (!this.input.value && !this.output.value && (devices.input || devices.output)) {
        for (const kind of ["input", "output"]) preference.set(`live.${kind}`, ""); // those of last time are gone
        return this.start();
      }
      this.note(error.message, "error");
      return;
    }
    await this.listDevices();
  }

  /** Names of devices are known once the microphone was allowed. */
  async listDevices() {
    if (!this.run.audio?.track) return;
    const fill = (select, found, first) => {
      const before = select.value;
      replace(
        select,
        first,
        found.map(({ id, name }) => el("option", { value: id }, name)),
      );
      select.value = [...select.options].some(({ value }) => value === before)
        ? before
        : (select.options[0]?.value ?? "");
    };
    const current = this.run.audio.track.getSettings().deviceId ?? "";
    fill(this.input, await inputs());
    this.input.value = current;
    if (!LiveAudio.choosesOutput) return;
    fill(
      this.output,
      (await outputs()).filter(({ id }) => id !== "default"),
      el("option", { value: "" }, "the system's output"),
    );
    this.output.value = this.run.audio?.context?.sinkId ?? "";
  }

  changed(what, value) {
    const given = what === "reserve" ? (value === "auto" ? null : Number(value) / 1000) : value;
    preference.set(`live.${what}`, what === "reserve" && value !== "auto" ? Number(value) : value);
    return this.run.use({ [what]: given });
  }

  keep() {
    if (this.run.recordingSince) this.run.keepRecording();
    else if (this.run.phase === "live") {
      this.began = { ...this.wanted(), at: new Date() };
      this.run.record(this.limit());
    }
  }

  mute() {
    this.run.monitor(!this.run.monitoring);
    announce(this.run.monitoring ? "Heard" : "Muted");
  }

  // What is shown

  follow(detail, facts) {
    if (detail === "phase") this.phase();
    if (detail === "level") this.level(facts);
    if (detail === "facts" || detail === "stats") this.facts.show(this.run);
    if (detail === "notice") this.note(facts.text, facts.code);
    if (detail === "monitor") this.monitor();
    if (detail === "recording") this.recording();
    if (detail === "recorded") this.kept({ ...facts, ...this.began });
    if (detail === "key") this.askKey();
  }

  async askKey() {
    if (await this.newKey()) this.start();
  }

  phase() {
    const { phase, text, running } = this.run;
    this.go.textContent = running ? "Stop" : "Start";
    this.go.title = running ? "Stop (Space)" : "Start (Space)";
    this.go.classList.toggle("danger", running);
    this.go.disabled = phase === "ending";
    this.block.disabled = running;
    this.root.dataset.phase = phase;
    this.state.textContent = phase === "live" ? this.going : text || "Sing, and hear the voice at once.";
    this.hold.node.disabled = this.record.disabled = phase !== "live" && phase !== "away";
    if (running) return;
    this.hold.release();
    this.facts.clear();
    for (const meter of Object.values(this.meters)) meter.show({ peak: 0, rms: 0 });
  }

  get going() {
    return this.run.monitoring ? "Running. What you change is heard at once." : "Running, muted.";
  }

  level({ what, peak, rms }) {
    this.meters[what].show({ peak, rms });
    if (what !== "output" || (this.told = (this.told + 1) % READ_EVERY)) return;
    this.facts.showDelay(this.run.delay, this.run.started);
    if (this.run.started) this.facts.show(this.run);
    if (this.run.recordingSince) {
      this.time.textContent = clock((performance.now() - this.run.recordingSince) / 1000, 1);
    }
  }

  monitor() {
    this.hear.checked = this.run.monitoring;
    if (this.run.phase === "live") this.state.textContent = this.going;
    this.why.textContent = this.run.monitoring ? HEARD : MUTED;
  }

  recording() {
    const on = Boolean(this.run.recordingSince);
    this.record.lastChild.textContent = on ? "Stop recording" : "Record";
    this.record.classList.toggle("on", on);
    this.record.title = "What you sing and what you hear, into the list of takes (R)";
    this.time.hidden = !on;
    this.time.textContent = clock(0, 1);
    announce(on ? "Recording" : "Recording stopped");
  }

  /** A line of the log; what ends the stream is said in the page's own way, too. */
  note(text, code) {
    const at = new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
    this.log.prepend(el("p", { class: GRAVE.has(code) ? "bad" : undefined }, el("span", {}, at), text));
    while (this.log.children.length > LINES) this.log.lastChild.remove();
    if (code !== "error") return;
    notice(text, { action: this.run.running ? null : { text: "Try again", press: () => this.start() } });
  }
}
