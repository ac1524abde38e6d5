// Whether the server is there and ready, said in the header; asked again by itself while it is not.

import { byId } from "./dom.js";

const OFTEN = 3000;
const SELDOM = 60_000;

export class Server {
  /** `back()` is called when a server that was away answers again. */
  constructor(back) {
    this.back = back;
    this.lamp = byId("server");
    this.banner = byId("offline");
    this.state = "wait";
    window.addEventListener("offline", () => this.reached(false));
    window.addEventListener("online", () => this.check());
  }

  /** Every call to the API tells. */
  reached(yes) {
    if (!yes && this.state !== "away") {
      this.show("away", "no answer");
      this.banner.textContent = navigator.onLine
        ? "The server does not answer. It is asked again every few seconds; nothing here is lost."
        : "This computer is offline. Converting goes on when the network is back; nothing here is lost.";
      this.banner.hidden = false;
      this.later(OFTEN);
    }
    if (yes && this.state === "away") {
      this.banner.hidden = true;
      this.show("wait", "connecting");
      this.check().then(() => this.back());
    }
  }

  async check() {
    try {
      const response = await fetch("/readyz", { credentials: "omit" });
      this.reached(true);
      if (response.ok) {
        this.show("ready", "ready");
        return this.later(SELDOM);
      }
      this.show("wait", "getting ready");
      this.later(OFTEN);
    } catch {
      this.reached(false);
      this.later(OFTEN);
    }
  }

  later(milliseconds) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.check(), milliseconds);
  }

  show(state, text) {
    this.state = state;
    this.lamp.dataset.state = state;
    if (this.lamp.textContent !== text) this.lamp.textContent = text;
  }
}
