/** What the page waits for, in words and as a bar. */
import { byId, show } from "./dom.js";
import { state, watch } from "./store.js";

const STAGES = { encode: "Reading the picture", decode: "Drawing the result" };

/** @param {import("./store.js").Busy} busy */
function words(busy) {
  if (busy.lost) return "The connection is lost. It goes on by itself as soon as the service answers.";
  if (busy.status === "canceling") return "Canceling …";
  if (busy.status === "queued") {
    const place = busy.position ? `, number ${busy.position} in the queue` : "";
    return `Waiting${place}${busy.eta ? `, about ${busy.eta} s` : ""}`;
  }
  if (busy.status === "sending") return "Sending …";
  if (STAGES[busy.stage]) return STAGES[busy.stage];
  if (busy.kind === "masks") return "Looking for the regions …";
  return busy.steps ? `Step ${busy.step} of ${busy.steps}` : "Running …";
}

export function startProgress() {
  const bar = byId("progress-bar");
  const text = byId("progress-text");
  const spoken = byId("spoken");
  let said = "";
  watch(["busy"], () => {
    const { busy } = state;
    show("progress", Boolean(busy));
    for (const id of ["regions", "edit"]) byId(id).disabled = Boolean(busy);
    if (busy && !said && byId("stage").getBoundingClientRect().top < 0) byId("stage").scrollIntoView();
    const quarter = busy?.steps ? Math.floor((4 * busy.step) / busy.steps) : 0;
    const now = busy ? `${busy.kind} ${busy.status} ${busy.lost} ${quarter}` : "";
    if (busy) text.textContent = words(busy);
    if (now !== said) spoken.textContent = busy ? words(busy) : ""; // a quarter at a time: not every step is read out
    said = now;
    if (!busy) return;
    if (busy.steps && busy.status === "running") {
      bar.max = busy.steps;
      bar.value = busy.step;
    } else bar.removeAttribute("value");
    byId("cancel").disabled = !busy.ids.length || busy.status === "canceling";
  });
  watch(["outcome"], () => {
    if (state.outcome) spoken.textContent = "The result is there.";
  });
}
