// The page put together.

import { Api } from "./api.js";
import { Clips } from "./clips.js";
import { askKey, askUrl, notice, showHelp } from "./dialogs.js";
import { announce, byId, el, icon, preference, replace } from "./dom.js";
import { History } from "./history.js";
import { listenForTakes } from "./intake.js";
import { listenToKeys } from "./keyboard.js";
import { LiveMode } from "./live_mode.js";
import { Loader } from "./loader.js";
import { RecorderPanel } from "./recorder_panel.js";
import { Server } from "./server.js";
import { Session } from "./session.js";
import { SettingsForm } from "./settings_form.js";
import { Stage } from "./stage.js";
import { Transport } from "./transport.js";
import { TransportBar } from "./transport_bar.js";
import { View } from "./view.js";
import { Voices } from "./voices.js";
import { Work } from "./work.js";

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const theme = () => document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");

const limits = {};
const server = new Server(() => begin());
const api = new Api({ askKey: askForKey, reached: (yes) => server.reached(yes) });
const session = new Session();
const transport = new Transport();
const view = new View();
const clips = new Clips();
const stage = new Stage(byId("lanes"), { transport, view, theme, open: () => pick(), record: () => record() });
const loader = new Loader({ api, session, clips, transport, failed: notice, melodies: () => stage.melodyChanged() });
const settings = new SettingsForm(byId("settings"));
const voices = new Voices(byId("voice"), api, limits);
const work = new Work({ api, session, loader, clips, settings, voices, limits });
const bar = new TransportBar(byId("transport"), byId("slots"), { transport, session });

voices.addEventListener("change", () => settings.setVoice(voices.chosen));

const pick = listenForTakes({
  files: (files) => {
    work.add(files);
    showPane("stage");
  },
  address: (text) => addAddress(text),
  refused: (names) =>
    notice(`Not an audio file: ${names.join(", ")}. Add WAV, FLAC, AIFF, MP3, Opus or M4A; voices go into “Voices…”.`),
});

const live = new LiveMode({ api, voices, settings, session, limits });

const recorder = new RecorderPanel(byId("recorder"), byId("record"), {
  done: (file) => {
    work.add([file]);
    showPane("stage");
  },
  failed: notice,
  limit: () => limits.take_seconds ?? 3600,
});

new History(byId("history"), {
  session,
  voices,
  act: {
    select: (take) => {
      session.select(take);
      live.show(false);
      if (matchMedia("(max-width: 820px)").matches) showPane("stage");
    },
    assign: (slot, take, result) => {
      session.assign(slot, take, result);
      live.show(false);
      transport.hear(slot);
    },
    adopt: (result) => {
      work.adopt(result);
      showPane("setup");
    },
    retry: (take) => {
      session.selected === take || session.select(take);
      work.convert(take);
    },
    cancel: (result) => work.cancel(result),
    cancelBatch: (batch) => work.cancelBatch(batch),
    remove: (take, result) => work.remove(take, result),
    removeTake: (take) => work.removeTake(take),
    download: (result) => work.download(result),
    archive: (batch) => work.archive(batch),
  },
});

// Buttons of the page

function face(id, glyph, text, press) {
  const node = byId(id);
  replace(node, icon(glyph), text && el("span", {}, text));
  node.addEventListener("click", press);
  return node;
}

face("open", "open", "Open", pick);
face("record", "record", "Record", () => record());
face("from-url", "link", "", () => addAddress()).setAttribute("aria-label", "Take from a web address");
face("help", "help", "", showHelp);
face("theme", "theme", "", () => setTheme(theme() === "dark" ? "light" : "dark"));
face("key-button", "key", "", async () => {
  const key = await askKey(false);
  if (key) api.key = key;
});

function record() {
  live.show(false);
  showPane("takes");
  if (recorder.recorder.recording) recorder.finish();
  else if (recorder.shown) recorder.hide();
  else recorder.show();
}

async function addAddress(text = "") {
  const url = await askUrl(text);
  if (url) work.addUrl(url);
}

async function askForKey(refused) {
  byId("key-button").hidden = false;
  return askKey(refused);
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  preference.set("theme", name);
  announce(`${name} colours`);
  stage.refresh();
}
dark.addEventListener("change", () => stage.refresh());

const tabs = document.querySelectorAll(".tabs button");
function showPane(pane) {
  if (pane === "live" || pane === "stage") live.show(pane === "live");
  byId("desk").dataset.pane = pane;
  for (const tab of tabs) tab.setAttribute("aria-pressed", String(tab.dataset.pane === pane));
}
for (const tab of tabs) tab.addEventListener("click", () => showPane(tab.dataset.pane));

// The button that converts

const convert = el("button", { type: "button", class: "go", id: "go", on: { click: () => go() } });
const target = el("p", { class: "hint" });
replace(byId("convert"), target, convert);

function showConvert() {
  const takes = work.next;
  convert.disabled = !takes.length || !voices.chosen;
  convert.textContent = takes.length > 1 ? `Convert ${takes.length} takes` : "Convert";
  convert.title = "Convert (Ctrl or ⌘ with Enter)";
  const voice = voices.chosen?.name ?? "no voice";
  const what = takes.length > 1 ? "all new takes" : takes.length ? takes[0].name : "no take yet";
  replace(target, el("span", { class: "from" }, what), " → ", el("b", {}, voice));
}
session.addEventListener("change", showConvert);
voices.addEventListener("change", showConvert);
showConvert();

function go() {
  if (convert.disabled) return work.convertNext();
  const job = work.convertNext();
  showPane("takes");
  return job;
}

// A pressed button gives the keyboard back to the transport; who moves by Tab keeps the focus.
document.addEventListener("click", (event) => {
  // The path, because a press may have replaced the icon that was pressed.
  const pressed = event.detail > 0 && event.composedPath().find((node) => node.tagName === "BUTTON");
  if (pressed && !pressed.closest("dialog")) pressed.blur();
});
document.addEventListener(
  "pointerup",
  ({ target: node }) => node.matches?.("input[type=range]") && setTimeout(() => node.blur()),
);

listenToKeys({
  transport,
  view,
  act: {
    convert: go,
    record: () => {
      showPane("takes");
      recorder.press();
    },
    open: pick,
    help: showHelp,
    toggleLoop: () => bar.toggleLoop(),
    toggleMatch: () => bar.toggleMatch(),
  },
  live: live.keys,
});

window.addEventListener("beforeunload", (event) => {
  if (recorder.recorder.recording || live.run.recordingSince || work.uploads.size) event.preventDefault();
});

// Start

let begun = false;

/** What the page needs to know of the server; repeated when it was away. */
async function begin() {
  try {
    await voices.load();
    const [formats, models, numbers] = await Promise.all(
      ["/v1/formats", "/v1/models", "/v1/limits"].map((path) => api.json(path)),
    );
    settings.setFormats(formats.formats);
    settings.setExtractors(models.pitch_extractors);
    Object.assign(limits, numbers);
    if (begun) return;
    const running = await session.restore(api);
    begun = true;
    running.forEach((id) => work.follower.follow(id));
    session.changed();
  } catch (problem) {
    if (!problem.offline) notice(problem.text ?? String(problem));
  }
}

server.check();
begin();
