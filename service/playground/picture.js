/** How a picture comes in: chosen, dropped, pasted, or a sample. What the service would refuse is said at once. */
import { getBlob } from "./api.js";
import { byId, el } from "./dom.js";
import { release } from "./outcome.js";
import { clearProblems, problemAt } from "./problems.js";
import { change, state } from "./store.js";
import { setText } from "./parts.js";
import { leave } from "./run.js";

const TYPES = ["image/png", "image/jpeg", "image/webp"];
const SAMPLES = [
  {
    name: "meadow",
    alt: "A red ball and a yellow house on grass",
    text: "make the ball blue and turn the grass into sand",
  },
  {
    name: "winter",
    alt: "A red house and a pink heart in the snow",
    text: "make the house blue, turn the heart red and make the sky purple",
  },
  { name: "lake", alt: "A white box and an orange ball on water", text: "give the ball a hat and make the box green" },
  {
    name: "beach",
    alt: "A purple star and a green tree on sand",
    text: "make the star yellow and turn the sand into snow",
  },
];

/** @param {Blob} file @param {string} name @returns {Promise<boolean>} whether it is shown now */
export async function setPicture(file, name) {
  clearProblems();
  const wrong = checked(file);
  const bitmap = wrong ? null : await createImageBitmap(file).catch(() => null);
  const detail = wrong ?? (bitmap ? tooLarge(bitmap) : "it cannot be read as a picture. Try another file.");
  if (!bitmap || detail) {
    problemAt("stage-problem", `${name}: ${detail}`);
    return false;
  }
  leave();
  if (state.picture) URL.revokeObjectURL(state.picture.url);
  release(state.outcome);
  release(state.plain);
  change({
    picture: { file, name, bitmap, url: URL.createObjectURL(file), width: bitmap.width, height: bitmap.height },
    parts: state.parts.map((part) => ({ ...part, mask: null, region: null, area: null })),
    outcome: null,
    plain: null,
    selected: 0,
    painting: -1,
    view: "picture",
  });
  return true;
}

/** @param {Blob} file */
function checked(file) {
  const most = state.info?.limits.body_bytes ?? Infinity;
  if (!TYPES.includes(file.type)) return "only PNG, JPEG and WebP can be edited. Save it as one of them.";
  if (file.size > most) return `it has more than ${Math.floor(most / 2 ** 20)} MiB. Make it smaller first.`;
  return null;
}

/** @param {ImageBitmap} bitmap */
function tooLarge({ width, height }) {
  const limits = state.info?.limits;
  if (!limits) return null;
  if (width * height > limits.pixels)
    return `it has more than ${limits.pixels / 1e6} megapixels. Make it smaller first.`;
  if (Math.min(width, height) < limits.side) return `its sides must have at least ${limits.side} pixels.`;
  if (Math.max(width, height) > limits.aspect * Math.min(width, height)) {
    return `one side is more than ${limits.aspect} times the other. Crop it first.`;
  }
  return null;
}

/** @param {FileList | undefined | null} files */
function take(files) {
  const file = files?.[0];
  if (file) void setPicture(file, file.name);
}

/** @param {typeof SAMPLES[number]} sample */
async function takeSample(sample) {
  const blob = await getBlob(`/playground/samples/${sample.name}.png`);
  const isOurs = !state.text || SAMPLES.some((one) => one.text === state.text);
  if ((await setPicture(blob, `${sample.name}.png`)) && isOurs && state.mode === "text") setText(sample.text);
}

export function startPicture() {
  const file = byId("file");
  file.addEventListener("change", () => {
    take(file.files);
    file.value = "";
  });
  byId("replace").addEventListener("click", () => file.click());
  const stage = byId("stage");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    stage.classList.add("over");
  });
  document.addEventListener("dragleave", () => stage.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    stage.classList.remove("over");
    take(event.dataTransfer?.files);
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) event.preventDefault();
    take(event.clipboardData?.files);
  });
  for (const sample of SAMPLES) {
    const picture = el("img", {
      src: `/playground/samples/${sample.name}.png`,
      alt: sample.alt,
      width: 96,
      height: 96,
    });
    byId("samples").append(
      el(
        "li",
        {},
        el(
          "button",
          { type: "button", class: "thumb", onclick: () => takeSample(sample) },
          picture,
          el("span", {}, sample.text),
        ),
      ),
    );
  }
}
