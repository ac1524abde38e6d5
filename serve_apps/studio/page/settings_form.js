// The form of the settings: one row per field, with its explanation, and a way back to what the voice wants.

import { button, el, preference, replace } from "./dom.js";
import { CONTROLS } from "./settings_controls.js";
import { defaultsOf, FIELDS, fieldsOf, FOLDED, GROUPS, inStream, lossless, streamOf } from "./settings.js";
import { kilohertz, midi, noteName } from "./units.js";

const OUTPUT = ["format", "rate", "bitrate", "normalise"];
const RATES = [48_000, 44_100, 96_000, 88_200, 32_000, 24_000, 22_050, 16_000];
const KBPS = [320, 256, 192, 160, 128, 96, 64, 48, 32];

/** Tells "change" when a value is another. */
export class SettingsForm extends EventTarget {
  constructor(root) {
    super();
    this.root = root;
    this.voice = null;
    this.live = false;
    this.formats = new Map();
    this.values = { ...defaultsOf(null), ...preference.get("output", {}) };
    this.rows = new Map();
    this.build();
    root.addEventListener("submit", (event) => event.preventDefault());
  }

  build() {
    const groups = GROUPS.map((group) => {
      const rows = FIELDS.filter((field) => field.group === group).map((field) => this.row(field));
      const details = el("details", { class: "fold" }, el("summary", {}, group, el("span", { class: "count" })), rows);
      details.open = preference.get(`fold.${group}`, !FOLDED.has(group));
      details.addEventListener("toggle", () => preference.set(`fold.${group}`, details.open));
      return details;
    });
    this.resetAll = button({
      glyph: "reset",
      text: "Reset",
      title: "All settings as the voice wants them",
      press: () => this.reset(),
    });
    replace(this.root, el("div", { class: "head" }, el("h3", {}, "Settings"), this.resetAll), groups);
    this.show();
  }

  row(field) {
    const id = `set-${field.name}`;
    const control = CONTROLS[field.kind](field, id, (value) => this.set(field.name, value));
    const help = el("p", { class: "why", id: `${id}-why`, hidden: true }, field.help);
    const why = button({
      glyph: "help",
      label: `What is “${field.label}”?`,
      class: "icon small",
      "aria-expanded": "false",
      "aria-controls": help.id,
      press: () => {
        help.hidden = !help.hidden;
        why.setAttribute("aria-expanded", String(!help.hidden));
      },
    });
    const back = button({
      glyph: "reset",
      label: `Reset ${field.label}`,
      class: "icon small back",
      press: () => {
        this.set(field.name, defaultsOf(this.voice)[field.name]);
        control.focus();
      },
    });
    const note = el("p", { class: "hint", hidden: true });
    const node = el(
      "div",
      { class: `field ${field.kind}` },
      el("div", { class: "label" }, el("label", { for: id, title: field.help }, field.label), back, why),
      el("div", { class: "control" }, control.nodes),
      note,
      help,
    );
    this.rows.set(field.name, { field, control, node, back, note });
    return node;
  }

  set(name, value) {
    this.values[name] = value;
    if (OUTPUT.includes(name)) {
      preference.set("output", Object.fromEntries(OUTPUT.map((output) => [output, this.values[output]])));
    }
    this.show();
  }

  reset() {
    this.values = defaultsOf(this.voice);
    preference.set("output", {});
    this.show();
  }

  /** Another voice: what nobody touched becomes what this voice wants. */
  setVoice(voice) {
    const before = defaultsOf(this.voice);
    const after = defaultsOf(voice);
    for (const { name } of FIELDS) {
      if (this.values[name] === before[name] && !OUTPUT.includes(name)) this.values[name] = after[name];
    }
    this.voice = voice;
    if (!voice?.median_f0) this.values.auto_key = false;
    this.values.speaker = Math.min(this.values.speaker, (voice?.speakers || 1) - 1);
    this.show();
  }

  /** Settings of an earlier result. */
  adopt(job) {
    const values = defaultsOf(this.voice);
    const { format, rate } = this.values;
    const output = job.live ? { format, rate } : { format: job.output?.format, rate: job.output?.rate };
    for (const [name, value] of Object.entries({ ...job.settings, ...output })) {
      if (name in values && value !== null && value !== undefined) values[name] = value;
    }
    if (
      job.settings?.pitch === undefined &&
      !job.live &&
      job.result?.pitch &&
      job.result.pitch !== this.voice?.default_extractor
    ) {
      values.pitch = "";
    }
    if (!lossless(values.format) && job.output?.bitrate) values.bitrate = String(job.output.bitrate);
    this.values = values;
    this.show();
  }

  setFormats(formats) {
    this.formats = new Map(formats.map((format) => [format.name, format]));
    this.show();
  }

  /** Extractors of /v1/models; those that are missing are shown, and say how to get them. */
  setExtractors(extractors) {
    const choices = extractors.map(({ name, installed }) => [
      name,
      installed ? name : `${name} (not installed)`,
      !installed,
    ]);
    this.rows.get("pitch").control.setChoices([["", "the voice's own"], ...choices]);
    this.show();
  }

  /** Shows only what a stream follows. */
  setLive(live) {
    this.live = live;
    this.show();
  }

  /** What a stream is told. */
  get stream() {
    return streamOf(this.values);
  }

  /** The fields of a request. */
  get fields() {
    return fieldsOf(this.values, this.voice);
  }

  show() {
    this.fitOutput();
    const defaults = defaultsOf(this.voice);
    const counts = {};
    for (const [name, { field, control, node, back, note }] of this.rows) {
      control.show(this.values[name]);
      const changed = this.values[name] !== defaults[name];
      node.hidden = Boolean(field.when && !field.when(this.values)) || (this.live && !inStream(field));
      node.classList.toggle("changed", changed);
      back.hidden = !changed;
      if (changed && !node.hidden) counts[field.group] = (counts[field.group] ?? 0) + 1;
      this.limit(name, control, note, node);
    }
    for (const summary of this.root.querySelectorAll("summary")) {
      const count = counts[summary.firstChild.textContent];
      summary.lastChild.textContent = count ? `${count} changed` : "";
      summary.parentNode.hidden = this.live && summary.firstChild.textContent === "Output";
    }
    this.resetAll.disabled = !Object.keys(counts).length;
    this.dispatchEvent(new Event("change"));
  }

  /** What this voice cannot follow is switched off, and says why. */
  limit(name, control, note, node) {
    const { voice } = this;
    let why = "";
    if (voice && name === "auto_key") {
      if (!voice.median_f0) why = "This voice does not say where it sings.";
      else
        note.textContent = `The voice sings around ${noteName(Math.round(midi(voice.median_f0)))} (${Math.round(voice.median_f0)} Hz).`;
      note.hidden = false;
    }
    if (voice && name === "index_rate" && voice.index_vectors === 0) why = "This voice has no index.";
    if (voice && name === "speaker") {
      node.hidden = !(voice.speakers > 1);
      note.textContent = speakerNames(voice)[this.values.speaker] ?? "";
      note.hidden = !note.textContent;
    }
    if (voice && name === "pitch" && voice.default_extractor) {
      note.textContent = `The voice asks for ${voice.default_extractor}.`;
      note.hidden = this.values.pitch !== "";
    }
    if (voice && ["key", "pitch", "median_radius", "autotune"].includes(name) && voice.uses_f0 === false)
      why = "This voice follows no melody.";
    control.disable(Boolean(why));
    if (why) note.textContent = why;
    if (why) note.hidden = false;
    else if (!["auto_key", "pitch", "speaker"].includes(name)) note.hidden = true;
  }

  /** Rates and bitrates that the chosen format has. */
  fitOutput() {
    const format = this.formats.get(this.values.format);
    const allowed = ratesOf(format);
    const rates = allowed ? RATES.filter((rate) => allowed.includes(rate)) : RATES;
    if (rates.length && !rates.includes(this.values.rate)) this.values.rate = rates[0];
    this.rows.get("rate").control.setChoices(rates.map((rate) => [rate, kilohertz(rate)]));
    const bits = bitratesOf(format, this.values.rate);
    const choices = bits.map((value) => [String(value), `${value / 1000} kbit/s`]);
    if (this.values.bitrate !== "" && !bits.includes(Number(this.values.bitrate))) this.values.bitrate = "";
    this.rows.get("bitrate").control.setChoices([["", "standard (128 kbit/s)"], ...choices]);
  }
}

/** Names that the voice's file gives to its speakers, as a list or as the text of one. */
function speakerNames(voice) {
  const names = voice.extra?.speakers;
  if (Array.isArray(names)) return names.map(String);
  try {
    const read = JSON.parse(names ?? "[]");
    return Array.isArray(read) ? read.map(String) : [];
  } catch {
    return [];
  }
}

function ratesOf(format) {
  const rates = format?.rates;
  return Array.isArray(rates) && rates.length ? rates : null;
}

/** Usual bitrates that fit what the API says of a format: a list, or {min, max}; by rate where it depends on that. */
function bitratesOf(format, rate) {
  const all = KBPS.map((kbps) => 1000 * kbps);
  let known = format?.bitrates;
  if (known && !Array.isArray(known) && String(rate) in known) known = known[String(rate)];
  if (Array.isArray(known) && known.length) return all.filter((bits) => known.includes(bits));
  if (known?.max) return all.filter((bits) => bits >= (known.min ?? 0) && bits <= known.max);
  return all;
}
