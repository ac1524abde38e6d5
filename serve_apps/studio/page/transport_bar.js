// The transport's buttons and numbers, and what A and B are.

import { button, el, icon, preference, replace } from "./dom.js";
import { clock, decibels, kilohertz, signed, spoken } from "./units.js";

const SLOTS = ["A", "B"];

export class TransportBar {
  constructor(root, slotsRoot, { transport, session }) {
    Object.assign(this, { root, slotsRoot, transport, session });
    transport.setVolume(preference.get("volume", 1));
    transport.setMatched(preference.get("matched", false));
    this.build();
    transport.addEventListener("change", ({ detail }) => this.follow(detail));
    session.addEventListener("change", () => this.showSlots());
    const tick = () => {
      if (transport.playing) this.showTime();
      this.showMeter();
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
    this.follow("clips");
  }

  build() {
    const { transport } = this;
    this.back = button({ glyph: "start", label: "Back to the start (Home)", press: () => transport.seek(0) });
    this.play = button({ glyph: "play", label: "Play (Space)", class: "icon play", press: () => transport.toggle() });
    this.ab = el(
      "div",
      { class: "ab", role: "group", "aria-label": "Heard" },
      SLOTS.map((slot) =>
        el(
          "button",
          {
            type: "button",
            class: slot.toLowerCase(),
            "aria-pressed": "false",
            "aria-label": `Hear ${slot}`,
            title: `Hear ${slot} (${slot}); X switches`,
            data: { slot },
            on: { click: () => transport.hear(slot) },
          },
          slot,
        ),
      ),
    );
    this.loop = button({ glyph: "loop", label: "Loop (L)", "aria-pressed": "false", press: () => this.toggleLoop() });
    this.match = button({
      glyph: "match",
      text: "Match",
      title: "Same loudness for A and B (M)",
      "aria-pressed": "false",
      press: () => this.toggleMatch(),
    });
    this.time = el("output", { class: "time" }, clock(0));
    this.total = el("span", { class: "total" });
    this.seek = el("input", {
      type: "range",
      class: "seek",
      min: "0",
      max: "1",
      step: "0.001",
      value: "0",
      "aria-label": "Place in the take",
      on: { input: () => transport.seek(Number(this.seek.value)) },
    });
    this.volume = el("input", {
      type: "range",
      min: "0",
      max: "1",
      step: "0.01",
      value: String(Math.sqrt(transport.volume)),
      "aria-label": "Volume",
      title: "Volume",
      on: { input: () => this.setVolume(Number(this.volume.value) ** 2) },
    });
    this.meter = el("div", { class: "out-meter", "aria-hidden": "true" }, el("i"));
    replace(
      this.root,
      el("div", { class: "group" }, this.back, this.play),
      this.ab,
      el("div", { class: "group" }, this.loop, this.match),
      el("div", { class: "clock" }, this.time, this.total),
      this.seek,
      el("label", { class: "volume" }, icon("volume"), this.volume, this.meter),
    );
  }

  setVolume(volume) {
    this.transport.setVolume(volume);
    preference.set("volume", volume);
  }

  toggleLoop() {
    this.transport.setLoop(this.transport.loop, !this.transport.looping);
  }

  toggleMatch() {
    this.transport.setMatched(!this.transport.matched);
    preference.set("matched", this.transport.matched);
  }

  follow(what) {
    const { transport } = this;
    const { ready } = transport;
    for (const control of [this.back, this.play, this.loop, this.seek]) control.disabled = !ready;
    this.match.disabled = !(transport.clips.A && transport.clips.B);
    this.play.setAttribute("aria-label", transport.playing ? "Pause (Space)" : "Play (Space)");
    this.play.title = this.play.getAttribute("aria-label");
    replace(this.play, icon(transport.playing ? "pause" : "play"));
    this.loop.setAttribute("aria-pressed", String(transport.looping));
    this.match.setAttribute("aria-pressed", String(transport.matched));
    for (const choice of this.ab.children) {
      const { slot } = choice.dataset;
      choice.setAttribute("aria-pressed", String(ready && transport.heard === slot));
      choice.disabled = !transport.clips[slot];
    }
    this.volume.setAttribute("aria-valuetext", decibels(20 * Math.log10(transport.volume)));
    this.showTime();
    if (what !== "seek") this.showSlots();
  }

  showTime() {
    const { position, seconds } = this.transport;
    const text = clock(position);
    if (this.time.textContent !== text) this.time.textContent = text;
    const total = `/ ${clock(seconds)}`;
    if (this.total.textContent !== total) this.total.textContent = total;
    this.seek.max = String(seconds || 1);
    this.seek.value = String(position);
    this.seek.setAttribute("aria-valuetext", `${spoken(position)} of ${spoken(seconds)}`);
  }

  showMeter() {
    const peak = this.transport.outputPeak();
    this.shown = Math.max(peak, (this.shown ?? 0) * 0.93);
    const share = this.shown > 1e-3 ? 1 + (20 * Math.log10(this.shown)) / 60 : 0;
    this.meter.firstChild.style.setProperty("--level", Math.max(0, Math.min(1, share)).toFixed(3));
    this.meter.classList.toggle("over", peak >= 1);
  }

  showSlots() {
    replace(
      this.slotsRoot,
      SLOTS.map((slot) => this.slotCard(slot)),
    );
  }

  slotCard(slot) {
    const { transport, session } = this;
    const held = session.slots[slot];
    const clip = transport.clips[slot];
    const heard = transport.ready && transport.heard === slot;
    const name = !held
      ? slot === "A"
        ? "Nothing yet"
        : "The result comes here"
      : held.result
        ? resultName(held.result)
        : held.take.name;
    const kind = !held ? "" : held.result ? "result" : "source";
    const state = session.loading?.[slot];
    const facts = clip
      ? [
          clip.reduced ? `${kilohertz(clip.buffer.sampleRate)} copy` : null,
          decibels(clip.lufs, "LUFS"),
          `peak ${decibels(20 * Math.log10(clip.peak))}`,
          transport.matched && transport.trim(slot) < -0.05 ? `${signed(transport.trim(slot), 1)} dB matched` : null,
        ].filter(Boolean)
      : state
        ? [state]
        : [];
    return el(
      "div",
      { class: `slot ${slot.toLowerCase()}${heard ? " heard" : ""}` },
      el("b", { "aria-hidden": "true" }, slot),
      el(
        "div",
        {},
        el("p", { class: "name", title: name }, kind && el("span", { class: "kind" }, kind), " ", name),
        el("p", { class: "facts" }, facts.join(" · ")),
      ),
    );
  }
}

/** "bundle, key +3" */
export function resultName(result) {
  const job = result.job;
  if (!job) return `result ${result.number}`;
  const key = job.result?.key ?? job.settings?.key;
  return `${job.voice}${Number.isFinite(key) ? `, key ${signed(key, Number.isInteger(key) ? 0 : 2)}` : ""}`;
}
