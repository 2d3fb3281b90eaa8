/** Seed, outputs, preset and the numbers that people know from InstructPix2Pix. An empty one is the model's own. */
import { byId, el } from "./dom.js";
import { change, dropRegions, state, watch } from "./store.js";

/** field of the form, label, step */
const NUMBERS = [
  ["num_inference_steps", "Steps", "1"],
  ["guidance_scale", "Text guidance", "0.1"],
  ["image_guidance_scale", "Image guidance", "0.1"],
  ["strength", "Strength", "0.05"],
  ["threshold", "Mask threshold", ""],
];

/** @param {Partial<typeof state.settings>} patch */
export function set(patch) {
  change({ settings: { ...state.settings, ...patch } });
  if (!("locked" in patch) && !("n" in patch)) dropRegions();
}

/** @param {string} name @param {string} value */
export const setNumber = (name, value) => set({ numbers: { ...state.settings.numbers, [name]: value } });

export const roll = () => set({ seed: crypto.getRandomValues(new Uint32Array(1))[0] });

/** @param {any} input of an edit's record: its settings become the page's */
export function setFrom(input) {
  change({
    settings: { ...state.settings, seed: input.seed, n: input.n, preset: input.preset, numbers: {} },
    used: input,
  });
}

export function startSettings() {
  const fields = NUMBERS.map(([name, label, step]) => {
    const input = el("input", {
      inputmode: "decimal",
      oninput: () => setNumber(name, input.value.trim()),
      ...(step ? { type: "number", step } : {}),
    });
    byId("numbers").append(el("label", { "data-field": name }, label, input));
    return { name, input };
  });
  const seed = byId("seed");
  const count = byId("n");
  seed.addEventListener("input", () => set({ seed: seed.value.trim() }));
  count.addEventListener("input", () => set({ n: Number(count.value) }));
  byId("seed-lock").addEventListener("change", (event) => set({ locked: event.target.checked }));
  byId("reroll").addEventListener("click", roll);
  const presets = /** @type {NodeListOf<HTMLInputElement>} */ (document.querySelectorAll("[name=preset]"));
  for (const radio of presets) {
    radio.addEventListener("change", () => set({ preset: radio.value }));
  }
  watch(["settings", "used", "info"], () => {
    const { settings, info, used } = state;
    if (document.activeElement !== seed) seed.value = String(settings.seed);
    if (document.activeElement !== count) count.value = String(settings.n);
    byId("seed-lock").checked = settings.locked;
    count.max = String(info?.limits.outputs ?? 8);
    for (const radio of presets) radio.checked = radio.value === settings.preset;
    for (const { name, input } of fields) {
      const range = info?.limits.ranges[name];
      if (range) [input.min, input.max] = [range.minimum, range.maximum];
      input.placeholder = used[name] ?? info?.defaults[name] ?? "the model's own";
      if (document.activeElement !== input) input.value = settings.numbers[name] ?? "";
    }
  });
}
