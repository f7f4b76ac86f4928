// The registry's events (server-sent events) over fetch: unlike EventSource it says why it was refused, and hears the
// comments that show that a silent stream is alive.

const SILENCE_MAX = 40_000;
const WAITS = [1, 2, 4, 8, 15];

/** Follows `url`. `heard(name, data)` is called with each event, `lost(reason, seconds)` when there is none to hear. */
export class Stream {
  #url;
  #heard;
  #lost;
  #tries = 0;
  #timer = 0;
  #abort = null;

  constructor(url, heard, lost) {
    this.#url = url;
    this.#heard = heard;
    this.#lost = lost;
  }

  /** Connect now. */
  async open() {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    const abort = (this.#abort = new AbortController());
    let reason = "the registry ended the connection";
    try {
      reason = (await this.#follow(abort)) ?? reason;
    } catch {
      reason = abort.signal.aborted ? "the registry is silent" : "the registry does not answer";
    }
    if (abort !== this.#abort) return; // opened again meanwhile
    const seconds = WAITS[Math.min(this.#tries, WAITS.length - 1)];
    this.#tries += 1;
    this.#timer = setTimeout(() => this.open(), seconds * 1000);
    this.#lost(reason, seconds);
  }

  async #follow(abort) {
    let watch = setTimeout(() => abort.abort(), SILENCE_MAX);
    try {
      const response = await fetch(this.#url, { signal: abort.signal, cache: "no-store" });
      if (!response.ok) return (await response.json().catch(() => null))?.error;
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let pieces = [];
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return null;
        clearTimeout(watch);
        watch = setTimeout(() => abort.abort(), SILENCE_MAX);
        // A large event comes in many pieces: they are joined when it ends
        const isEnding = value.includes("\n\n") || (value.startsWith("\n") && pieces.at(-1)?.endsWith("\n"));
        pieces.push(value);
        if (!isEnding) continue;
        const events = pieces.join("").split("\n\n");
        pieces = [events.pop()];
        for (const event of events) this.#parse(event);
      }
    } finally {
      clearTimeout(watch);
    }
  }

  #parse(text) {
    let name = "message";
    const data = [];
    for (const line of text.split("\n")) {
      if (line.startsWith("event: ")) name = line.slice(7);
      else if (line.startsWith("data: ")) data.push(line.slice(6));
    }
    if (!data.length) return;
    this.#tries = 0;
    this.#heard(name, JSON.parse(data.join("\n")));
  }
}

/** Ask the registry to change something; its answer, or an Error with its line. */
export async function ask(path, body) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Error("the registry does not answer: see whether this host is still joined");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? `the registry answered ${response.status}`);
  return answer;
}
