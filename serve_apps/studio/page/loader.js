// From what A and B should play to clips on the transport: fetch, decode, measure, then the melodies.

import { NotPlayable } from "./clips.js";

const SLOTS = ["A", "B"];

export class Loader {
  /** `failed(text)` hears what cannot be loaded; `melodies()` that one has arrived. */
  constructor({ api, session, clips, transport, failed, melodies }) {
    Object.assign(this, { api, session, clips, transport, failed, melodies });
    this.files = new WeakMap();
    session.loading = {};
    session.addEventListener("change", ({ detail }) => detail === "slots" && SLOTS.forEach((slot) => this.load(slot)));
  }

  /** The bytes of a result as the API gives them, fetched once. */
  async resultBlob(result) {
    if (result.blob) return result.blob;
    if (!this.files.has(result)) {
      const coming = this.api.blob(result.job.links?.result ?? `/v1/jobs/${result.job.id}/result`);
      this.files.set(result, coming);
      coming.catch(() => this.files.delete(result));
    }
    return this.files.get(result);
  }

  /** The take's file: as it was given, else as the server has it. */
  async takeBlob(take) {
    if (take.blob) return take.blob;
    const job = take.results.map((result) => result.job).find((known) => known?.id);
    if (!job) return null;
    take.blob = await this.api.blob(job.links?.source ?? `/v1/jobs/${job.id}/source`);
    return take.blob;
  }

  async load(slot) {
    const held = this.session.slots[slot];
    const key = held && (held.result?.id ?? held.take.id);
    const still = () => {
      const now = this.session.slots[slot];
      return key === (now && (now.result?.id ?? now.take.id));
    };
    if (!held) {
      this.say(slot, "");
      return this.transport.setClip(slot, null);
    }
    if (this.transport.clips[slot]?.key === key) {
      if (!this.transport.clips[slot].melody) this.melody(held, this.transport.clips[slot]);
      return;
    }
    if (held.take.url && !held.take.blob && !held.result && !held.take.results.some((result) => result.job)) {
      this.transport.setClip(slot, null);
      return this.say(slot, "The server fetches it when it is converted.");
    }
    this.say(slot, "loading…");
    try {
      const clip = await this.clips.get(key, () =>
        held.result ? this.resultBlob(held.result) : this.takeBlob(held.take),
      );
      if (!held.take.seconds) held.take.seconds = clip.seconds;
      if (!still()) return;
      this.say(slot, "");
      this.transport.setClip(slot, clip);
      if (slot === "B" && !this.transport.playing) this.transport.hear("B");
      await this.melody(held, clip);
    } catch (problem) {
      if (!still()) return;
      this.transport.setClip(slot, null);
      const text = problem instanceof NotPlayable ? problem.message : (problem.text ?? String(problem));
      this.say(slot, text);
      if (!(problem instanceof NotPlayable)) this.failed(text);
    }
  }

  /** F0 comes from a finished job of the take. */
  async melody(held, clip) {
    const done = held.result ?? held.take.results.findLast(({ job }) => job?.status === "done" && job.id);
    if (!done?.job.id || clip.melody || clip.asking) return;
    clip.asking = true;
    try {
      const id = done.job.id;
      const melody = await this.api.json(done.job.links?.melody ?? `/v1/jobs/${id}/melody`);
      clip.melody = Float32Array.from(held.result ? melody.result : melody.source);
      this.melodies();
    } catch {
      // A voice without a melody, or one that is gone: the pictures do without.
    } finally {
      clip.asking = false;
    }
  }

  say(slot, text) {
    this.session.loading[slot] = text;
    this.session.dispatchEvent(new CustomEvent("change", { detail: "loading" }));
  }
}
