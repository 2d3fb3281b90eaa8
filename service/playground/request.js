/** The form of an edit, as it is sent and as it is shown as code. */
import { written } from "./parts.js";
import { ownMask, state } from "./store.js";

const PLAIN = ["seed", "n", "num_inference_steps", "strength", "guidance_scale", "image_guidance_scale"];

/** @typedef {{name: string, value: string} | {name: string, blob: Blob, file: string}} Field */

/** @param {"masks" | "edit"} kind @returns {Promise<Field[]>} */
export async function fields(kind) {
  const { settings, picture } = state;
  /** @type {Field[]} */
  const found = picture ? [{ name: "image", blob: picture.file, file: picture.name }] : [];
  found.push(...(await instructions()));
  found.push({ name: "seed", value: String(settings.seed) });
  if (settings.preset !== "default") found.push({ name: "preset", value: settings.preset });
  if (kind === "edit" && settings.n !== 1) found.push({ name: "n", value: String(settings.n) });
  for (const [name, value] of Object.entries(settings.numbers)) if (value) found.push({ name, value });
  return found;
}

/** The same edit by plain InstructPix2Pix, which knows texts only. @param {any} input of the edit's record @returns {Field[]} */
export function plainFields(input) {
  const texts = input.instructions.map(({ text }) => ({ text }));
  const numbers = PLAIN.filter((name) => input[name] !== null).map((name) => ({ name, value: String(input[name]) }));
  return [
    { name: "image", blob: state.picture.file, file: state.picture.name },
    { name: "instructions", value: JSON.stringify(texts) },
    { name: "method", value: "ip2p" },
    ...numbers,
  ];
}

/** @param {Field[]} list */
export function formOf(list) {
  const form = new FormData();
  for (const field of list) {
    if ("blob" in field) form.append(field.name, field.blob, field.file);
    else form.append(field.name, field.value);
  }
  return form;
}

/** @returns {Promise<Field[]>} */
async function instructions() {
  const parts = written();
  const plain = parts.every((part) => !part.keyword && part.intensity === 1 && !ownMask(part));
  if (plain && state.mode === "text") return [{ name: "instruction", value: state.text }];
  const masks = await Promise.all(
    parts.map(async (part, i) => {
      const mask = ownMask(part);
      return mask ? { name: `mask-${i + 1}`, blob: await mask.toBlob(), file: `mask-${i + 1}.png` } : null;
    }),
  );
  const listed = parts.map(({ text, keyword, intensity }, i) => ({
    text,
    ...(keyword ? { keyword } : {}),
    ...(intensity === 1 ? {} : { intensity }),
    ...(masks[i] ? { mask: masks[i].name } : {}),
  }));
  return [{ name: "instructions", value: JSON.stringify(listed) }, ...masks.filter((mask) => mask !== null)];
}
