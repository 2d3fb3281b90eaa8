/** What went wrong is said where it belongs, and what to do with it. */
import { ProblemError } from "./api.js";
import { byId, el } from "./dom.js";

const STAGE = ["/image", "/image_url"];

/** @param {string} id of a `.problem` @param {string} text */
export function problemAt(id, text) {
  byId(id).textContent = text;
  byId(id).hidden = false;
}

export function clearProblems() {
  for (const id of ["stage-problem", "ask-problem"]) byId(id).hidden = true;
  for (const shown of document.querySelectorAll("[data-field] .problem")) shown.remove();
}

/** @param {unknown} error of a call; anything else is a mistake of ours and goes on */
export function showProblem(error) {
  if (!(error instanceof ProblemError)) throw error;
  const rest = error.errors.filter(({ pointer, detail }) => !atField(pointer, detail));
  if (error.errors.length && !rest.length) return;
  const detail = rest.length ? rest.map((one) => one.detail).join("; ") : error.message;
  const id = error.status === 415 || (error.status === 413 && !rest.length) ? "stage-problem" : "ask-problem";
  problemAt(id, error.retryAfter ? `${detail} (in ${error.retryAfter} s)` : detail);
}

/** @param {string} pointer into the form @param {string} detail */
function atField(pointer, detail) {
  if (STAGE.includes(pointer)) {
    problemAt("stage-problem", detail);
    return true;
  }
  const part = /^\/instructions?\/(\d+)/.exec(pointer)?.[1];
  const mask = /^\/mask-(\d+)$/.exec(pointer)?.[1];
  const index = part ?? (mask && String(Number(mask) - 1));
  const name = index ? `part-${index}` : /^\/instructions?$/.test(pointer) ? "text" : pointer.slice(1);
  const field = document.querySelector(`[data-field="${CSS.escape(name)}"]`);
  if (!field || field.closest("[hidden]")) return false;
  const section = field.closest("details");
  if (section) section.open = true;
  field.append(el("p", { class: "problem", role: "alert" }, detail));
  return true;
}
