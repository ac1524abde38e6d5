// What the visit holds: takes, the results made of them, and what A and B play. Reloading finds them again by job ids.

import { FINAL } from "./follow.js";
import { problemOf } from "./api.js";

const PLACE = "rocktop.session";

let last = 0;
const nextId = () => `t${Date.now().toString(36)}${(last += 1)}`;

/**
 * take: {id, name, blob | null, url | null, seconds | null, error | null, results: [result]}
 * result: {id, take, job | null, sent: fraction of the upload, problem | null, number, blob: only of live results}
 * `id` of a result is a local one; the job's is `job.id`, null for what was sung live: that lives in this tab only.
 */
export class Session extends EventTarget {
  constructor() {
    super();
    this.takes = [];
    this.slots = { A: null, B: null };
    this.selected = null;
    this.restored = false;
  }

  changed(what = "list") {
    this.dispatchEvent(new CustomEvent("change", { detail: what }));
    this.save();
  }

  addTake({ name, blob = null, url = null, id = nextId() }) {
    const take = { id, name, blob, url, seconds: null, error: null, results: [] };
    this.takes.unshift(take);
    return take;
  }

  addResult(take, job = null) {
    const number = Math.max(0, ...take.results.map((result) => result.number)) + 1;
    const result = { id: nextId(), take, job, sent: 0, problem: null, number };
    take.results.push(result);
    return result;
  }

  /** A take that was sung live, with what was heard of it: {name, dry, wet (files), seconds, voice, settings}. */
  addLive({ name, dry, wet, seconds, voice, settings }) {
    const take = Object.assign(this.addTake({ name, blob: dry }), { seconds });
    const result = { seconds, key: settings.key };
    const job = { id: null, live: true, status: "done", voice, settings, output: { format: "wav" }, result };
    this.addResult(take, job).blob = wet;
    this.select(take);
    return take;
  }

  /** The newest finished result of a take. */
  newest(take) {
    return take.results.findLast((result) => result.job?.status === "done") ?? null;
  }

  get results() {
    return this.takes.flatMap((take) => take.results);
  }

  byJob(id) {
    return this.results.find((result) => result.job?.id === id) ?? null;
  }

  /** Takes that nothing has been made of, nor is being made. */
  get waiting() {
    return this.takes.filter((take) => !take.error && !take.results.length);
  }

  update(result, job) {
    result.job = job;
    result.problem = job.status === "failed" ? problemOf(job.error) : null;
    if (!result.take.seconds && job.progress?.seconds_total) result.take.seconds = job.progress.seconds_total;
    this.changed("progress");
  }

  /** A is the take and B its newest result. */
  select(take) {
    this.selected = take;
    this.slots = { A: take ? { take } : null, B: null };
    const newest = take && this.newest(take);
    if (newest) this.slots.B = { take, result: newest };
    this.changed("slots");
  }

  assign(slot, take, result = null) {
    this.selected = take;
    this.slots[slot] = result ? { take, result } : { take };
    this.changed("slots");
  }

  isIn(slot, take, result = null) {
    const held = this.slots[slot];
    return Boolean(held) && held.take === take && (held.result ?? null) === result;
  }

  drop(take, result = null) {
    if (result) take.results = take.results.filter((other) => other !== result);
    else this.takes = this.takes.filter((other) => other !== take);
    for (const slot of ["A", "B"]) {
      const held = this.slots[slot];
      if (held && held.take === take && (!result || held.result === result)) this.slots[slot] = null;
    }
    if (!result && this.selected === take) this.select(this.takes[0] ?? null);
    else this.changed("slots");
  }

  save() {
    if (!this.restored) return; // what is kept from before the reload has not been read yet
    const takes = this.takes
      .map((take) => ({
        id: take.id,
        name: take.name,
        seconds: take.seconds,
        jobs: take.results.filter((result) => result.job?.id).map((result) => [result.number, result.job.id]),
      }))
      .filter((take) => take.jobs.length);
    try {
      sessionStorage.setItem(PLACE, JSON.stringify({ takes, selected: this.selected?.id ?? null }));
    } catch {
      // no storage: nothing is found again after reloading
    }
  }

  /** Find the takes of before a reload; jobs that the server no longer has are left out. Raises Problem. */
  async restore(api) {
    let saved;
    try {
      saved = JSON.parse(sessionStorage.getItem(PLACE) ?? "null");
    } catch {
      saved = null;
    }
    const running = [];
    const gone = (problem) => {
      if (problem.status === 404) return null;
      throw problem;
    };
    const found = [];
    for (const old of saved?.takes ?? []) {
      found.push([old, await Promise.all(old.jobs.map(([, id]) => api.job(id).catch(gone)))]);
    }
    for (const [old, jobs] of found) {
      if (!jobs.some(Boolean)) continue;
      const take = {
        id: old.id,
        name: old.name,
        blob: null,
        url: null,
        seconds: old.seconds,
        error: null,
        results: [],
      };
      for (const [at, job] of jobs.entries()) {
        if (!job) continue;
        const result = { id: nextId(), take, job, sent: 1, problem: null, number: old.jobs[at][0] };
        take.results.push(result);
        result.problem = job.status === "failed" ? problemOf(job.error) : null;
        if (!FINAL.has(job.status)) running.push(job.id);
      }
      this.takes.push(take);
    }
    this.restored = true;
    const chosen = this.selected ?? this.takes.find((take) => take.id === saved?.selected) ?? this.takes[0];
    if (chosen && chosen !== this.selected) this.select(chosen);
    return running;
  }
}
