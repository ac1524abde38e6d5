// The takes of the visit with their results: state, progress, hear in A or B, again, download, remove.

import { button, el, replace } from "./dom.js";
import { FINAL } from "./follow.js";
import { differences } from "./settings.js";
import { clock, signed } from "./units.js";

const STAGES = {
  decode: "reading",
  prepare: "preparing",
  pitch: "melody",
  content: "content units",
  retrieval: "index",
  acoustic: "acoustic model",
  vocoder: "vocoder",
  finish: "finishing",
  encode: "writing",
};

export class History {
  /** `act` holds what can be done: select, assign, adopt, retry, cancel, remove, removeTake, download, archive. */
  constructor(root, { session, voices, act }) {
    Object.assign(this, { root, session, voices, act, rows: new Map() });
    session.addEventListener("change", ({ detail }) => (detail === "progress" ? this.progress() : this.show()));
    root.addEventListener("keydown", (event) => this.key(event));
    this.show();
  }

  show() {
    const focus = document.activeElement?.closest?.("[data-focus]")?.dataset.focus;
    const within = this.root.contains(document.activeElement);
    this.rows.clear();
    replace(
      this.root,
      this.session.takes.length
        ? this.session.takes.map((take) => this.takeNode(take))
        : el(
            "p",
            { class: "hint" },
            "Takes and what was made of them are listed here. They stay with the server for a while; this tab remembers which are yours.",
          ),
      this.archives(),
    );
    if (within && focus) this.root.querySelector(`[data-focus="${CSS.escape(focus)}"]`)?.focus();
  }

  takeNode(take) {
    const { session } = this;
    const chosen = session.selected === take;
    const title = el(
      "button",
      {
        type: "button",
        class: "take-name",
        "aria-current": chosen ? "true" : undefined,
        data: { focus: take.id },
        title: `${take.name}: hear the take in A, its newest result in B`,
        on: { click: () => this.act.select(take) },
      },
      el("span", {}, take.name),
    );
    return el(
      "article",
      { class: `take${chosen ? " chosen" : ""}`, "aria-label": take.name },
      el(
        "header",
        {},
        title,
        el("span", { class: "length" }, take.seconds ? clock(take.seconds, 1) : ""),
        this.slotButtons(take, null),
        button({
          glyph: "close",
          label: `Remove ${take.name} from the list`,
          class: "icon small",
          press: () => this.act.removeTake(take),
        }),
      ),
      take.error && el("p", { class: "bad" }, take.error),
      el(
        "ol",
        { class: "results" },
        [...take.results].reverse().map((result) => this.resultNode(take, result)),
      ),
    );
  }

  /** Press A or B to put something there. */
  slotButtons(take, result) {
    return el(
      "span",
      { class: "slots-of", role: "group", "aria-label": "Put into" },
      ["A", "B"].map((slot) => {
        const held = this.session.isIn(slot, take, result);
        return el(
          "button",
          {
            type: "button",
            class: `slot-button ${slot.toLowerCase()}`,
            "aria-pressed": String(held),
            "aria-label": `${slot}: ${result ? `result ${result.number}` : "the take"}`,
            title: `Put into ${slot}`,
            data: { focus: `${take.id} ${result?.id ?? ""} ${slot}` },
            on: { click: () => this.act.assign(slot, take, result) },
          },
          slot,
        );
      }),
    );
  }

  resultNode(take, result) {
    const { job } = result;
    const done = job?.status === "done";
    const node = el(
      "li",
      { class: `result ${job?.status ?? (result.problem ? "failed" : "sending")}`, data: { job: job?.id ?? "" } },
      el(
        "div",
        { class: "line" },
        el("span", { class: "number" }, `${result.number}`),
        el("span", { class: "what" }, this.summary(result)),
        done && this.slotButtons(take, result),
      ),
      this.stateNode(result),
      el("div", { class: "deeds" }, this.deeds(take, result)),
    );
    this.rows.set(result, node);
    return node;
  }

  summary(result) {
    const { job } = result;
    if (!job) return result.voice ?? "";
    const key = job.result?.key ?? job.settings?.key ?? 0;
    const words = differences(job, this.voices.find(job.voice));
    return [
      el("b", {}, job.voice),
      ` key ${signed(key, Number.isInteger(key) ? 0 : 2)}`,
      words.length ? el("span", { class: "words" }, words.join(", ")) : null,
    ].filter(Boolean);
  }

  stateNode(result) {
    const { job, problem } = result;
    if (problem) {
      const where = problem.stage && !["internal", "input"].includes(problem.stage) ? ` (${problem.stage})` : "";
      return el("p", { class: "bad", role: "alert" }, `${problem.text}${where}`);
    }
    if (!job) return progressNode("uploading", result.sent);
    if (job.status === "done") {
      const { seconds, real_time_factor: factor, media_type: type } = job.result;
      const speed = Number.isFinite(factor) && factor > 0 ? `${(1 / factor).toFixed(1)}× real time` : "";
      const words = [clock(seconds, 1), kindOf(job, type), job.live ? "live" : speed];
      return el("p", { class: "facts" }, words.filter(Boolean).join(" · "));
    }
    if (job.status === "cancelled") return el("p", { class: "facts" }, "cancelled");
    if (job.status === "queued") {
      const place = job.progress?.queue_position;
      return progressNode(Number.isFinite(place) && place > 0 ? `waiting, ${place} before it` : "waiting", null);
    }
    const { stage, fraction } = job.progress ?? {};
    return progressNode(STAGES[stage] ?? stage ?? "starting", fraction ?? null);
  }

  deeds(take, result) {
    const { job, problem } = result;
    const { act } = this;
    const busy = !problem && (!job || !FINAL.has(job.status));
    if (busy) return [button({ glyph: "stop", text: "Cancel", class: "plain", press: () => act.cancel(result) })];
    const settings =
      job &&
      button({
        text: "Settings",
        class: "plain",
        title: "Put these settings into the form",
        press: () => act.adopt(result),
      });
    const again = button({
      glyph: "again",
      text: "Again",
      class: "plain",
      title: "Convert the take with the settings of the form",
      press: () => act.retry(take),
    });
    const remove = button({
      glyph: "trash",
      label: `Remove result ${result.number}`,
      class: "icon small",
      press: () => act.remove(take, result),
    });
    if (job?.status !== "done") return [again, settings, el("span", { class: "gap" }), remove];
    const load = button({ glyph: "download", text: "Download", class: "plain", press: () => act.download(result) });
    return [load, settings, again, el("span", { class: "gap" }), remove];
  }

  /** Only what moves is drawn anew. */
  progress() {
    for (const result of this.session.results) {
      const node = this.rows.get(result);
      const state = result.job?.status ?? (result.problem ? "failed" : "sending");
      if (!node || !node.classList.contains(state) || (result.job?.id ?? "") !== node.dataset.job) return this.show();
      if (FINAL.has(state)) continue;
      const [, old] = node.children;
      const fresh = this.stateNode(result);
      if (old.textContent !== fresh.textContent || old.firstChild?.value !== fresh.firstChild?.value)
        old.replaceWith(fresh);
    }
  }

  /** One download for all results of a batch. */
  archives() {
    const batches = new Map();
    for (const { job } of this.session.results) {
      if (!job?.batch) continue;
      batches.set(job.batch, [...(batches.get(job.batch) ?? []), job]);
    }
    return [...batches].map(([batch, jobs]) => {
      const done = jobs.filter((job) => job.status === "done").length;
      const open = jobs.some((job) => !FINAL.has(job.status));
      return el(
        "div",
        { class: "batch" },
        el("span", {}, `Batch of ${jobs.length}, ${done} done`),
        open && button({ glyph: "stop", text: "Cancel all", class: "plain", press: () => this.act.cancelBatch(batch) }),
        done > 0 &&
          button({ glyph: "download", text: "All as ZIP", class: "plain", press: () => this.act.archive(batch) }),
      );
    });
  }

  /** Up and down move between takes. */
  key(event) {
    if (!["ArrowUp", "ArrowDown"].includes(event.key)) return;
    const names = [...this.root.querySelectorAll(".take-name")];
    const here = names.findIndex((name) => name.closest(".take").contains(document.activeElement));
    const next = names[Math.max(0, Math.min(names.length - 1, here + (event.key === "ArrowUp" ? -1 : 1)))];
    if (!next) return;
    event.preventDefault();
    next.focus();
    next.click();
  }
}

function progressNode(text, fraction) {
  const bar = el("progress", { max: "1", "aria-label": text });
  if (fraction !== null) bar.value = fraction;
  return el(
    "div",
    { class: "progress" },
    bar,
    el("span", {}, fraction ? `${text}, ${Math.round(100 * fraction)} %` : text),
  );
}

const KINDS = {
  flac: "FLAC 24-bit",
  flac16: "FLAC 16-bit",
  wav: "WAV float",
  wav24: "WAV 24-bit",
  wav16: "WAV 16-bit",
  ogg: "Opus",
  webm: "Opus WebM",
  mp3: "MP3",
  m4a: "AAC",
};

function kindOf(job, type) {
  const { format, rate, bitrate } = job.output ?? {};
  const words = [KINDS[format] ?? format ?? type];
  if (bitrate) words.push(`${Math.round(bitrate / 1000)}k`);
  if (rate && rate !== 48_000) words.push(`${rate / 1000} kHz`);
  return words.join(" ");
}
