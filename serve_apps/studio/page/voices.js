// Voices: the chosen one with its facts, and the dialog that lists, imports and removes them.

import { announce, button, el, icon, preference, replace } from "./dom.js";
import { ask, confirm, notice } from "./dialogs.js";
import { bytes, kilohertz, midi, noteName } from "./units.js";

const BUNDLE = "bundle";

export class Voices extends EventTarget {
  /** `limits` are the server's; they arrive later. */
  constructor(root, api, limits) {
    super();
    Object.assign(this, { root, api, limits, voices: [], damaged: [], chosen: null });
    this.select = el("select", { id: "voice-select", on: { change: () => this.choose(this.select.value) } });
    this.facts = el("p", { class: "facts" });
    this.licence = el("p", { class: "facts licence" });
    replace(
      this.root,
      el(
        "div",
        { class: "head" },
        el("h3", {}, el("label", { for: "voice-select" }, "Voice")),
        button({ glyph: "plus", text: "Voices…", label: "Import and manage voices", press: () => this.manage() }),
      ),
      this.select,
      this.facts,
      this.licence,
    );
  }

  async load() {
    const { voices, damaged } = await this.api.json("/v1/voices");
    this.voices = voices;
    this.damaged = damaged ?? [];
    const wanted = this.chosen?.name ?? preference.get("voice", BUNDLE);
    this.choose(this.find(wanted) ? wanted : BUNDLE);
    this.showList?.();
  }

  find(name) {
    return this.voices.find((voice) => voice.name === name) ?? null;
  }

  choose(name) {
    this.chosen = this.find(name) ?? this.voices[0] ?? null;
    if (this.chosen) preference.set("voice", this.chosen.name);
    replace(
      this.select,
      this.voices.map((voice) => el("option", { value: voice.name }, voice.name)),
    );
    this.select.value = this.chosen?.name ?? "";
    const voice = this.chosen;
    this.facts.textContent = voice ? factsOf(voice).join(" · ") : "";
    this.licence.textContent = voice ? voice.info || "" : "";
    this.licence.append(voice?.info ? el("br") : "", voice ? `Licence: ${voice.licence || "not stated"}` : "");
    this.dispatchEvent(new Event("change"));
  }

  /** The dialog. */
  manage() {
    return ask(
      "Voices",
      (close) => {
        const list = el("ul", { class: "voice-list" });
        this.showList = () =>
          replace(
            list,
            this.voices.map((voice) => this.entry(voice, close)),
            this.damaged.map(damagedEntry),
          );
        this.showList();
        const closed = el("p", { class: "hint" }, "This server does not let its clients add or remove voices.");
        return el("div", { class: "voices" }, list, this.fixed ? closed : this.importForm());
      },
      { wide: true },
    ).then(() => (this.showList = null));
  }

  get fixed() {
    return this.limits.import_voices === false;
  }

  entry(voice, close) {
    const chosen = voice === this.chosen;
    const use = button({
      text: chosen ? "In use" : "Use",
      label: `Use ${voice.name}`,
      disabled: chosen,
      press: () => {
        this.choose(voice.name);
        close();
      },
    });
    const remove =
      voice.name === BUNDLE || this.fixed
        ? null
        : button({ glyph: "trash", label: `Remove ${voice.name}`, press: () => this.remove(voice) });
    const credits = voice.extra?.credits;
    return el(
      "li",
      { class: chosen ? "chosen" : undefined, data: { voice: voice.name } },
      el(
        "div",
        {},
        el("b", {}, voice.name),
        el("p", { class: "facts" }, factsOf(voice).join(" · ")),
        voice.info && el("p", { class: "facts" }, voice.info),
        el("p", { class: "facts" }, `Licence: ${voice.licence || "not stated"}`),
        typeof credits === "string" && el("p", { class: "facts" }, credits),
      ),
      el("div", { class: "group" }, use, remove),
    );
  }

  async remove(voice) {
    if (
      !(await confirm(
        `Remove ${voice.name}?`,
        "The voice is deleted from the server's library. Results made with it stay.",
        "Remove",
      ))
    )
      return;
    try {
      await this.api.send(`/v1/voices/${encodeURIComponent(voice.name)}`, { method: "DELETE" });
      await this.load();
      announce(`${voice.name} removed`);
    } catch (problem) {
      notice(problem.text ?? String(problem));
    }
  }

  importForm() {
    const files = el("input", {
      type: "file",
      id: "import-files",
      multiple: true,
      accept: ".pth,.pt,.ckpt,.safetensors,.zip,.index",
    });
    const url = el("input", { type: "url", id: "import-url", placeholder: "https://…", spellcheck: "false" });
    const indexUrl = el("input", {
      type: "url",
      id: "import-index-url",
      placeholder: "https://…",
      spellcheck: "false",
    });
    const name = el("input", { id: "import-name", autocomplete: "off", spellcheck: "false" });
    const licence = el("input", { id: "import-licence", autocomplete: "off" });
    const overwrite = el("input", { type: "checkbox", id: "import-replace" });
    const go = el("button", { type: "submit", class: "go" }, icon("plus"), el("span", {}, "Import"));
    const state = el("p", { class: "hint", role: "status" });
    const row = (label, input, hint) =>
      el(
        "div",
        { class: "pair" },
        el("label", { for: input.id }, label),
        input,
        hint && el("p", { class: "hint" }, hint),
      );
    const submit = async (event) => {
      event.preventDefault();
      go.disabled = true;
      state.classList.remove("bad");
      try {
        const voice = await this.import_(
          {
            files: files.files,
            url: url.value.trim(),
            indexUrl: indexUrl.value.trim(),
            name: name.value.trim(),
            licence: licence.value.trim(),
            overwrite: overwrite.checked,
          },
          (text) => (state.textContent = text),
        );
        state.textContent = `${voice.name} is in the library.`;
        event.target.reset();
        await this.load();
        this.choose(voice.name);
        this.showList?.();
      } catch (problem) {
        state.textContent = problem.text ?? problem.message;
        state.classList.add("bad");
      }
      go.disabled = false;
    };
    return el(
      "form",
      { class: "import", on: { submit } },
      el("h3", {}, "Import a voice"),
      row(
        "Files",
        files,
        "The voice (.pth, .safetensors or .zip) and, if there is one, its .index. Nothing in them is run.",
      ),
      row("or address", url),
      row("its index", indexUrl),
      row("Name", name, "Empty: after the file."),
      row("Licence", licence, "What the voice may be used for, in your words."),
      el("label", { class: "check", for: "import-replace" }, overwrite, "Replace a voice of the same name"),
      el("div", { class: "buttons" }, state, go),
    );
  }

  /** Raises Problem, or Error with what is missing. */
  async import_({ files, url, indexUrl, name, licence, overwrite }, say) {
    if (!files.length && !url) throw new Error("Choose the voice's file, or give its address.");
    if (files.length && url) throw new Error("Give files or an address, not both.");
    if (url) {
      say("The server fetches the voice…");
      const given = { url, index_url: indexUrl || undefined, name: name || undefined, licence: licence || undefined };
      return this.api.post("/v1/voices", { ...given, replace: overwrite });
    }
    const indexes = [...files].filter((file) => file.name.endsWith(".index"));
    const voices = [...files].filter((file) => !file.name.endsWith(".index"));
    if (voices.length !== 1 || indexes.length > 1)
      throw new Error("Choose one voice file and at most one .index beside it.");
    const form = new FormData();
    if (name) form.append("name", name);
    if (licence) form.append("licence", licence);
    form.append("replace", String(overwrite));
    form.append("voice", voices[0], voices[0].name);
    if (indexes.length) form.append("index", indexes[0], indexes[0].name);
    say("Uploading…");
    return this.api.upload("/v1/voices", form, {
      sent: (fraction) =>
        say(fraction < 1 ? `Uploading… ${Math.round(100 * fraction)} %` : "The server checks the file…"),
    });
  }
}

function damagedEntry(name) {
  return el(
    "li",
    {},
    el("div", {}, el("b", {}, name), el("p", { class: "facts bad" }, "Its files are damaged. Import it again.")),
  );
}

/** The facts of a voice in a few words each. */
export function factsOf(voice) {
  return [
    [voice.family === "rvc" ? "RVC" : voice.family, voice.version].filter(Boolean).join(" "),
    kilohertz(voice.sample_rate),
    voice.median_f0 ? `around ${noteName(Math.round(midi(voice.median_f0)))}` : null,
    voice.index_vectors > 0 ? `index of ${voice.index_vectors.toLocaleString("en")}` : "no index",
    voice.speakers > 1 ? `${voice.speakers} speakers` : null,
    voice.uses_f0 ? null : "speech only",
    voice.size ? bytes(voice.size) : null,
  ].filter(Boolean);
}
