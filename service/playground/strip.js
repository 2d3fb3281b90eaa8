/** The history as a row of small pictures. */
import { ProblemError, getBlob } from "./api.js";
import { byId, el, show } from "./dom.js";
import { entries, onHistory, store } from "./history.js";
import { PaintedMask, fromGrey } from "./mask.js";
import { setLines } from "./parts.js";
import { setPicture } from "./picture.js";
import { clearProblems, showProblem } from "./problems.js";
import { goOn, recordOf } from "./run.js";
import { change, state, watch } from "./store.js";

const GONE = [404, 410];
/** What may have become something else. */
const OPEN = ["waiting", "running", "not reached"];
const LABELS = { queued: "waiting", running: "running", canceling: "running", failed: "failed", canceled: "canceled" };

/** What is known of each edit. @type {Map<string, {url: string, label: string, gone: boolean}>} */
const known = new Map();

/** @param {string} id */
async function look(id) {
  try {
    const record = await recordOf(id);
    const file = record.outputs[0]?.url ?? `${record.urls.self}/files/input.png`;
    known.set(id, { url: URL.createObjectURL(await getBlob(file)), label: LABELS[record.status] ?? "", gone: false });
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error;
    const gone = GONE.includes(error.status);
    known.set(id, { url: "", label: gone ? "expired" : "not reached", gone });
  }
  draw();
}

function draw() {
  const list = entries();
  show("history-section", list.length > 0);
  byId("history").replaceChildren(
    ...list.map(({ id, text }) => {
      const { url, label, gone } = known.get(id) ?? { url: "", label: "", gone: false };
      const picture = url
        ? el("img", { src: url, alt: "", width: 96, height: 96 })
        : el("span", { class: "no-picture" });
      const name = el("span", {}, text);
      return el(
        "li",
        {},
        el(
          "button",
          { type: "button", class: "thumb", disabled: gone, "data-id": id, onclick: () => open(id) },
          picture,
          name,
          label ? el("span", { class: "label" }, label) : null,
        ),
      );
    }),
  );
}

/** @param {string} id shows it again, with everything that it was asked for */
async function open(id) {
  clearProblems();
  try {
    const record = await recordOf(id);
    const blob = await getBlob(`${record.urls.self}/files/input.png`);
    if (!(await setPicture(blob, "input.png"))) return;
    setLines(record.input.instructions);
    await givenMasks(record);
    await goOn(record);
  } catch (error) {
    showProblem(error);
    void look(id);
  }
}

/** Masks that were given come back as masks that can be painted on. @param {any} record */
async function givenMasks(record) {
  const found = await Promise.all(
    record.input.instructions.map(async ({ has_mask: given }, i) => {
      const mask = given && record.masks.find((one) => one.instruction === i);
      return mask ? fromGrey(await createImageBitmap(await getBlob(mask.url))) : null;
    }),
  );
  const { width, height } = record.input;
  change({
    parts: state.parts.map((part, i) =>
      found[i] ? { ...part, mask: new PaintedMask(width, height, found[i]) } : part,
    ),
  });
}

export function startHistory() {
  byId("forget").addEventListener("click", () => store([]));
  onHistory(() => {
    for (const { id } of entries()) if (!known.has(id)) void look(id);
    draw();
  });
  watch(["busy", "keyNeeded"], () => {
    if (state.busy || state.keyNeeded) return;
    for (const { id } of entries()) if (OPEN.includes(known.get(id)?.label ?? "")) void look(id);
  });
}
