// What can be set for a conversion: names, ranges and defaults as in the API, and what each of them does to the sound.

export const SCALES = [
  "chromatic",
  "major",
  "minor",
  "harmonic-minor",
  "melodic-minor",
  "dorian",
  "phrygian",
  "lydian",
  "mixolydian",
  "locrian",
  "major-pentatonic",
  "minor-pentatonic",
  "blues",
  "whole-tone",
];
export const ROOTS = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"];

const percent = (value) => `${Math.round(100 * value)} %`;

/** kind: key | range | number | choice | switch. `standard` is what the engine takes when nobody says anything. */
export const FIELDS = [
  {
    name: "key",
    group: "Pitch",
    label: "Key",
    kind: "key",
    low: -36,
    high: 36,
    standard: 0,
    unit: "st",
    help: "Semitones up or down. A man's take into a woman's voice wants about +12; fine tune is in hundredths of a semitone.",
  },
  {
    name: "auto_key",
    group: "Pitch",
    label: "Find the key",
    kind: "switch",
    standard: false,
    help: "Chooses the key from the take's melody and the voice's own range; what you set as key is added.",
  },
  {
    name: "formant",
    group: "Pitch",
    label: "Formant",
    kind: "range",
    low: -12,
    high: 12,
    step: 0.1,
    standard: 0,
    unit: "st",
    help: "Moves the take's formants before conversion: up sounds like a smaller singer, down like a larger one. The melody stays.",
  },
  {
    name: "index_rate",
    group: "Timbre",
    label: "Index share",
    kind: "range",
    low: 0,
    high: 1,
    step: 0.01,
    standard: 0.75,
    show: percent,
    help: "How much is taken from the voice's own recordings. More is closer to the voice, less keeps the take's pronunciation.",
  },
  {
    name: "protect",
    group: "Timbre",
    label: "Protect consonants",
    kind: "range",
    low: 0,
    high: 0.5,
    step: 0.01,
    standard: 0.33,
    help: "Lower keeps more of the take in breath and voiceless consonants, against artefacts there; 0.5 is off.",
  },
  {
    name: "temperature",
    group: "Timbre",
    label: "Variation",
    kind: "range",
    low: 0,
    high: 2,
    step: 0.01,
    standard: 0.66666,
    help: "Scale of the voice's inner noise. Lower is steadier and duller, higher livelier and rougher.",
  },
  {
    name: "speaker",
    group: "Timbre",
    label: "Speaker",
    kind: "number",
    low: 0,
    high: 2147483647,
    standard: 0,
    help: "Which speaker of a voice that has several, from 0.",
  },
  {
    name: "rms_mix",
    group: "Level",
    label: "Loudness",
    kind: "range",
    low: 0,
    high: 1,
    step: 0.01,
    standard: 0.25,
    ends: ["take's", "voice's"],
    help: "0 follows the take's loudness from moment to moment, 1 keeps the loudness that the voice sings with.",
  },
  {
    name: "pitch",
    group: "Melody",
    label: "Extractor",
    kind: "choice",
    standard: "",
    choices: [["", "the voice's own"]],
    help: "What finds the melody. RMVPE and FCPE are the most robust; others can help where these slip.",
  },
  {
    name: "median_radius",
    group: "Melody",
    label: "Smoothing",
    kind: "range",
    low: 0,
    high: 50,
    step: 1,
    standard: 0,
    unit: "frames",
    help: "Median filter over the melody, in frames of 10 ms to each side. Removes single wrong frames; much of it flattens vibrato.",
  },
  {
    name: "unvoiced",
    group: "Melody",
    label: "Voiceless frames",
    kind: "choice",
    standard: "zero",
    choices: [
      ["zero", "noise (classic)"],
      ["interpolate", "carry the melody across"],
    ],
    help: "What a voiceless frame is given as melody. A voice wants what it was trained with: classic for RVC and Applio.",
  },
  {
    name: "autotune",
    group: "Melody",
    label: "Autotune",
    kind: "range",
    low: 0,
    high: 1,
    step: 0.01,
    standard: 0,
    show: percent,
    help: "How firmly notes are drawn to the scale. 0 is off.",
  },
  {
    name: "scale",
    group: "Melody",
    label: "Scale",
    kind: "choice",
    standard: "chromatic",
    choices: SCALES.map((scale) => [scale, scale.replaceAll("-", " ")]),
    when: (values) => values.autotune > 0,
    help: "The notes that autotune draws to.",
  },
  {
    name: "root",
    group: "Melody",
    label: "Tonic",
    kind: "choice",
    standard: "C",
    choices: ROOTS.map((root) => [root, root.replace("#", "♯")]),
    when: (values) => values.autotune > 0,
    help: "The first note of the scale, after transposition.",
  },
  {
    name: "seed",
    group: "Melody",
    label: "Seed",
    kind: "number",
    low: 0,
    high: 9007199254740991,
    standard: 0,
    help: "Of all random draws. The same take, settings and seed give the same bytes; another seed gives another reading.",
  },
  {
    name: "format",
    group: "Output",
    label: "Format",
    kind: "choice",
    standard: "flac",
    choices: [
      ["flac", "FLAC 24-bit"],
      ["flac16", "FLAC 16-bit"],
      ["wav", "WAV 32-bit float"],
      ["wav24", "WAV 24-bit"],
      ["wav16", "WAV 16-bit"],
      ["ogg", "Ogg Opus"],
      ["webm", "WebM Opus"],
      ["mp3", "MP3"],
      ["m4a", "M4A AAC"],
    ],
    help: "How the result is written. FLAC and WAV are lossless; the others have a bitrate.",
  },
  {
    name: "rate",
    group: "Output",
    label: "Sample rate",
    kind: "choice",
    standard: 48000,
    choices: [],
    help: "Of the result. The engine works at 48 kHz; other rates are resampled once, at the end.",
  },
  {
    name: "bitrate",
    group: "Output",
    label: "Bitrate",
    kind: "choice",
    standard: "",
    choices: [],
    when: (values) => !lossless(values.format),
    help: "Of lossy formats; more is better and larger.",
  },
  {
    name: "normalise",
    group: "Output",
    label: "Normalise to −1 dBFS",
    kind: "switch",
    standard: false,
    help: "Brings the highest peak to −1 dBFS also when it is lower. Louder results are turned down always.",
  },
];

export const GROUPS = ["Pitch", "Timbre", "Level", "Melody", "Output"];
/** Groups that are folded until somebody wants them. */
export const FOLDED = new Set(["Melody", "Output"]);

export const lossless = (format) => /^(wav|flac)/.test(format ?? "");

/** The engine's defaults with a voice's own on top. */
export function defaultsOf(voice) {
  const values = Object.fromEntries(FIELDS.map((field) => [field.name, field.standard]));
  for (const [name, value] of Object.entries(voice?.defaults ?? {})) if (name in values) values[name] = value;
  return values;
}

/** What a request carries: everything that is not as the voice wants it, and the output. */
export function fieldsOf(values, voice) {
  const defaults = defaultsOf(voice);
  const always = new Set(["format", "rate"]);
  const wanted = FIELDS.filter(({ name, when }) => {
    if (when && !when(values)) return false;
    return always.has(name) || values[name] !== defaults[name];
  });
  return Object.fromEntries(wanted.map(({ name }) => [name, values[name]]));
}

/** Settings that a stream has no use for: it hears no whole take, and its sound is what the browser plays. */
export const inStream = ({ name, group }) => group !== "Output" && name !== "auto_key" && name !== "pitch";

/** What a stream is told: every setting that it follows. */
export const streamOf = (values) => Object.fromEntries(FIELDS.filter(inStream).map(({ name }) => [name, values[name]]));

/** The settings of a job in short words, as far as they differ from `defaults`: ["key +3", "index share 50 %"]. */
export function differences(job, voice) {
  const defaults = defaultsOf(voice);
  const given = { ...job.settings };
  return FIELDS.filter(({ name, group, when }) => {
    if (group === "Output" || !(name in given) || given[name] === null || (when && !when(given))) return false;
    return given[name] !== defaults[name] && name !== "key";
  }).map((field) => {
    const value = given[field.name];
    if (field.kind === "switch") return field.label.toLowerCase();
    return `${field.label.toLowerCase()} ${field.show ? field.show(value) : Number.isFinite(value) ? Number(value.toFixed(3)) : value}`;
  });
}
