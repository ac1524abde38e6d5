// Questions and answers in dialogs: confirm, API key, web address, keyboard.

import { button, el, preference } from "./dom.js";

/** A modal dialog around `content(close)`; resolves to what `close` was given, null when dismissed. */
export function ask(title, content, { wide = false } = {}) {
  return new Promise((resolve) => {
    let answer = null;
    const before = document.activeElement;
    const dialog = el("dialog", { class: wide ? "wide" : undefined, "aria-labelledby": "dialog-title" });
    const close = (value = null) => {
      answer = value;
      dialog.close();
    };
    dialog.append(
      el(
        "header",
        {},
        el("h2", { id: "dialog-title" }, title),
        button({ glyph: "close", label: "Close", press: () => close() }),
      ),
      content(close, dialog),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (before?.isConnected) before.focus();
      resolve(answer);
    });
    // A press beside the dialog dismisses it.
    dialog.addEventListener("pointerdown", (event) => event.target === dialog && close());
    document.body.append(dialog);
    dialog.showModal();
  });
}

const buttons = (...nodes) => el("div", { class: "buttons" }, nodes);
const cancel = (close) => button({ text: "Cancel", press: () => close() });

export function confirm(title, text, verb) {
  return ask(title, (close) =>
    el(
      "div",
      {},
      el("p", {}, text),
      buttons(cancel(close), button({ text: verb, class: "danger", press: () => close(true) })),
    ),
  ).then(Boolean);
}

/** A form with one field; resolves to its text or null. */
function askText(title, text, label, verb, attributes) {
  return ask(title, (close) => {
    const input = el("input", {
      id: "ask-text",
      required: true,
      autocomplete: "off",
      spellcheck: "false",
      ...attributes,
    });
    const submit = (event) => {
      event.preventDefault();
      if (input.value.trim()) close(input.value.trim());
    };
    return el(
      "form",
      { on: { submit } },
      el("p", {}, text),
      el("label", { for: "ask-text" }, label),
      input,
      buttons(cancel(close), el("button", { type: "submit", class: "go" }, verb)),
    );
  });
}

export function askKey(refused) {
  const text = refused
    ? "The server does not accept this key. Give another one."
    : "This server asks for an API key. It is kept in this tab only, until you close it.";
  return askText("API key", text, "Key", "Use key", { type: "password" });
}

export function askUrl(value = "") {
  const text = "The server fetches the take itself: an address on http or https that leads to an audio file.";
  return askText("Take from a web address", text, "Address", "Add", { type: "url", value, placeholder: "https://…" });
}

const KEYS = [
  [
    "Listen",
    [
      ["Space", "play, pause"],
      ["X", "switch between A and B"],
      ["A  B", "hear A, hear B"],
      ["M", "same loudness for A and B"],
      ["←  →", "back, forward 1 s (Shift: 5 s, Alt: 0.1 s)"],
      ["Home  End", "start, end"],
    ],
  ],
  [
    "Loop and zoom",
    [
      ["L", "loop on, off"],
      ["[  ]", "loop starts, ends here"],
      ["Esc", "no loop region"],
      ["+  −", "zoom in, out"],
      ["0", "show all"],
    ],
  ],
  [
    "Work",
    [
      ["R", "record, stop"],
      ["O", "open files"],
      ["Ctrl/⌘ Enter", "convert"],
      ["↑  ↓", "previous, next take (in the list)"],
      ["?", "this page"],
    ],
  ],
  [
    "Live",
    [
      ["Space", "start, stop"],
      ["A", "hear yourself while it is held"],
      ["M", "hear it, mute it"],
      ["R", "record, stop recording"],
    ],
  ],
];

export function showHelp() {
  return ask(
    "Keyboard and mouse",
    () => {
      const single = el("input", {
        type: "checkbox",
        id: "single-keys",
        on: { change: () => preference.set("keys", single.checked) },
      });
      single.checked = preference.get("keys", true);
      return el(
        "div",
        { class: "help" },
        el(
          "div",
          { class: "columns" },
          KEYS.map(([title, rows]) =>
            el(
              "section",
              {},
              el("h3", {}, title),
              el(
                "dl",
                {},
                rows
                  .map(([keys, what]) => [
                    el(
                      "dt",
                      {},
                      keys.split("  ").map((key) => el("kbd", {}, key)),
                    ),
                    el("dd", {}, what),
                  ])
                  .flat(),
              ),
            ),
          ),
        ),
        el(
          "p",
          {},
          "In the pictures: press to go there, drag to loop, double-press to end the loop, Ctrl or Alt with the wheel zooms, Shift with the wheel moves.",
        ),
        el(
          "p",
          {},
          "A and B play on one clock: both start at the same sample, and switching only changes which one is heard.",
        ),
        el("label", { class: "check", for: "single-keys" }, single, "Single keys work as shortcuts"),
      );
    },
    { wide: true },
  );
}

/** Messages that stay until they are read. `action` is {text, press}. */
export function notice(text, { kind = "error", action = null } = {}) {
  const root = document.getElementById("notices");
  const node = el(
    "div",
    { class: `notice ${kind}`, role: kind === "error" ? "alert" : "status" },
    el("p", {}, text),
    action &&
      button({
        text: action.text,
        press: () => {
          node.remove();
          action.press();
        },
      }),
    button({ glyph: "close", label: "Dismiss", press: () => node.remove() }),
  );
  for (const same of [...root.children]) if (same.firstChild.textContent === text) same.remove();
  root.append(node);
  while (root.children.length > 4) root.firstChild.remove();
  if (kind === "done") setTimeout(() => node.remove(), 6000);
  return node;
}
