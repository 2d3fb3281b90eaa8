/** One instruction's card: its colour, text, keyword, intensity and region. */
import { button, el } from "./dom.js";
import { paint } from "./paint.js";
import { changePart, dropRegions, ownMask, state } from "./store.js";

const MOST = 5;

/**
 * @param {number} index
 * @param {(index: number, text: string) => void} setLine
 * @param {(index: number) => void} removeLine
 */
export function makeCard(index, setLine, removeLine) {
  const number = index + 1;
  const keyword = el("input", {
    class: "keyword",
    oninput: () => {
      dropRegions();
      changePart(index, { keyword: keyword.value.trim() });
    },
  });
  const intensity = el("input", {
    type: "range",
    class: "intensity",
    min: 0,
    max: MOST,
    step: 0.1,
    oninput: () => changePart(index, { intensity: Number(intensity.value) }),
  });
  const line = el("input", {
    class: "line",
    "aria-label": `Instruction ${number}`,
    oninput: () => setLine(index, line.value),
  });
  const colour = el("input", {
    type: "color",
    "aria-label": `Colour of instruction ${number}`,
    oninput: () => changePart(index, { colour: colour.value }),
  });
  return el(
    "li",
    { class: "part", "data-field": `part-${index}` },
    el(
      "div",
      { class: "part-head" },
      colour,
      el("span", { class: "text" }),
      line,
      button("Remove", () => removeLine(index), {
        class: "quiet remove",
        "aria-label": `Remove instruction ${number}`,
      }),
    ),
    el(
      "div",
      { class: "part-row" },
      el("label", { class: "inline" }, "Looks for", keyword),
      el("label", { class: "inline" }, "Intensity", intensity, el("output", {})),
    ),
    el(
      "div",
      { class: "part-row" },
      el("span", { class: "region" }),
      button("Paint", () => paint(index), {
        class: "paint-part",
        "aria-label": `Paint the region of instruction ${number}`,
      }),
    ),
  );
}

/** @param {any} card @param {import("./store.js").Part} part @param {number} index */
export function updateCard(card, part, index) {
  const find = (selector) => card.querySelector(selector);
  const lines = state.mode === "lines";
  card.style.setProperty("--colour", part.colour);
  find("[type=color]").value = part.colour;
  find(".text").textContent = part.text;
  find(".text").hidden = lines;
  find(".line").hidden = find(".remove").hidden = !lines;
  set(find(".line"), part.text);
  set(find(".keyword"), part.keyword);
  find(".keyword").placeholder = part.found ?? (part.text ? "what its attention finds" : "");
  find(".intensity").value = String(Math.min(part.intensity, MOST));
  find(".intensity").setAttribute("aria-valuetext", `${part.intensity}`);
  find("output").textContent = `×${part.intensity}`;
  find(".region").textContent = regionText(part);
  find(".paint-part").disabled = !state.picture || !part.text.trim();
  find(".paint-part").setAttribute("aria-pressed", String(state.painting === index));
}

/** What is being typed is not touched. @param {HTMLInputElement} input @param {string} value */
function set(input, value) {
  if (document.activeElement !== input) input.value = value;
}

/** @param {import("./store.js").Part} part */
function regionText(part) {
  const mask = ownMask(part);
  if (mask) return `Your mask, ${percent(mask.area)}`;
  if (part.area !== null) return `Region found, ${percent(part.area)}`;
  return "Region not shown yet";
}

/** @param {number} share */
export const percent = (share) => `${(100 * share).toFixed(share && share < 0.1 ? 1 : 0)}%`;
