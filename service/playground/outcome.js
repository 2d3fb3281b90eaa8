/**
 * An edit that has ended, with its files decoded.
 *
 * @typedef {{seed: number, blob: Blob, url: string, bitmap: ImageBitmap, masks: HTMLCanvasElement[],
 *   maskBlobs: Blob[], attention: (HTMLCanvasElement | null)[], proof: ReturnType<typeof proof>}} Output
 *   one mask and one map per instruction; a given mask has no map
 * @typedef {{record: any, input: ImageBitmap, inputUrl: string, outputs: Output[]}} Outcome
 */
import { getBlob } from "./api.js";
import { fromGrey } from "./mask.js";
import { proof } from "./proof.js";

/** As its bytes say, without any correction of colours. @param {Blob} blob */
const decode = (blob) => createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });

/** @param {string} url @param {boolean} [soft] */
async function maskAt(url, soft) {
  const blob = await getBlob(url);
  return { blob, canvas: fromGrey(await decode(blob), soft) };
}

/** @param {any} record @returns {Promise<{canvas: HTMLCanvasElement, area: number}[]>} of its first seed */
export const loadRegions = (record) =>
  Promise.all(
    ofSeed(record.masks, record.input.seed).map(async (mask) => ({
      canvas: (await maskAt(mask.url)).canvas,
      area: mask.area,
    })),
  );

/** @param {any} record that has succeeded @returns {Promise<Outcome>} */
export async function loadOutcome(record) {
  const inputBlob = await getBlob(`${record.urls.self}/files/input.png`);
  const input = await decode(inputBlob);
  const outputs = await Promise.all(record.outputs.map((output) => loadOutput(record, output, input)));
  return { record, input, inputUrl: URL.createObjectURL(inputBlob), outputs };
}

/** @param {any} record @param {any} output @param {ImageBitmap} input @returns {Promise<Output>} */
async function loadOutput(record, output, input) {
  const blob = await getBlob(output.url);
  const bitmap = await decode(blob);
  const found = await Promise.all(ofSeed(record.masks, output.seed).map((mask) => maskAt(mask.url)));
  const masks = found.map((one) => one.canvas);
  const attention = await Promise.all(
    record.input.instructions.map(async (_, i) => {
      const map = ofSeed(record.attention_maps, output.seed).find((one) => one.instruction === i);
      return map ? (await maskAt(map.url, true)).canvas : null;
    }),
  );
  return {
    seed: output.seed,
    blob,
    url: URL.createObjectURL(blob),
    bitmap,
    masks,
    maskBlobs: found.map((one) => one.blob),
    attention,
    proof: masks.length ? proof(input, bitmap, masks) : null,
  };
}

/** @param {any[]} list @param {number} seed @returns {any[]} in the order of the instructions */
const ofSeed = (list, seed) => list.filter((one) => one.seed === seed).sort((a, b) => a.instruction - b.instruction);

/** @param {Outcome | null} outcome lets go of its pictures */
export function release(outcome) {
  if (!outcome) return;
  URL.revokeObjectURL(outcome.inputUrl);
  for (const output of outcome.outputs) URL.revokeObjectURL(output.url);
}
