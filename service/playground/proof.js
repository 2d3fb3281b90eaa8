/** The promise, checked here and not believed: outside all masks the result is the input, pixel by pixel. */
import { blank } from "./mask.js";

const BAND = 256;

/**
 * @param {ImageBitmap} input @param {ImageBitmap} output @param {HTMLCanvasElement[]} masks of that output
 * @returns {{outside: number, changed: number, inside: number} | null} pixels; null where the sizes differ
 */
export function proof(input, output, masks) {
  if (input.width !== output.width || input.height !== output.height) return null;
  const counts = { outside: 0, changed: 0, inside: 0 };
  for (let top = 0; top < input.height; top += BAND) {
    const height = Math.min(BAND, input.height - top);
    const [before, after] = [input, output].map((one) => band(one, top, height));
    const allowed = masks.map((mask) => band(mask, top, height));
    for (let i = 0; i < before.length; i += 4) {
      if (allowed.some((mask) => mask[i + 3])) counts.inside++;
      else {
        counts.outside++;
        if (before[i] !== after[i] || before[i + 1] !== after[i + 1] || before[i + 2] !== after[i + 2])
          counts.changed++;
      }
    }
  }
  return counts;
}

/** @param {ImageBitmap | HTMLCanvasElement} source @param {number} top @param {number} height */
function band(source, top, height) {
  const context = blank(source.width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, -top);
  return context.getImageData(0, 0, source.width, height).data;
}
