/** The instructions: one text that the service splits while it is written, or lines; a card for each. */
import { call } from "./api.js";
import { makeCard, updateCard } from "./card.js";
import { byId, press, show } from "./dom.js";
import { clearProblems, showProblem } from "./problems.js";
import { change, state, watch } from "./store.js";

const PAUSE_MS = 200;
const COLOURS = ["#e6189b", "#00a6ed", "#ff8a00", "#7a3cff", "#14b86a", "#f5c400", "#e5484d", "#008a94"];

let timer = 0;
/** @type {AbortController | null} */
let asking = null;
/** @type {Promise<void>} */
let split = Promise.resolve();
/** Whether the cards are those of what is written. */
let current = true;

/** @param {string} text @param {number} index @returns {import("./store.js").Part} */
function fresh(text, index) {
  return {
    text,
    found: null,
    keyword: "",
    intensity: 1,
    colour: COLOURS[index % COLOURS.length],
    mask: null,
    region: null,
    area: null,
  };
}

/** The instructions that are sent: an empty line is none. */
export const written = () => state.parts.filter((part) => part.text.trim());

/** @param {string} text as if it had been typed */
export function setText(text) {
  byId("text").value = text;
  change({ text });
  void ask();
}

/** Waits until the service has read what is written. @returns {Promise<boolean>} false where it could not, and it is said */
export async function settled() {
  if (!current) await ask();
  await split;
  return current;
}

function soon() {
  current = false;
  clearTimeout(timer);
  timer = window.setTimeout(ask, PAUSE_MS);
}

function ask() {
  clearTimeout(timer);
  current = false;
  asking?.abort();
  asking = new AbortController();
  split = read(asking.signal);
  return split;
}

/** @param {AbortSignal} signal */
async function read(signal) {
  clearProblems();
  const form = new FormData();
  if (state.mode === "text") form.append("instruction", state.text);
  else form.append("instructions", JSON.stringify(written().map(({ text }) => ({ text }))));
  if (state.mode === "text" ? !state.text.trim() : !written().length) {
    if (state.mode === "text") change({ parts: [] });
    current = true;
    return;
  }
  try {
    const answer = await call("/v1/instructions", { method: "POST", body: form, signal });
    merge((await answer.json()).instructions);
    current = true;
  } catch (error) {
    if (!signal.aborted) showProblem(error);
  }
}

/** What was set for an instruction stays with it. @param {{text: string, keyword: string | null}[]} found */
function merge(found) {
  if (state.mode === "lines") {
    const answers = [...found];
    change({
      parts: state.parts.map((part) =>
        part.text.trim() ? { ...part, found: answers.shift()?.keyword ?? null } : part,
      ),
    });
    return;
  }
  const same = found.length === state.parts.length;
  const unchanged = same && found.every((one, i) => one.text === state.parts[i].text);
  const parts = found.map(({ text, keyword }, i) => {
    const old = state.parts.find((part) => part.text === text) ?? (same ? state.parts[i] : fresh(text, i));
    const kept = keepsKeyword(old, text) ? old.keyword : "";
    const region = unchanged ? {} : { region: null, area: null };
    return {
      ...old,
      ...region,
      text,
      found: keyword,
      keyword: kept,
      colour: same ? old.colour : COLOURS[i % COLOURS.length],
    };
  });
  change({ parts });
}

/** @param {import("./store.js").Part} part @param {string} text */
const keepsKeyword = (part, text) => text.toLowerCase().includes(part.keyword.toLowerCase());

/** @param {"text" | "lines"} mode */
export function setMode(mode) {
  if (mode === state.mode) return;
  if (mode === "text") {
    const text = written()
      .map((part) => part.text)
      .join("; ");
    change({ mode });
    setText(text);
  } else change({ mode, parts: state.parts.length ? state.parts : [fresh("", 0)] });
}

/** @param {any[]} instructions of an edit's record: shown as lines */
export function setLines(instructions) {
  const parts = instructions.map((one, i) => ({
    ...fresh(one.text, i),
    keyword: one.keyword_source === "given" ? one.keyword : "",
    found: one.keyword,
    intensity: one.intensity,
  }));
  clearTimeout(timer);
  current = true;
  change({ mode: "lines", text: "", parts });
}

/** @param {number} index @param {string} text */
function setLine(index, text) {
  change({
    parts: state.parts.map((part, i) => ({
      ...part,
      region: null,
      area: null,
      ...(i === index ? { text, found: null } : {}),
    })),
    painting: -1,
  });
  soon();
}

/** @param {number} index */
function removeLine(index) {
  change({
    parts: state.parts.filter((_, i) => i !== index).map((part) => ({ ...part, region: null, area: null })),
    painting: -1,
  });
}

export function startParts() {
  const text = byId("text");
  text.addEventListener("input", () => {
    change({ text: text.value, painting: -1 });
    soon();
  });
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("ask").requestSubmit();
  });
  byId("mode-text").addEventListener("click", () => setMode("text"));
  byId("mode-lines").addEventListener("click", () => setMode("lines"));
  byId("add-line").addEventListener("click", () => {
    change({ parts: [...state.parts, fresh("", state.parts.length)] });
    byId("parts").querySelector("li:last-child .line").focus();
  });
  watch(["mode"], () => {
    press({ text: "mode-text", lines: "mode-lines" }, state.mode);
    text.parentElement.hidden = state.mode === "lines";
    show("add-line", state.mode === "lines");
  });
  watch(["parts", "mode", "painting", "picture", "info"], () => {
    const list = byId("parts");
    while (list.children.length > state.parts.length) list.lastChild.remove();
    while (list.children.length < state.parts.length) list.append(makeCard(list.children.length, setLine, removeLine));
    state.parts.forEach((part, i) => updateCard(list.children[i], part, i));
    byId("add-line").disabled = state.parts.length >= (state.info?.limits.instructions ?? 8);
  });
}
