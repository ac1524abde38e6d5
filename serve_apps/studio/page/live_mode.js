// Take or live: which of the two the page shows, and what a stream has to do with the rest of it.

import { announce, byId } from "./dom.js";
import { LivePanel } from "./live_panel.js";
import { LiveRun } from "./live_run.js";
import { stamp } from "./units.js";

const GATHER = 60; // milliseconds in which changes of settings are sent as one

export class LiveMode {
  constructor({ api, voices, settings, session, limits }) {
    Object.assign(this, { voices, settings, run: new LiveRun() });
    this.desk = byId("desk");
    this.buttons = document.querySelectorAll(".modes button");
    for (const button of this.buttons) {
      button.addEventListener("click", () => {
        const live = button.dataset.mode === "live";
        this.show(live);
        if (["stage", "live"].includes(this.desk.dataset.pane)) this.desk.dataset.pane = live ? "live" : "stage";
      });
    }
    this.panel = new LivePanel(byId("live-panel"), this.run, {
      wanted: () => this.wanted,
      key: () => api.key,
      newKey: () => api.newKey(api.key),
      limit: () => limits.take_seconds ?? 3600,
      kept: (recording) => {
        const name = `live ${stamp(recording.at)}.wav`;
        const file = new File([recording.dry], name, { type: "audio/wav" });
        session.addLive({ ...recording, name, dry: file });
        announce(`${name} added`);
      },
    });
    const changed = () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.run.change(this.wanted), GATHER);
    };
    voices.addEventListener("change", changed);
    settings.addEventListener("change", changed);
    this.run.addEventListener("change", ({ detail }) => detail === "phase" && this.mark());
    window.addEventListener("pagehide", () => this.run.stop());
  }

  /** What a stream is to be like, by the form. */
  get wanted() {
    return { voice: this.voices.chosen?.name ?? "", settings: this.settings.stream };
  }

  get shown() {
    return this.desk.dataset.mode === "live";
  }

  show(live) {
    if (live === this.shown) return;
    this.desk.dataset.mode = live ? "live" : "take";
    for (const button of this.buttons)
      button.setAttribute("aria-pressed", String((button.dataset.mode === "live") === live));
    this.settings.setLive(live);
  }

  /** A stream that runs is seen from everywhere. */
  mark() {
    for (const node of document.querySelectorAll("#mode-live, .tabs [data-pane=live]")) {
      node.classList.toggle("running", this.run.running);
    }
  }

  get keys() {
    return {
      shown: () => this.shown,
      toggle: () => this.panel.toggle(),
      mute: () => this.panel.mute(),
      record: () => this.panel.keep(),
      hold: () => this.panel.hold.press(),
      release: () => this.panel.hold.release(),
    };
  }
}
