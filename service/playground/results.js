/** What came out: its outputs side by side, the facts, the warnings with what to try, the downloads. */
import { percent } from "./card.js";
import { button, byId, download, el, show } from "./dom.js";
import { paint } from "./paint.js";
import { edit } from "./run.js";
import { roll, setNumber } from "./settings.js";
import { sheet } from "./sheet.js";
import { change, state, watch } from "./store.js";

/** Each outside pixel, as it was compared here. @param {import("./outcome.js").Output} output */
function promise({ proof }) {
  if (!proof) return null;
  const outside = proof.outside.toLocaleString("en");
  return proof.changed
    ? el(
        "li",
        { class: "bad" },
        `${proof.changed.toLocaleString("en")} of ${outside} pixels outside the masks differ from the input`,
      )
    : el(
        "li",
        { class: "good" },
        el("b", {}, "Outside unchanged"),
        `: all ${outside} pixels outside the masks are the input’s, compared in this browser`,
      );
}

function facts() {
  const { outcome, selected } = state;
  const { metrics, input } = outcome.record;
  const output = outcome.outputs[selected];
  const change_ = metrics.change_outside_mask;
  const list = [
    promise(output),
    change_ === null ? null : el("li", {}, `The service measured ${change_} of 255 as the largest change there`),
    metrics.mask_area === null
      ? null
      : el("li", {}, `${percent(metrics.mask_area)} of the picture was allowed to change`),
    el("li", {}, `Seed ${output.seed}, ${input.num_inference_steps} steps, ${(metrics.run_ms / 1000).toFixed(1)} s`),
  ];
  byId("facts").replaceChildren(...list.filter((one) => one !== null));
}

/** @param {any} warning @returns {HTMLElement[]} what to try */
function actions({ code, instruction }) {
  const { input } = state.outcome.record;
  const tau = Math.min(0.9, (input.threshold_used ?? 0.25) + 0.15).toFixed(2);
  const guidance = (1.5 * input.guidance_scale).toFixed(1);
  const steps = String(Math.min(150, 2 * input.num_inference_steps));
  const again = (name, value, label) =>
    button(label, () => {
      setNumber(name, value);
      void edit();
    });
  const otherSeed = () => {
    roll();
    void edit();
  };
  const keyword = () => byId("parts").children[instruction].querySelector(".keyword").focus();
  const own = [button("Name another keyword", keyword), button("Paint its region", () => paint(instruction))];
  return {
    "mask-empty": own,
    "mask-full": [again("threshold", tau, `Mask threshold ${tau}`), ...own],
    "nothing-changed": [
      button("Another seed", otherSeed),
      again("guidance_scale", guidance, `Text guidance ${guidance}`),
      again("num_inference_steps", steps, `${steps} steps`),
    ],
    "text-cut": [button("Shorten the text", () => byId(state.mode === "text" ? "text" : "parts").focus())],
  }[code];
}

function warnings() {
  const list = state.outcome.record.warnings.map((warning) =>
    el("li", {}, el("p", {}, warning.message), el("div", { class: "bar" }, ...(actions(warning) ?? []))),
  );
  byId("warnings").replaceChildren(...list);
}

function tiles() {
  const outputs = state.outcome?.outputs ?? [];
  show("tiles", outputs.length > 1 && state.view === "result");
  byId("tiles").replaceChildren(
    ...outputs.map((output, i) =>
      el(
        "button",
        {
          type: "button",
          class: "thumb",
          "aria-pressed": String(i === state.selected),
          onclick: () => change({ selected: i }),
        },
        el("img", { src: output.url, alt: "", width: 160, height: 160 }),
        el("span", {}, `Seed ${output.seed}`),
      ),
    ),
  );
}

function downloadMasks() {
  state.outcome.outputs[state.selected].maskBlobs.forEach((blob, i) => download(blob, `mask-${i + 1}.png`));
}

export function startResults() {
  byId("download-result").addEventListener("click", () =>
    download(state.outcome.outputs[state.selected].blob, "result.png"),
  );
  byId("download-masks").addEventListener("click", downloadMasks);
  byId("download-sheet").addEventListener("click", async () => download(await sheet(), "sheet.png"));
  watch(["outcome", "selected", "view"], () => {
    const shown = state.outcome !== null && state.view === "result";
    show("result", shown);
    tiles();
    if (!shown) return;
    facts();
    warnings();
    show("download-masks", state.outcome.outputs[state.selected].masks.length > 0);
  });
}
