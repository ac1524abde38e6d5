// What is known of a running stream, in numbers: the delay with its parts, and how well it goes.

import { el, replace } from "./dom.js";
import { signed } from "./units.js";

const ms = (seconds) => (Number.isFinite(seconds) ? `${Math.round(1000 * seconds)} ms` : "–");
const share = (part, all) => (all ? ` (${((100 * part) / all).toFixed(part && part < all / 100 ? 2 : 0)} %)` : "");

const PARTS = [
  ["conversion", "Conversion", "What the voice needs to hear ahead: the server states it."],
  ["block", "Block", "A sample waits until its block is full."],
  ["trip", "Server and network", "From a full block to its answer."],
  ["reserve", "Reserve", "What is held against answers that come late."],
  ["hardware", "Devices", "What the browser says of input and output; they may take longer."],
];

const ROWS = {
  late: ["Late", "Blocks that the server could not convert in time; the take itself was heard."],
  lost: ["Lost", "Blocks that were made again or bridged after a part of the server failed."],
  dry: ["Ran dry", "Times that the answer did not come before the reserve was used up."],
  skipped: ["Left out", "What was passed over to be live again."],
  compute: ["Computing", "For one block at the server: median, and what 95 % stay below."],
  load: ["Load", "Of the server, and how many streams it has."],
  network: ["Network", "There and back, without computing."],
  reserve: ["Held", "Least that was held in the last second, and what is aimed at."],
  link: ["Connections", "How often the stream was resumed, and begun anew."],
};

export class LiveFacts {
  constructor() {
    this.total = el("output", { class: "delay-total", "aria-label": "Delay" }, "–");
    this.parts = new Map(
      PARTS.map(([name, label, why]) => [name, row(label, why, el("i", { class: `part ${name}` }))]),
    );
    this.bar = el(
      "div",
      { class: "delay-bar", "aria-hidden": "true" },
      PARTS.map(([name]) => el("i", { class: `part ${name}` })),
    );
    this.rows = new Map(Object.entries(ROWS).map(([name, [label, why]]) => [name, row(label, why)]));
    this.delayNode = el(
      "section",
      { class: "delay", "aria-labelledby": "live-delay" },
      el("h3", { id: "live-delay" }, "Delay"),
      el("p", { class: "hint" }, "From your voice to what you hear:"),
      this.total,
      this.bar,
      el(
        "dl",
        {},
        [...this.parts.values()].flatMap(({ nodes }) => nodes),
      ),
    );
    this.statsNode = el(
      "section",
      { class: "stats", "aria-labelledby": "live-stats" },
      el("h3", { id: "live-stats" }, "How it goes"),
      el(
        "dl",
        {},
        [...this.rows.values()].flatMap(({ nodes }) => nodes),
      ),
    );
  }

  /** `delay`: see Delay.measure, null while nothing is heard. */
  showDelay(delay, started) {
    this.total.textContent = delay ? ms(delay.total) : "–";
    for (const [at, [name]] of PARTS.entries()) {
      const known = delay?.parts[name] ?? (name === "conversion" && started ? started.delay_ms / 1000 : null);
      this.parts.get(name).value.textContent = known === null ? "–" : ms(known);
      this.bar.children[at].style.flexGrow = delay ? String(1000 * delay.parts[name]) : "0";
    }
  }

  show({ counts, stats, output, link, network }) {
    const put = (name, text, bad = false) => {
      const { value } = this.rows.get(name);
      if (value.textContent !== text) value.textContent = text;
      value.classList.toggle("bad", bad);
    };
    put("late", counts.late + share(counts.late, counts.blocks), counts.late > 0.01 * counts.blocks);
    put("lost", counts.lost + share(counts.lost, counts.blocks), counts.lost > 0);
    put("dry", String(output?.underruns ?? 0), (output?.underruns ?? 0) > 0);
    put("skipped", ms(output?.skipped ?? 0));
    const spread = stats?.compute_ms;
    put("compute", spread ? `${spread.p50.toFixed(1)} / ${spread.p95.toFixed(1)} ms` : "–");
    const streams = stats?.sessions === 1 ? "1 stream" : `${stats?.sessions ?? 0} streams`;
    put("load", stats ? `${Math.round(100 * stats.load)} %, ${streams}` : "–", stats?.load > 0.9);
    put("network", ms(network ?? NaN));
    const stretch = output?.stretch ? `, ${signed(100 * output.stretch, 2)} %` : "";
    put("reserve", output ? `${ms(output.reserve)} of ${ms(output.target)}${stretch}` : "–");
    put("link", `${link.resumes} resumed, ${link.renewals} anew`, link.renewals > 0);
  }

  clear() {
    this.showDelay(null, null);
    for (const { value } of this.rows.values()) replace(value, "–");
  }
}

function row(label, why, mark = null) {
  const value = el("dd", {}, "–");
  return { value, nodes: [el("dt", { title: why }, mark, label), value] };
}
