// Single keys, as long as nobody is typing and no control wants the key itself.

import { preference } from "./dom.js";
import { clamp } from "./units.js";

const TYPING = "input:not([type=checkbox]):not([type=range]):not([type=radio]):not([type=button]), textarea, select";
const ARROWS = "input[type=range]";
const PRESSED = "button, a[href], summary, input[type=checkbox], [role=button]";

/**
 * `act` holds the page's own deeds: convert, record, open, help, toggleLoop, toggleMatch. `live` those of the live mode
 * while it is shown: {shown(), toggle, mute, record, hold, release}.
 */
export function listenToKeys({ transport, view, act, live }) {
  const mark = (edge) => {
    const here = transport.position;
    const loop = transport.loop ?? { start: 0, end: transport.seconds };
    const region = { ...loop, [edge]: here };
    if (region.end <= region.start)
      region[edge === "start" ? "end" : "start"] = edge === "start" ? transport.seconds : 0;
    transport.setLoop(region, true);
  };
  const nudge = (event, direction) => {
    const step = event.shiftKey ? 5 : event.altKey ? 0.1 : 1;
    transport.seek(clamp(transport.position + direction * step, 0, transport.seconds));
  };
  const keys = {
    " ": () => transport.toggle(),
    x: () => transport.swap(),
    a: () => transport.hear("A"),
    b: () => transport.hear("B"),
    m: act.toggleMatch,
    l: act.toggleLoop,
    "[": () => mark("start"),
    "]": () => mark("end"),
    Escape: () => transport.setLoop(null, false),
    ArrowLeft: (event) => nudge(event, -1),
    ArrowRight: (event) => nudge(event, 1),
    Home: () => transport.seek(0),
    End: () => transport.seek(transport.seconds),
    "+": () => view.zoom(2, transport.position),
    "=": () => view.zoom(2, transport.position),
    "-": () => view.zoom(0.5, transport.position),
    0: () => view.fit(),
    r: act.record,
    o: act.open,
    "?": act.help,
  };
  const liveKeys = {
    " ": live.toggle,
    a: live.hold,
    m: live.mute,
    r: live.record,
    o: act.open,
    "?": act.help,
  };
  document.addEventListener("keyup", ({ key }) => key.toLowerCase() === "a" && live.release());
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      return live.shown() ? undefined : act.convert();
    }
    if (event.ctrlKey || event.metaKey || (event.altKey && !event.key.startsWith("Arrow"))) return;
    const { target, key } = event;
    if (target.matches(TYPING)) return;
    if (/^(Arrow|Home|End)/.test(key) && target.closest(ARROWS)) return;
    if ((key === " " || key === "Enter") && target.closest(PRESSED)) return;
    if (!preference.get("keys", true) && key !== "Escape") return;
    const deed = (live.shown() ? liveKeys : keys)[key.length === 1 ? key.toLowerCase() : key];
    if (!deed || (event.repeat && !key.startsWith("Arrow"))) return;
    event.preventDefault();
    deed(event);
  });
}
