/** An edit's events (Server-Sent Events), over fetch, since an EventSource sends no API key. Goes on after any cut. */
import { ProblemError, call, pause } from "./api.js";

const FINAL = [401, 403, 404, 410];
const AGAIN_S = 1;

/**
 * @param {string} url
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<{id: string, type: string, data: any}>} ends after `done`; `lost` says that the connection is
 */
export async function* events(url, signal) {
  let last = "";
  while (!signal.aborted) {
    let wait = AGAIN_S;
    try {
      const answer = await call(url, { signal, headers: last ? { "Last-Event-ID": last } : {} });
      if (answer.status === 204) return; // the last id was that of `done`
      for await (const event of parse(answer.body, signal)) {
        if (event.id) last = event.id;
        yield event;
        if (event.type === "done") return;
      }
    } catch (error) {
      if (signal.aborted || (error instanceof ProblemError && FINAL.includes(error.status))) throw error;
      wait = error instanceof ProblemError && error.retryAfter ? error.retryAfter : AGAIN_S;
    }
    yield { id: "", type: "lost", data: null };
    await pause(wait, signal);
  }
}

/** @param {ReadableStream<any>} body @param {AbortSignal} signal */
async function* parse(body, signal) {
  const reader = body.pipeThrough(new TextDecoderStream(), { signal }).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const frames = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = frames.pop();
    for (const frame of frames) {
      const fields = Object.fromEntries(frame.split("\n").map(field));
      if (fields.data) yield { id: fields.id ?? "", type: fields.event ?? "message", data: JSON.parse(fields.data) };
    }
  }
}

/** @param {string} line */
function field(line) {
  const colon = line.indexOf(":");
  return [line.slice(0, colon), line.slice(colon + 1).trimStart()];
}
