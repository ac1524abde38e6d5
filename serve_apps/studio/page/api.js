// The HTTP API as functions. Every failure is a Problem that a person can read.

const KEY = "rocktop.key";

/** What the server, or the way to it, refused. `detail` says what to do. */
export class Problem extends Error {
  constructor(facts) {
    super(facts.detail || facts.title || "Something went wrong.");
    this.name = "Problem";
    this.status = facts.status ?? 0;
    this.code = facts.code ?? "unknown";
    this.stage = facts.stage ?? "";
    this.title = facts.title ?? "";
    this.errors = facts.errors ?? [];
    this.retryable = facts.retryable ?? false;
    this.retryAfter = facts.retryAfter ?? null;
    this.requestId = facts.request_id ?? "";
  }

  /** The server was not reached at all. */
  get offline() {
    return this.code === "offline";
  }

  /** Detail, fields and the time to wait, as one text. */
  get text() {
    const fields = this.errors.map((error) => `${error.field}: ${error.message}`).join("; ");
    const wait = this.retryAfter ? ` Try again in ${this.retryAfter} s.` : "";
    const known = fields && !this.message.includes(this.errors[0].message) ? ` (${fields})` : "";
    return sentence(this.message + known) + wait;
  }
}

/** A capital and a full stop; file names and settings at the beginning stay as they are. */
const sentence = (text) => {
  const whole = /^[a-z]+[\s,:]/.test(text) ? text.charAt(0).toUpperCase() + text.slice(1) : text;
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
};

/** A problem object of the API (or of a failed job), whatever it came as. */
export function problemOf(data, status = 0, headers = null, requestId = "") {
  const facts = data && typeof data === "object" ? data : {};
  const detail = facts.detail ?? facts.message ?? (status ? `The server answered ${status}.` : undefined);
  return new Problem({
    ...facts,
    detail: typeof detail === "string" ? detail : JSON.stringify(detail),
    status: facts.status ?? status,
    retryAfter: Number(headers?.("Retry-After")) || null,
    request_id: facts.request_id ?? requestId,
  });
}

const unreachable = () =>
  new Problem({
    code: "offline",
    retryable: true,
    detail: "The server does not answer. Is it running, and are you online?",
  });

export class Api {
  /** `askKey(refused)` resolves to a key, or null; `reached(yes)` hears whether the server answered. */
  constructor({ askKey, reached }) {
    this.askKey = askKey;
    this.reached = reached;
    this.asking = null;
  }

  get key() {
    try {
      return sessionStorage.getItem(KEY) ?? this.unsaved ?? "";
    } catch {
      return this.unsaved ?? "";
    }
  }

  set key(value) {
    this.unsaved = value;
    try {
      if (value) sessionStorage.setItem(KEY, value);
      else sessionStorage.removeItem(KEY);
    } catch {
      // no storage: the key lives as long as the page
    }
  }

  /** fetch, with the key; asks for one on 401 and tries again. Raises Problem. */
  async send(path, { method = "GET", body, headers = {}, signal } = {}) {
    for (;;) {
      const key = this.key;
      const auth = key ? { Authorization: `Bearer ${key}` } : {};
      let response;
      try {
        response = await fetch(path, { method, body, signal, headers: { ...headers, ...auth }, credentials: "omit" });
      } catch (error) {
        if (error.name === "AbortError") throw error;
        this.reached(false);
        throw unreachable();
      }
      this.reached(true);
      if (response.ok) return response;
      if (response.status === 401 && (await this.newKey(key))) continue;
      const data = await response.json().catch(() => null);
      throw problemOf(
        data,
        response.status,
        (name) => response.headers.get(name),
        response.headers.get("X-Request-Id"),
      );
    }
  }

  /** True when another key than `refused` is at hand. Several refused calls share one question. */
  async newKey(refused) {
    if (this.key !== refused) return true;
    this.asking ??= this.askKey(refused !== "").finally(() => (this.asking = null));
    const key = await this.asking;
    if (key) this.key = key;
    return Boolean(key) && key !== refused;
  }

  async json(path, options) {
    const response = await this.send(path, options);
    return response.status === 204 ? null : response.json();
  }

  post(path, data) {
    return this.json(path, {
      method: "POST",
      body: JSON.stringify(data),
      headers: { "Content-Type": "application/json" },
    });
  }

  /** A form with files; `sent(fraction)` follows the upload, which fetch cannot tell. Raises Problem. */
  async upload(path, form, { sent, signal } = {}) {
    for (;;) {
      const key = this.key;
      const answer = await this.uploadOnce(path, form, key, sent, signal);
      if (answer.status >= 200 && answer.status < 300) return answer.data;
      if (answer.status === 401 && (await this.newKey(key))) continue;
      throw problemOf(answer.data, answer.status, answer.header, answer.header("X-Request-Id"));
    }
  }

  uploadOnce(path, form, key, sent, signal) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("POST", path);
      request.responseType = "json";
      if (key) request.setRequestHeader("Authorization", `Bearer ${key}`);
      request.upload.onprogress = (event) => event.lengthComputable && sent?.(event.loaded / event.total);
      request.onload = () => {
        this.reached(true);
        const header = (name) => request.getResponseHeader(name);
        resolve({ status: request.status, data: request.response, header });
      };
      request.onerror = () => {
        this.reached(false);
        reject(unreachable());
      };
      request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
      if (signal?.aborted) return request.onabort();
      signal?.addEventListener("abort", () => request.abort(), { once: true });
      request.send(form);
    });
  }

  job(id) {
    return this.json(`/v1/jobs/${encodeURIComponent(id)}`);
  }

  /** Cancels a running job, removes a finished one. */
  endJob(id) {
    return this.json(`/v1/jobs/${encodeURIComponent(id)}`, { method: "DELETE" });
  }

  async blob(path, signal) {
    return (await this.send(path, { signal })).blob();
  }

  /** States of a job as the server sends them (server-sent events, read by hand: EventSource takes no key). */
  async *events(id, signal) {
    const headers = { Accept: "text/event-stream" };
    const response = await this.send(`/v1/jobs/${encodeURIComponent(id)}/events`, { headers, signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    try {
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        text += value.replaceAll("\r\n", "\n");
        const blocks = text.split("\n\n");
        text = blocks.pop();
        for (const block of blocks) {
          const data = block
            .split("\n")
            .filter((line) => line.startsWith("data:"))
            .map((line) => line.slice(5).trimStart());
          if (data.length) yield JSON.parse(data.join("\n"));
        }
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }
}
