// The stream's own thread: blocks go from the capture to the server and from there to the loudspeaker without
// passing the page, which may be busy drawing.

import { FLAG } from "./live_protocol.js";
import { LiveRecording } from "./live_recording.js";
import { LiveSocket } from "./live_socket.js";

const PATIENCE = 1500; // milliseconds without an answer after which a recording waits for no more

let capture = null;
let playback = null;
let recording = null;
let delay = 0;
let rate = 0;
let here = 0; // position of the capture
const counts = { blocks: 0, late: 0, lost: 0 };

const address = `${self.location.protocol === "https:" ? "wss:" : "ws:"}//${self.location.host}/v1/stream`;
const stream = new LiveSocket(address, (message) => {
  if (message.type === "audio") return heard(message);
  if (message.type === "started" || message.type === "applied") delay = message.delay ?? delay;
  if (message.type === "state" && message.phase === "over") finishRecording();
  self.postMessage(message.type === "stats" ? { ...message, counts: { ...counts } } : message);
});

function sung({ samples, position }) {
  here = position + samples.length;
  if (recording) {
    recording.take(samples, position);
    if (recording.full) stopRecording();
  }
  stream.feed(samples, position);
}

function heard({ samples, position, flags }) {
  counts.blocks += 1;
  if (flags & FLAG.late) counts.late += 1;
  if (flags & FLAG.lost) counts.lost += 1;
  if (recording) {
    recording.answer(samples, position, delay);
    if (recording.complete) finishRecording();
  }
  if (!(flags & FLAG.last)) playback?.postMessage({ samples, position }, [samples.buffer]);
}

function stopRecording() {
  const ending = recording;
  if (!ending || ending.stop()) return finishRecording();
  let before = null;
  const look = () => {
    if (recording !== ending) return clearInterval(timer);
    if (ending.wet.next === before) finishRecording();
    before = ending.wet.next;
  };
  const timer = setInterval(look, PATIENCE);
}

function finishRecording() {
  if (!recording) return;
  const files = recording.files();
  recording = null;
  self.postMessage({ type: "recorded", files });
}

const DEEDS = {
  open(message) {
    rate = message.wanted.rate;
    capture = message.capture;
    playback = message.playback;
    capture.onmessage = ({ data }) => sung(data);
    stream.start(message.wanted, message.key);
  },
  change: ({ changes }) => stream.change(changes),
  end: () => stream.end(),
  record: ({ limit }) => (recording = new LiveRecording(rate, here, limit)),
  keep: () => stopRecording(),
};

self.onmessage = ({ data }) => DEEDS[data.deed](data);
