/** Painting one instruction's mask with a pointer, or with the arrow keys and the space bar. */
import { byId, el, press, show } from "./dom.js";
import { PaintedMask } from "./mask.js";
import { main, redraw } from "./stage.js";
import { change, changePart, state, watch } from "./store.js";

const STEP = 0.02;
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const cursor = el("div", { class: "brush", hidden: true });
let erase = false;
let down = false;
/** @type {[number, number]} of the keyboard's brush, in pixels of the picture */
let at = [0, 0];

/** @param {number} index begins, or ends where this instruction is painted already */
export function paint(index) {
  if (state.painting === index) return change({ painting: -1 });
  change({ painting: index, view: "picture" });
  at = [state.picture.width / 2, state.picture.height / 2];
  main.overlay.focus();
}

/** The mask of the instruction that is painted; its first stroke begins on the region that was found. */
function mask() {
  const part = state.parts[state.painting];
  if (part.mask) return part.mask;
  const made = new PaintedMask(state.picture.width, state.picture.height, part.region);
  changePart(state.painting, { mask: made });
  return made;
}

/** Diameter in pixels of the picture. */
const size = () => (Number(byId("brush").value) / 100) * Math.max(state.picture.width, state.picture.height);

/** @param {PointerEvent} event @returns {[number, number]} pixels of the picture */
function pixel(event) {
  const box = main.overlay.getBoundingClientRect();
  const { width, height } = state.picture;
  return [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
}

/** @param {[number, number]} point */
function moveCursor([x, y]) {
  const { width, height } = state.picture;
  const box = main.overlay.getBoundingClientRect();
  cursor.hidden = false;
  cursor.style.setProperty("left", `${(100 * x) / width}%`);
  cursor.style.setProperty("top", `${(100 * y) / height}%`);
  cursor.style.setProperty("width", `${(size() / width) * box.width}px`);
}

/** Its area is told, and whoever shows it hears. */
function changed() {
  changePart(state.painting, {});
  updateTools();
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  if (event.key === "Escape") return change({ painting: -1 });
  if (event.key === "z" && (event.ctrlKey || event.metaKey)) return step("undo", event);
  if ((event.key === "y" && event.ctrlKey) || (event.key === "Z" && (event.ctrlKey || event.metaKey)))
    return step("redo", event);
  const move = MOVES[event.key];
  if (!move && event.key !== " ") return;
  event.preventDefault();
  const { width, height } = state.picture;
  if (move) {
    const stride = STEP * Math.max(width, height);
    at = [
      Math.min(Math.max(at[0] + stride * move[0], 0), width),
      Math.min(Math.max(at[1] + stride * move[1], 0), height),
    ];
  } else {
    mask().add({ erase, size: size(), points: [at] });
    changed();
  }
  moveCursor(at);
}

/** @param {"undo" | "redo"} what @param {Event} [event] */
function step(what, event) {
  event?.preventDefault();
  state.parts[state.painting].mask?.[what]();
  changed();
}

function updateTools() {
  const part = state.parts[state.painting];
  show("paint-bar", Boolean(part));
  main.frame.classList.toggle("painting", Boolean(part));
  main.overlay.tabIndex = part ? 0 : -1;
  if (!part) {
    cursor.hidden = true;
    main.overlay.removeAttribute("role");
    main.overlay.removeAttribute("aria-label");
    return;
  }
  main.overlay.setAttribute("role", "application");
  main.overlay.setAttribute(
    "aria-label",
    `Mask of “${part.text}”: arrow keys move the brush, space paints, Escape ends`,
  );
  byId("paint-name").textContent = part.text;
  byId("undo").disabled = !part.mask?.strokes.length;
  byId("redo").disabled = !part.mask?.undone.length;
  byId("reset").disabled = !part.mask;
  press({ false: "tool-paint", true: "tool-erase" }, String(erase));
}

/** @param {boolean} erases */
function setTool(erases) {
  erase = erases;
  updateTools();
}

export function startPaint() {
  const canvas = main.overlay;
  main.frame.append(cursor);
  canvas.addEventListener("pointerdown", (event) => {
    if (state.painting < 0 || event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    down = true;
    mask().add({ erase, size: size(), points: [pixel(event)] });
    redraw();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (state.painting < 0) return;
    moveCursor(pixel(event));
    if (!down) return;
    mask().extend(pixel(event));
    redraw();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => {
      if (down && state.painting >= 0) changed();
      down = false;
    });
  }
  canvas.addEventListener("pointerleave", () => (cursor.hidden = true));
  canvas.addEventListener("keydown", (event) => state.painting >= 0 && onKey(event));
  byId("tool-paint").addEventListener("click", () => setTool(false));
  byId("tool-erase").addEventListener("click", () => setTool(true));
  byId("undo").addEventListener("click", () => step("undo"));
  byId("redo").addEventListener("click", () => step("redo"));
  byId("clear").addEventListener("click", () => {
    mask().add({ clear: true });
    changed();
  });
  byId("reset").addEventListener("click", () => {
    changePart(state.painting, { mask: null });
    updateTools();
  });
  byId("paint-done").addEventListener("click", () => change({ painting: -1 }));
  watch(["painting", "parts"], updateTools);
}
