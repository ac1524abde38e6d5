// What can be done with takes: convert, convert again, cancel, download, remove.

import { announce } from "./dom.js";
import { confirm, notice } from "./dialogs.js";
import { FINAL, Follower } from "./follow.js";
import { Problem } from "./api.js";

export class Work {
  constructor({ api, session, loader, clips, settings, voices, limits }) {
    Object.assign(this, { api, session, loader, clips, settings, voices, limits });
    this.uploads = new Map();
    this.follower = new Follower(api, {
      changed: (job) => this.changed(job),
      lost: (id, problem) => this.lost(id, problem),
    });
  }

  // Takes

  add(files) {
    const limit = this.limits.upload_bytes;
    let first = null;
    for (const file of files) {
      const take = this.session.addTake({ name: file.name, blob: file });
      if (file.size === 0) take.error = "This file is empty.";
      else if (limit && file.size > limit)
        take.error = `This file has ${Math.ceil(file.size / 1e6)} MB; the server takes up to ${Math.floor(limit / 1e6)} MB.`;
      else first ??= take;
    }
    announce(files.length === 1 ? `${files[0].name} added` : `${files.length} takes added`);
    if (first) this.session.select(first);
    else this.session.changed();
  }

  addUrl(url) {
    const path = new URL(url).pathname.split("/").pop();
    let name = path || new URL(url).hostname;
    try {
      name = decodeURIComponent(name);
    } catch {
      // an address with stray percent signs: shown as it is
    }
    this.session.select(this.session.addTake({ name, url }));
  }

  // Converting

  /** What the button converts: several fresh takes together, else the chosen one. */
  get next() {
    const { waiting, selected } = this.session;
    if (waiting.length > 1 && waiting.every((take) => take.blob)) return waiting;
    return selected && !selected.error ? [selected] : [];
  }

  async convertNext() {
    const takes = this.next;
    if (takes.length > 1) return this.convertBatch(takes);
    if (takes.length) return this.convert(takes[0]);
    notice("There is nothing to convert yet. Drop a file, or record a take.", { kind: "info" });
  }

  get fields() {
    return { voice: this.voices.chosen?.name, ...this.settings.fields };
  }

  form(takes, blobs) {
    const form = new FormData();
    for (const [name, value] of Object.entries(this.fields)) form.append(name, String(value));
    takes.forEach((take, at) => form.append("take", blobs[at], take.name));
    return form;
  }

  async convert(take) {
    const result = this.begin(take);
    this.session.changed();
    const stop = this.uploads.get(result);
    try {
      const blob = await this.loader.takeBlob(take);
      const job = blob
        ? await this.api.upload("/v1/jobs", this.form([take], [blob]), {
            signal: stop.signal,
            sent: (share) => this.sent([result], share),
          })
        : await this.api.post("/v1/jobs", { ...this.fields, take_url: take.url });
      this.accepted(result, job);
    } catch (problem) {
      this.refused([result], problem, () => this.convert(take));
    }
  }

  async convertBatch(takes) {
    const results = takes.map((take) => this.begin(take));
    this.session.changed();
    const stop = this.uploads.get(results[0]);
    for (const result of results) this.uploads.set(result, stop);
    try {
      const form = this.form(
        takes,
        takes.map((take) => take.blob),
      );
      const batch = await this.api.upload("/v1/batches", form, {
        signal: stop.signal,
        sent: (share) => this.sent(results, share),
      });
      results.forEach((result, at) => this.accepted(result, batch.jobs[at]));
    } catch (problem) {
      this.refused(results, problem, () => this.convertBatch(takes));
    }
  }

  begin(take) {
    const result = this.session.addResult(take);
    result.voice = this.voices.chosen?.name ?? "";
    this.uploads.set(result, new AbortController());
    return result;
  }

  sent(results, share) {
    for (const result of results) result.sent = share;
    this.session.changed("progress");
  }

  accepted(result, job) {
    this.uploads.delete(result);
    this.session.update(result, job);
    this.session.changed();
    if (!FINAL.has(job.status)) this.follower.follow(job.id);
  }

  /** The upload failed: the take stays, the result shows why. */
  refused(results, problem, again) {
    for (const result of results) {
      this.uploads.delete(result);
      if (problem.name === "AbortError") this.session.drop(result.take, result);
      else result.problem = problem instanceof Problem ? problem : new Problem({ detail: String(problem) });
    }
    this.session.changed();
    if (problem.name === "AbortError") return;
    const retry = () => {
      for (const result of results) this.session.drop(result.take, result);
      again();
    };
    notice(problem.text ?? String(problem), {
      action: problem.retryable || problem.status === 429 ? { text: "Try again", press: retry } : null,
    });
  }

  changed(job) {
    const result = this.session.byJob(job.id);
    if (!result) return;
    const before = result.job.status;
    this.session.update(result, job);
    if (before === job.status || !FINAL.has(job.status)) return;
    this.session.changed();
    if (job.status === "done") this.finished(result);
    if (job.status === "failed") notice(`${result.take.name}: ${result.problem.text}`);
  }

  finished(result) {
    const { session } = this;
    announce(`${result.take.name} is converted`);
    if (session.selected !== result.take) return;
    if (!session.slots.A) session.slots.A = { take: result.take };
    session.assign("B", result.take, result);
  }

  lost(id, problem) {
    const result = this.session.byJob(id);
    if (!result) return;
    result.problem =
      problem.status === 404
        ? new Problem({ detail: "The server no longer has this job. Convert the take again." })
        : problem;
    this.session.changed();
  }

  // Deeds of the list

  async cancel(result) {
    this.uploads.get(result)?.abort();
    if (!result.job) return;
    await this.attempt(async () => this.changed(await this.api.endJob(result.job.id)));
  }

  cancelBatch(batch) {
    return this.attempt(async () => {
      const { jobs } = await this.api.json(`/v1/batches/${encodeURIComponent(batch)}`, { method: "DELETE" });
      for (const job of jobs) this.changed(job);
    });
  }

  async remove(take, result) {
    await this.attempt(async () => {
      await this.forget(result);
      this.session.drop(take, result);
    });
  }

  async removeTake(take) {
    const many = take.results.filter((result) => result.job?.id).length;
    const live = take.results.some((result) => result.blob);
    const server = many ? `Its ${many === 1 ? "result is" : `${many} results are`} deleted on the server, too.` : "";
    const text = [live ? "What you sang live is in this tab only." : "", server].filter(Boolean).join(" ");
    if (text && !(await confirm(`Remove ${take.name}?`, text, "Remove"))) return;
    await this.attempt(async () => {
      for (const result of take.results) await this.forget(result);
      this.clips.forget(take.id);
      this.session.drop(take);
    });
  }

  async forget(result) {
    this.uploads.get(result)?.abort();
    const { job } = result;
    this.clips.forget(result.id);
    if (!job?.id) return;
    this.follower.forget(job.id);
    try {
      await this.api.endJob(job.id);
      if (!FINAL.has(job.status)) await this.api.endJob(job.id);
    } catch (problem) {
      if (problem.status !== 404) throw problem;
    }
  }

  adopt(result) {
    if (this.voices.find(result.job.voice)) this.voices.choose(result.job.voice);
    this.settings.adopt(result.job);
    announce("Settings taken over");
  }

  async download(result) {
    await this.attempt(async () => save(await this.loader.resultBlob(result), fileName(result)));
  }

  archive(batch) {
    return this.attempt(async () =>
      save(await this.api.blob(`/v1/batches/${encodeURIComponent(batch)}/archive`), "rocktop-batch.zip"),
    );
  }

  async attempt(deed) {
    try {
      await deed();
    } catch (problem) {
      notice(problem.text ?? String(problem));
    }
  }
}

const SUFFIXES = { flac16: "flac", wav16: "wav", wav24: "wav" };

/** "verse 3 · bundle +3.flac" */
function fileName({ take, job }) {
  const stem = take.name.replace(/\.[a-z0-9]{1,5}$/i, "");
  const key = job.result?.key ?? 0;
  const words = [stem, job.voice, key ? (key > 0 ? `+${key}` : String(key)) : ""].filter(Boolean);
  return `${words.join(" ")}.${SUFFIXES[job.output.format] ?? job.output.format}`;
}

function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
