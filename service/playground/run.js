/** Asking the service: for regions, for an edit, for plain InstructPix2Pix's, and no longer. */
import { call, getJson, submit, untilReached } from "./api.js";
import { ended, follow } from "./follow.js";
import { remember } from "./history.js";
import { loadOutcome, loadRegions, release } from "./outcome.js";
import { settled, written } from "./parts.js";
import { clearProblems, problemAt, showProblem } from "./problems.js";
import { fields, formOf, plainFields } from "./request.js";
import { roll, setFrom } from "./settings.js";
import { change, ownMask, state } from "./store.js";

const IDLE = { status: "sending", step: 0, steps: 0, stage: "", position: null, eta: null, preview: "", lost: false };
let control = new AbortController();

/** What is still followed is no longer what the page shows. It goes on, and stands in the history. */
export function leave() {
  control.abort();
  control = new AbortController();
  change({ busy: null });
}

/**
 * Runs a piece of work that is followed; what is refused is shown where it belongs.
 * @param {"masks" | "edit"} kind
 * @param {(signal: AbortSignal, tell: (news: Partial<import("./store.js").Busy>) => void) => Promise<void>} work
 */
async function during(kind, work) {
  leave();
  clearProblems();
  const { signal } = control;
  change({ busy: { ...IDLE, kind, ids: [] }, painting: -1 });
  try {
    await work(signal, (news) => !signal.aborted && state.busy && change({ busy: { ...state.busy, ...news } }));
  } catch (error) {
    if (!signal.aborted) showProblem(error);
  } finally {
    if (!signal.aborted) change({ busy: null });
  }
}

/** Says what is missing. @returns {Promise<boolean>} */
async function ready() {
  if (!(await settled())) return false;
  if (state.mode === "lines" && written().length) change({ parts: written() });
  if (!state.picture) problemAt("ask-problem", "Choose a picture first, or one of the samples.");
  else if (!written().length) problemAt("ask-problem", "Say what to change, for example: make the hat black.");
  return Boolean(state.picture && written().length);
}

/** @param {any} record @returns {boolean} whether there is something to show */
function succeeded(record) {
  if (record.error) problemAt("ask-problem", `${record.error.title}. ${record.error.detail}`);
  else if (record.status === "canceled") problemAt("ask-problem", "Canceled. Nothing was changed.");
  return record.status === "succeeded";
}

export async function showRegions() {
  if (!(await ready())) return;
  await during("masks", async (signal, tell) => {
    const begun = await submit("/v1/masks", formOf(await fields("masks")));
    tell({ ids: [begun.id] });
    const record = await follow(begun, signal, tell);
    if (!succeeded(record)) return;
    const found = await loadRegions(record);
    signal.throwIfAborted();
    change({ parts: withFound(record, found), used: record.input, view: "picture", showMasks: true });
  });
}

export async function edit() {
  if (!(await ready())) return;
  const looked = state.parts.some((part) => part.region);
  if (!state.settings.locked && state.used.seed === state.settings.seed && (state.outcome || !looked)) roll();
  await during("edit", async (signal, tell) => {
    const form = await fields("edit");
    release(state.outcome);
    release(state.plain);
    change({ outcome: null, plain: null, selected: 0, view: "picture" });
    const begun = await submit("/v1/edits", formOf([...form, { name: "previews", value: "true" }]));
    remember(begun);
    signal.throwIfAborted();
    tell({ ids: [begun.id] });
    const main = follow(begun, signal, tell).then((record) => end(record, signal));
    await Promise.all([main, state.showPlain ? plain(begun, signal, tell) : null]);
  });
}

/** @param {any} record an edit that has ended @param {AbortSignal} signal */
async function end(record, signal) {
  if (!succeeded(record)) return;
  const outcome = await loadOutcome(record);
  signal.throwIfAborted();
  const found = outcome.outputs[0].masks.map((canvas, i) => ({ canvas, area: record.masks[i].area }));
  change({ outcome, parts: withFound(record, found), used: record.input, selected: 0, view: "result" });
}

/**
 * The instructions with the regions and the keywords that were found; a mask that was painted stays, and so does what
 * has been rewritten meanwhile.
 * @param {any} record @param {{canvas: HTMLCanvasElement, area: number}[]} found
 */
const withFound = (record, found) =>
  state.parts.map((part, i) => {
    const asked = record.input.instructions[i];
    if (asked?.text !== part.text || !found[i]) return part;
    const keyword = part.keyword ? part.found : asked.keyword;
    if (ownMask(part)) return { ...part, found: keyword };
    return { ...part, found: keyword, mask: null, region: found[i].canvas, area: found[i].area };
  });

/**
 * @param {any} record the edit beside which it is @param {AbortSignal} signal
 * @param {(news: Partial<import("./store.js").Busy>) => void} tell
 */
async function plain(record, signal, tell) {
  const begun = await submit("/v1/edits", formOf(plainFields(record.input)));
  tell({ ids: [...(state.busy?.ids ?? []), begun.id] });
  const done = await ended(begun, signal);
  if (!succeeded(done)) return;
  const outcome = await loadOutcome(done);
  signal.throwIfAborted();
  change({ plain: outcome });
}

/** The switch, where the edit is there already. */
export async function addPlain() {
  const record = state.outcome?.record;
  if (!state.showPlain || !record || state.plain || state.busy) return;
  await during("edit", (signal, tell) => plain(record, signal, tell));
}

export async function cancel() {
  const ids = state.busy?.ids ?? [];
  change({ busy: { ...state.busy, status: "canceling" } });
  await Promise.all(ids.map((id) => call(`/v1/edits/${id}/cancel`, { method: "POST" }))).catch(showProblem);
}

/** An edit of this browser's history, wherever it is in its life. @param {any} record */
export async function goOn(record) {
  setFrom(record.input);
  await during("edit", async (signal, tell) => {
    tell({ ids: [record.id] });
    await end(await follow(record, signal, tell), signal);
  });
}

/** @param {string} id @returns {Promise<any>} */
export const recordOf = (id) => untilReached(() => getJson(`/v1/edits/${id}`));
