/** Follows one edit to its end through its events, whatever is restarted meanwhile. */
import { getJson, pause, untilReached } from "./api.js";
import { events } from "./stream.js";

const POSITION_MS = 1500;
export const TERMINAL = ["succeeded", "failed", "canceled"];

/**
 * @param {any} record @param {AbortSignal} signal
 * @param {(news: Partial<import("./store.js").Busy>) => void} tell
 * @returns {Promise<any>} the final record
 */
export async function follow(record, signal, tell) {
  tell(place(record));
  let waits = record.status === "queued";
  const timer = setInterval(async () => {
    if (!waits) return;
    const now = await getJson(record.urls.self, signal).catch(() => null); // the stream is what counts
    if (now && waits) tell(place(now));
  }, POSITION_MS);
  try {
    for await (const { type, data } of events(record.urls.events, signal)) {
      if (type === "lost") tell({ lost: true });
      if (type === "status") {
        waits = data.status === "queued";
        tell({ lost: false, ...(data.urls ? place(data) : { status: data.status }) });
      }
      if (type === "progress")
        tell({ lost: false, status: "running", step: data.step, steps: data.steps, stage: data.stage });
      if (type === "preview") tell({ preview: data.url });
    }
  } finally {
    clearInterval(timer);
  }
  return untilReached(() => getJson(record.urls.self, signal));
}

/** By asking now and then, which holds no connection. @param {any} record @param {AbortSignal} signal @returns {Promise<any>} */
export async function ended(record, signal) {
  while (!TERMINAL.includes(record.status)) {
    await pause(1, signal);
    record = await untilReached(() => getJson(record.urls.self, signal));
  }
  return record;
}

/** @param {any} record @returns {Partial<import("./store.js").Busy>} */
const place = (record) => ({
  status: record.status,
  position: record.queue_position,
  eta: record.eta_s,
  ...record.progress,
});
