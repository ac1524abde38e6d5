// Following jobs until they end: the first ones by events, further ones by asking, because a browser opens only six
// connections to a server and each stream of events holds one.

const STREAMS = 2;
const PAUSE = 1500;
export const FINAL = new Set(["done", "failed", "cancelled"]);

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export class Follower {
  /** `changed(job)` hears every state; `lost(id, problem)` that the server knows the job no longer. */
  constructor(api, { changed, lost }) {
    this.api = api;
    this.changed = changed;
    this.lost = lost;
    this.streams = 0;
    this.followed = new Map();
  }

  follow(id) {
    if (this.followed.has(id)) return;
    const stop = new AbortController();
    this.followed.set(id, stop);
    this.run(id, stop.signal).finally(() => this.followed.delete(id));
  }

  forget(id) {
    this.followed.get(id)?.abort();
  }

  async run(id, signal) {
    while (!signal.aborted) {
      try {
        const job = this.streams < STREAMS ? await this.stream(id, signal) : await this.api.job(id);
        if (signal.aborted) return;
        this.changed(job);
        if (FINAL.has(job.status)) return;
      } catch (problem) {
        if (signal.aborted || problem.name === "AbortError") return;
        if (problem.status === 404 || problem.status === 401 || problem.status === 403) return this.lost(id, problem);
      }
      await sleep(PAUSE);
    }
  }

  /** The job's last state when its stream has ended, for whatever reason. */
  async stream(id, signal) {
    this.streams += 1;
    try {
      for await (const job of this.api.events(id, signal)) {
        if (signal.aborted || FINAL.has(job.status)) return job;
        this.changed(job);
      }
    } finally {
      this.streams -= 1;
    }
    return this.api.job(id);
  }
}
