/** Brings the page to life. Each part watches what it shows (store.js). */
import { startCode } from "./code.js";
import { byId } from "./dom.js";
import { startPaint } from "./paint.js";
import { startParts } from "./parts.js";
import { startPicture } from "./picture.js";
import { startProgress } from "./progress.js";
import { startResults } from "./results.js";
import { addPlain, cancel, edit, showRegions } from "./run.js";
import { startService } from "./service.js";
import { startSettings } from "./settings.js";
import { startStage } from "./stage.js";
import { state, watch } from "./store.js";
import { startHistory } from "./strip.js";
import { startTheme } from "./theme.js";

startTheme();
startParts();
startSettings();
startStage();
startPaint();
startPicture();
startProgress();
startResults();
startCode();
startHistory();
void startService();

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  void edit();
});
byId("regions").addEventListener("click", showRegions);
byId("cancel").addEventListener("click", cancel);
watch(["showPlain"], addPlain);
watch(["picture", "parts", "outcome"], () => {
  const looked = state.parts.some((part) => part.region || part.mask);
  const next = !state.picture
    ? "First a picture, or a sample."
    : !looked
      ? "Show regions costs one step: see where each instruction will act, before you edit."
      : state.outcome
        ? ""
        : "Not right? Paint a region, or name another keyword. Then edit.";
  byId("next").textContent = next;
});
