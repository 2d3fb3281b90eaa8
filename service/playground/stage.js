/** The large picture: the input with its regions, or the result over the input, beside plain InstructPix2Pix's. */
import { byId, press, show } from "./dom.js";
import { drawAttention, drawRegions } from "./overlay.js";
import { change, state, watch } from "./store.js";
import { Viewer } from "./viewer.js";

const slide = (split) => change({ split });
export const main = new Viewer(slide);
const side = new Viewer(slide);
/** The text may have been changed since. */
const OTHER = { colour: "#888888", mask: null, region: null };
let drawing = 0;

/** The result, if it is what is shown. */
export const shownResult = () =>
  state.view === "result" && state.outcome ? state.outcome.outputs[state.selected] : null;

/** Draws the colours anew, at most once a frame. */
export function redraw() {
  drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    main.redraw(colours);
    side.redraw(() => undefined);
  });
}

/** @param {HTMLCanvasElement} canvas */
function colours(canvas) {
  const output = shownResult();
  const shown = output ? output.masks.map((_, i) => state.parts[i] ?? OTHER) : state.parts;
  const parts = state.painting < 0 ? shown : [state.parts[state.painting]];
  if (output && state.showAttention) {
    parts.forEach(({ colour }, i) => output.attention[i] && drawAttention(canvas, output.attention[i], colour));
  }
  if (!state.showMasks && state.painting < 0) return;
  const masks = parts.map((part, i) => (output ? output.masks[i] : (part.mask?.canvas ?? part.region)));
  const regions = parts.map(({ colour }, i) => ({ mask: masks[i], colour })).filter(({ mask }) => mask);
  drawRegions(canvas, regions, !output && !state.busy?.preview);
}

function update() {
  const { picture, outcome, busy, split } = state;
  show("empty", !picture);
  show("bar", Boolean(picture));
  show("frames", Boolean(picture));
  if (!picture) return;
  const output = shownResult();
  if (output && outcome) {
    const { width, height } = outcome.input;
    const both = { before: outcome.inputUrl, beforeAlt: "Input", width, height, split };
    main.update({
      ...both,
      after: output.url,
      afterAlt: "Result",
      caption: `Focus on Your Instruction, seed ${output.seed}`,
    });
    updateSide(both);
  } else {
    side.root.remove();
    const after = busy?.preview || picture.url;
    const caption = busy?.preview ? "Preview" : `${picture.name}, ${picture.width} × ${picture.height}`;
    main.update({
      after,
      afterAlt: busy?.preview ? "Preview" : "Your picture",
      width: picture.width,
      height: picture.height,
      caption,
      split,
    });
  }
  redraw();
}

/** @param {any} both what the two viewers share */
function updateSide(both) {
  if (!state.showPlain) return side.root.remove();
  const plain = state.plain?.outputs[state.selected];
  const caption = plain ? `Plain InstructPix2Pix, seed ${plain.seed}` : "Plain InstructPix2Pix is on its way …";
  side.update({
    ...both,
    after: plain?.url ?? both.before,
    before: plain ? both.before : "",
    afterAlt: "Plain result",
    caption,
  });
  byId("frames").append(side.root);
}

export function startStage() {
  byId("frames").append(main.root);
  byId("view-picture").addEventListener("click", () => change({ view: "picture" }));
  byId("view-result").addEventListener("click", () => change({ view: "result", painting: -1 }));
  for (const [id, key] of [
    ["show-masks", "showMasks"],
    ["show-attention", "showAttention"],
    ["show-plain", "showPlain"],
  ]) {
    byId(id).addEventListener("change", (event) => change({ [key]: event.target.checked }));
  }
  watch(["picture", "outcome", "plain", "selected", "view", "busy", "split", "showPlain"], update);
  watch(["parts", "painting", "showMasks", "showAttention"], redraw);
  watch(["view", "outcome", "busy"], () => {
    press({ picture: "view-picture", result: "view-result" }, state.view);
    byId("view-result").disabled = !state.outcome;
    byId("show-attention").disabled = !shownResult();
  });
}
