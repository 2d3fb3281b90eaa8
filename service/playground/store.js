/**
 * What the page knows, in one place. `change` is the only way to alter it; who `watch`es a key is called after it.
 *
 * @typedef {{text: string, found: string | null, keyword: string, intensity: number, colour: string,
 *   mask: import("./mask.js").PaintedMask | null, region: HTMLCanvasElement | null, area: number | null}} Part
 *   `keyword` is the user's own ("" for the found one); `mask` was painted, `region` found
 * @typedef {{file: Blob, name: string, url: string, bitmap: ImageBitmap, width: number, height: number}} Picture
 * @typedef {{kind: "masks" | "edit", ids: string[], status: string, step: number, steps: number, stage: string,
 *   position: number | null, eta: number | null, preview: string, lost: boolean}} Busy
 */

export const state = {
  info: /** @type {any} */ (null),
  keyNeeded: false,
  picture: /** @type {Picture | null} */ (null),
  mode: /** @type {"text" | "lines"} */ ("text"),
  text: "",
  parts: /** @type {Part[]} */ ([]),
  settings: {
    preset: "default",
    n: 1,
    seed: /** @type {number | string} */ (7),
    locked: true,
    numbers: /** @type {Record<string, string>} */ ({}),
  },
  used: /** @type {Record<string, number>} */ ({}),
  painting: -1,
  busy: /** @type {Busy | null} */ (null),
  outcome: /** @type {import("./outcome.js").Outcome | null} */ (null),
  plain: /** @type {import("./outcome.js").Outcome | null} */ (null),
  selected: 0,
  view: /** @type {"picture" | "result"} */ ("picture"),
  showMasks: true,
  showAttention: false,
  showPlain: false,
  split: 50,
};

/** @type {{keys: string[], run: () => void}[]} */
const watchers = [];

/** @param {Partial<typeof state>} patch */
export function change(patch) {
  const keys = Object.keys(patch);
  Object.assign(state, patch);
  for (const watcher of watchers) if (watcher.keys.some((key) => keys.includes(key))) watcher.run();
}

/** @param {(keyof typeof state)[]} keys @param {() => void} run called now, and whenever one of them has changed */
export function watch(keys, run) {
  watchers.push({ keys, run });
  run();
}

/** @param {number} index @param {Partial<Part>} patch */
export function changePart(index, patch) {
  change({ parts: state.parts.map((part, i) => (i === index ? { ...part, ...patch } : part)) });
}

/** The mask that the user has made; one on which every stroke was undone is still the region that was found. @param {Part} part */
export const ownMask = ({ mask, region }) => (mask && (mask.strokes.length || mask.base !== region) ? mask : null);

/** Regions that were found for other settings are no regions of this edit. */
export function dropRegions() {
  if (state.parts.some((part) => part.region)) {
    change({ parts: state.parts.map((part) => ({ ...part, region: null, area: null })) });
  }
}
