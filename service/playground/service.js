/** Whom the page talks to: its model and limits, and the API key where it asks for one. */
import { ProblemError, getJson, hasKey, setKey, untilReached } from "./api.js";
import { byId, show } from "./dom.js";
import { problemAt, showProblem } from "./problems.js";
import { change, state, watch } from "./store.js";

const WORLD =
  "The bundled demo model knows a small world only: balls, boxes, stars, hearts, trees and houses; red, orange, yellow, green, blue, purple, pink, white; " +
  "grass, sand, snow and water; skies, a sun, a hat, night. For photographs the service needs a real checkpoint.";

async function ask() {
  try {
    change({ info: await untilReached(() => getJson("/v1/info")), keyNeeded: false });
  } catch (error) {
    if (error instanceof ProblemError && [401, 403].includes(error.status)) {
      byId("service").textContent = "an API key is needed";
      if (hasKey()) problemAt("ask-problem", error.message);
    } else showProblem(error);
  }
}

export async function startService() {
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setKey(byId("key").value.trim());
    byId("key").value = "";
    void ask();
  });
  byId("key-open").addEventListener("click", () => change({ keyNeeded: true }));
  watch(["keyNeeded"], () => {
    show("key-form", state.keyNeeded);
    show("key-open", state.keyNeeded || hasKey());
  });
  watch(["info"], () => {
    const { info } = state;
    if (!info) return;
    const demo = info.model === "demo";
    byId("service").textContent = `${demo ? "demo model" : info.model}${info.workers.ready ? "" : ", no worker yet"}`;
    byId("world").textContent = WORLD;
    show("world", demo);
  });
  await ask();
}
