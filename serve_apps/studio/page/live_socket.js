// One stream over WebSockets, as many as it takes: what the server may need again is kept, so that a dropped
// connection is resumed without a gap in the stream's clock.

import { closed, packAudio, unpackAudio, VERSION } from "./live_protocol.js";

const KEPT = 20; // seconds of input that are kept for resuming; a longer pause begins another stream
const GIVE_UP = 90; // seconds without a connection
const PAUSES = [0.1, 0.3, 1, 2, 4]; // seconds between attempts
const SILENT = 8; // seconds without a word, while the server should speak every second
const OPENING = 60; // seconds that making a voice ready may take
const PING = 2;
const [BEHIND, BEHIND_FOR] = [1.5, 6]; // so many seconds of input unsent for so long: the way there is too slow

export class LiveSocket {
  /** `tell(message)` hears what happens: {type: "state" | "audio" | the server's own types, ...}. */
  constructor(url, tell) {
    Object.assign(this, { url, tell });
    this.phase = "idle"; // connecting, live, away, ending, over
    this.socket = null;
    this.timers = {};
  }

  /** `wanted`: {voice, rate, block, settings, bypass}. */
  start(wanted, key = "") {
    Object.assign(this, { wanted, key, begun: false, attempt: 0, awaySince: null, resumes: 0, renewals: 0 });
    this.forget();
    this.connect();
  }

  forget() {
    this.session = this.secret = null;
    this.blocks = []; // [{seq, position, samples, at}], what the server may ask for again
    this.base = null; // the capture's position where the session's clock begins
    this.seq = 0; // of the next block
    this.sent = 0; // seq of the first block that was not sent on this connection
    this.received = -1;
    this.kept = -1;
    this.window = 0.5;
    this.behindSince = null;
    this.trips = [];
  }

  connect() {
    this.state(this.begun ? "away" : "connecting");
    this.error = null;
    const socket = new WebSocket(this.url);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onopen = () => this.greet();
    socket.onmessage = ({ data }) => socket === this.socket && this.heard(data);
    socket.onclose = ({ code, reason }) => socket === this.socket && this.lost(code, reason);
    this.heardAt = now();
    this.watch();
  }

  greet() {
    const { voice, rate, block, settings, bypass } = this.wanted;
    const key = this.key ? { key: this.key } : {};
    this.told = { ...this.wanted };
    if (this.session) {
      const { session, secret, received } = this;
      this.resumes += 1;
      return this.say({ type: "resume", version: VERSION, session, secret, received, ...key });
    }
    const format = { format: "f32", pace: "live" };
    this.say({ type: "start", version: VERSION, voice, rate, block, ...format, settings, bypass, ...key });
  }

  say(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  state(phase, facts = {}) {
    this.phase = phase;
    this.tell({ type: "state", phase, resumes: this.resumes, renewals: this.renewals, ...facts });
  }

  // What the page wants

  /** A block of the input; `position` counts samples of the capture. */
  feed(samples, position) {
    if (!["live", "away"].includes(this.phase)) return;
    if (this.phase === "away" && !this.session) return; // another stream begins where the connection is back
    this.base ??= position;
    this.blocks.push({ seq: this.seq++, position: position - this.base, samples, at: now() });
    const most = KEPT * this.wanted.rate;
    while (this.blocks.length && this.blocks.at(-1).position - this.blocks[0].position > most) this.blocks.shift();
    this.pump();
  }

  /** Sends what may be sent: never more unanswered than the server's window. */
  pump() {
    if (this.phase !== "live") return;
    const first = this.blocks[0]?.seq ?? this.seq;
    if (this.sent < first) return this.renew(); // what the server wants is no longer kept
    const most = this.window * this.wanted.rate;
    for (let at = this.sent - first; at < this.blocks.length; at++) {
      const block = this.blocks[at];
      const unanswered = this.blocks[Math.max(0, this.received + 1 - first)] ?? block;
      const waiting = block.position + block.samples.length - unanswered.position;
      if (waiting > most && block !== unanswered) return this.hold(block);
      this.socket.send(packAudio(block));
      this.sent = block.seq + 1;
    }
  }

  /** What cannot be sent waits here; when it only grows, being live again is worth more than the rest. */
  hold(block) {
    const behind = (this.blocks.at(-1).position - block.position) / this.wanted.rate;
    if (behind < BEHIND) this.behindSince = null;
    else this.behindSince ??= now();
    if (this.behindSince === null || now() - this.behindSince < 1000 * BEHIND_FOR) return;
    this.behindSince = null;
    this.drop();
    this.lost(4413, "");
  }

  /** Changes of {voice, settings, bypass}; told now or when the connection is back. */
  change(changes) {
    if (!this.wanted) return;
    const settings = { ...this.wanted.settings, ...changes.settings };
    this.wanted = { ...this.wanted, ...changes, settings };
    if (this.phase === "live") this.tellChanges();
  }

  tellChanges() {
    const { wanted, told } = this;
    if (wanted.voice !== told.voice) this.say({ type: "voice", voice: wanted.voice });
    const fresh = Object.entries(wanted.settings).filter(([name, value]) => told.settings[name] !== value);
    const all = wanted.voice === told.voice ? Object.fromEntries(fresh) : wanted.settings;
    if (Object.keys(all).length) this.say({ type: "settings", settings: all });
    if (wanted.bypass !== told.bypass) this.say({ type: "bypass", on: wanted.bypass });
    this.told = { ...wanted };
  }

  /** Ends the stream; what is under way still comes. */
  end() {
    if (this.phase === "live") {
      this.state("ending");
      this.say({ type: "end" });
      this.later("end", 3, () => this.over("ended"));
    } else if (this.phase !== "over") this.over("ended");
  }

  over(why, facts = {}) {
    for (const timer of Object.values(this.timers)) clearTimeout(timer);
    if (this.socket) this.drop();
    this.socket = null;
    this.blocks = [];
    this.state("over", { why, ...facts });
  }

  // What the server says

  heard(data) {
    this.heardAt = now();
    if (data instanceof ArrayBuffer) return this.answer(unpackAudio(data));
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return this.socket.close(4000, "not JSON");
    }
    if (message.type === "started") this.started(message);
    if (message.type === "stats") this.settle(message.kept ?? -1);
    if (message.type === "error") this.error = message;
    if (message.type === "pong") message.seconds = (now() - message.at) / 1000;
    if (message.type === "ended") this.flushed = true;
    this.tell({ ...message, base: this.base, trip: this.trip });
  }

  started(message) {
    const resumed = this.session === message.session;
    Object.assign(this, { session: message.session, secret: message.secret, window: message.window ?? this.window });
    const wanted = message.next ?? 0;
    if (resumed) this.settle(Math.min(this.received, wanted - 1));
    this.sent = wanted;
    this.attempt = 0;
    this.awaySince = null;
    this.begun = true;
    // A settings message is what makes the server's settings those of the page after a resume.
    if (resumed) this.told = { voice: message.voice, settings: message.settings ?? {}, bypass: null };
    this.state("live", { resumed });
    this.tellChanges();
    this.pump();
  }

  answer(block) {
    if (!block || block.seq <= this.received) return;
    this.received = block.seq;
    const first = this.blocks[0]?.seq ?? this.seq;
    const asked = this.blocks[block.seq - first];
    if (asked) this.trips.push(now() - asked.at);
    if (this.trips.length > 50) this.trips.shift();
    if (this.base === null) return;
    this.tell({ type: "audio", ...block, position: block.position + this.base });
    if (this.phase === "live") this.pump();
  }

  /** Seconds from a block's last sample to its answer, the median of the last blocks. */
  get trip() {
    const sorted = [...this.trips].sort((a, b) => a - b);
    return sorted.length ? sorted[sorted.length >> 1] / 1000 : null;
  }

  /** The server needs nothing up to `seq` again. */
  settle(seq) {
    this.kept = Math.max(this.kept, seq);
    while (this.blocks.length && this.blocks[0].seq <= Math.min(this.kept, this.received)) this.blocks.shift();
  }

  // Losing and finding

  lost(code, reason) {
    this.socket = null;
    if (this.phase === "ending" || this.phase === "over") return this.over("ended");
    const why = closed(code, reason, this.error, this.begun);
    this.tell({ type: "closed", ...why });
    if (why.next === "stop" || why.next === "key") return this.over(why.next === "key" ? "key" : "refused", why);
    if (why.next === "renew") this.another();
    this.awaySince ??= now();
    const away = (now() - this.awaySince) / 1000;
    if (away > GIVE_UP) return this.over("refused", why);
    if (away > KEPT && this.session) this.another();
    const pause = Math.min(why.retryAfter ?? Infinity, PAUSES[Math.min(this.attempt, PAUSES.length - 1)]);
    this.attempt += 1;
    this.state("away", { text: why.text, code });
    this.later("again", pause, () => this.connect());
  }

  /** The session cannot go on: the next one begins with the next block. */
  another() {
    this.forget();
    this.renewals += 1;
  }

  renew() {
    this.drop();
    this.lost(4410, "");
  }

  /** Lets go of a connection whose end is not waited for. */
  drop() {
    this.socket.onclose = null;
    this.socket.close(1000);
  }

  later(name, seconds, deed) {
    clearTimeout(this.timers[name]);
    this.timers[name] = setTimeout(deed, 1000 * seconds);
  }

  /** Pings, and notices a connection that is dead without saying so. */
  watch() {
    this.later("watch", PING, () => {
      if (!this.socket || this.phase === "over") return;
      if (now() - this.heardAt > 1000 * (this.phase === "live" ? SILENT : OPENING)) {
        this.drop();
        return this.lost(1006, "");
      }
      this.say({ type: "ping", at: now() });
      this.watch();
    });
  }
}

const now = () => performance.now();
