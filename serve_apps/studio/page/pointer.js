// Mouse, pen and fingers on the pictures.

import { clamp, hertz } from "./units.js";

const DRAG = 4; // pixels that make a drag of a click

/** Press to go there, drag to loop, double-press for no loop, wheel to zoom and move. */
export function listenToPointer(stage) {
  const { surface, view, transport } = stage;
  const timeOf = (event) => {
    const box = surface.getBoundingClientRect();
    return clamp(view.time(event.clientX - box.left, box.width), 0, view.seconds);
  };
  let down = null;
  surface.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !transport.ready) return;
    down = { x: event.clientX, time: timeOf(event) };
    if (event.pointerType === "mouse") surface.setPointerCapture(event.pointerId);
  });
  surface.addEventListener("pointermove", (event) => {
    if (!transport.ready) return;
    const time = timeOf(event);
    stage.cursor = { time, frequency: frequencyAt(stage, event) };
    if (down && event.pointerType === "mouse" && Math.abs(event.clientX - down.x) > DRAG) {
      stage.dragged = { start: Math.min(time, down.time), end: Math.max(time, down.time) };
    }
    stage.sheets.over.refresh();
  });
  surface.addEventListener("pointerup", (event) => {
    if (!down) return;
    if (stage.dragged) {
      transport.setLoop(stage.dragged, true);
      if (!transport.playing && transport.loop) transport.seek(transport.loop.start);
    } else if (Math.abs(event.clientX - down.x) <= DRAG) transport.seek(timeOf(event));
    stage.dragged = down = null;
    stage.sheets.over.refresh();
  });
  surface.addEventListener("pointercancel", () => (stage.dragged = down = null));
  surface.addEventListener("pointerleave", () => {
    stage.cursor = null;
    stage.sheets.over.refresh();
  });
  surface.addEventListener("dblclick", () => transport.setLoop(null, false));
  surface.addEventListener(
    "wheel",
    (event) => {
      if (!transport.ready) return;
      const across = Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey;
      if (across) {
        if (view.whole) return;
        const pixels = event.deltaX || event.deltaY;
        view.pan((pixels / surface.clientWidth) * view.width);
      } else if (event.ctrlKey || event.metaKey || event.altKey) view.zoom(2 ** (-event.deltaY / 200), timeOf(event));
      else return;
      event.preventDefault();
    },
    { passive: false },
  );
}

/** Hz under the mouse, in the two lanes that have an axis of pitch. */
function frequencyAt(stage, event) {
  const share = (canvas) => {
    const box = canvas.getBoundingClientRect();
    const place = 1 - (event.clientY - box.top) / box.height;
    return place >= 0 && place <= 1 ? place : null;
  };
  const inSpectrum = share(stage.canvases.spectrum);
  if (inSpectrum !== null) return stage.axis.frequency(inSpectrum);
  const inRoll = share(stage.canvases.roll);
  if (inRoll === null || !stage.range) return 0;
  return hertz(stage.range[0] + inRoll * (stage.range[1] - stage.range[0]));
}
