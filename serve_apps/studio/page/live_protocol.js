// The binary frames of /v1/stream (version 1), and what its close codes mean to a person.

export const VERSION = 1;
const HEADER = 16; // kind, flags (u8 each), reserved (u16), seq (u32), position (u64), little endian
const AUDIO = 1;

/** Bits of an answer's flags. */
export const FLAG = { bypass: 1, late: 2, lost: 4, last: 8 };

/** A block of mono samples (Float32Array) as one message. */
export function packAudio({ seq, position, samples, flags = 0 }) {
  const bytes = new ArrayBuffer(HEADER + 4 * samples.length);
  const view = new DataView(bytes);
  view.setUint8(0, AUDIO);
  view.setUint8(1, flags);
  view.setUint32(4, seq, true);
  view.setBigUint64(8, BigInt(position), true);
  new Float32Array(bytes, HEADER).set(samples);
  return bytes;
}

/** {seq, position, flags, samples} of a message; null when it is none that this version knows. */
export function unpackAudio(bytes) {
  if (bytes.byteLength < HEADER || (bytes.byteLength - HEADER) % 4) return null;
  const view = new DataView(bytes);
  if (view.getUint8(0) !== AUDIO) return null;
  return {
    flags: view.getUint8(1),
    seq: view.getUint32(4, true),
    position: Number(view.getBigUint64(8, true)),
    samples: new Float32Array(bytes, HEADER),
  };
}

const LOST = "The connection was lost.";

/** text: for people. next: "resume" keeps the session, "renew" starts another, "stop" needs a person. */
const CLOSES = {
  1000: { text: "The server ended the stream.", next: "stop" },
  1001: { text: "The server is being renewed; the stream moves to another one.", next: "resume" },
  4400: {
    text: "The server did not understand this page. Reload it; the server may be of another version.",
    next: "stop",
  },
  4401: { text: "The server asks for an API key.", next: "key" },
  4403: {
    text: "The server does not take streams from this address. Open the studio where it is served.",
    next: "stop",
  },
  4404: { text: "The server no longer has this voice. Choose another one.", next: "stop" },
  4408: { text: "Nothing arrived at the server for a while.", next: "resume" },
  4409: { text: "The stream is in use by another connection.", next: "resume" },
  4410: { text: "The server no longer has this stream.", next: "renew" },
  4413: { text: "More came together than the server, or the way to it, takes at once.", next: "renew" },
  4422: { text: "The server does not take these settings for a stream.", next: "stop" },
  4429: { text: "The server has no room for another stream.", next: "resume" },
  4500: { text: "The server failed.", next: "resume" },
  4503: { text: "Parts of the server are not ready.", next: "resume" },
};

/**
 * What to do after a close: {text, next, code}. `error` is the problem that the server sent before; `begun` whether
 * the stream had started, because what cannot begin is not tried again by itself.
 */
export function closed(code, reason, error, begun) {
  const known = CLOSES[code] ?? { text: LOST, next: "resume" };
  const told = error?.detail || error?.title || (code >= 4000 ? reason : "");
  const wait = error?.retry_after ? ` Try again in ${Math.ceil(error.retry_after)} s.` : "";
  const text = begun || CLOSES[code] ? known.text : "The stream could not be opened. Does a proxy block WebSockets?";
  const more = told && !text.toLowerCase().includes(told.toLowerCase()) ? ` ${sentence(told)}` : "";
  const next = begun || known.next === "key" ? known.next : "stop";
  return { text: text + more + wait, next, code, retryAfter: error?.retry_after ?? null };
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
