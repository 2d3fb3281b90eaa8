/** One picture of the whole edit, to keep or to show: input, regions, results. */
import { blank } from "./mask.js";
import { drawRegions } from "./overlay.js";
import { state } from "./store.js";

const GAP = 24;
const HEAD = 96;
const FOOT = 34;
const FONT = "system-ui, sans-serif";

/** @returns {Promise<Blob>} PNG */
export function sheet() {
  const { input, outputs, record } = state.outcome;
  const tiles = [
    { draw: draw(input), label: "Input" },
    { draw: regions(input, outputs[state.selected].masks), label: "Regions" },
    ...outputs.map((output) => ({
      draw: draw(output.bitmap),
      label: `Focus on Your Instruction, seed ${output.seed}`,
    })),
    ...(state.plain?.outputs ?? []).map((output) => ({
      draw: draw(output.bitmap),
      label: `Plain InstructPix2Pix, seed ${output.seed}`,
    })),
  ];
  const width = Math.min(Math.max(input.width, 320), 768);
  const height = Math.round((width * input.height) / input.width);
  const columns = Math.min(tiles.length, 4);
  const canvas = blank(GAP + columns * (width + GAP), HEAD + Math.ceil(tiles.length / columns) * (height + FOOT + GAP));
  const context = canvas.getContext("2d");
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const room = canvas.width - 2 * GAP;
  write(context, record.input.instructions.map((one) => one.text).join(", "), GAP, 44, `600 24px ${FONT}`, room);
  const { num_inference_steps: steps, guidance_scale: text, image_guidance_scale: image } = record.input;
  write(context, `${steps} steps, text guidance ${text}, image guidance ${image}`, GAP, 74, `16px ${FONT}`, room);
  tiles.forEach((tile, i) => {
    const [x, y] = [GAP + (i % columns) * (width + GAP), HEAD + Math.floor(i / columns) * (height + FOOT + GAP)];
    tile.draw(context, x, y, width, height);
    write(context, tile.label, x, y + height + 24, `16px ${FONT}`, width);
  });
  return new Promise((resolve) => canvas.toBlob((blob) => resolve(/** @type {Blob} */ (blob)), "image/png"));
}

/** @param {CanvasImageSource} source */
const draw = (source) => (context, x, y, width, height) => context.drawImage(source, x, y, width, height);

/** @param {ImageBitmap} input @param {HTMLCanvasElement[]} masks */
const regions = (input, masks) => (context, x, y, width, height) => {
  const layer = blank(width, height);
  drawRegions(
    layer,
    masks.map((mask, i) => ({ mask, colour: state.parts[i]?.colour ?? "#888888" })),
    true,
  );
  context.drawImage(input, x, y, width, height);
  context.drawImage(layer, x, y);
};

/** @param {CanvasRenderingContext2D} context @param {string} text @param {number} x @param {number} y @param {string} font @param {number} width */
function write(context, text, x, y, font, width) {
  context.font = font;
  context.fillStyle = "#1c1c22";
  context.fillText(text, x, y, width);
}
