/** Light or dark: as the system has it, until the button says otherwise. */
import { byId } from "./dom.js";

const KEY = "foi.theme";

/** @returns {string} light or dark */
const current = () =>
  localStorage.getItem(KEY) ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

function apply() {
  document.documentElement.dataset.theme = current();
  byId("theme").textContent = current() === "dark" ? "Light" : "Dark";
}

export function startTheme() {
  byId("theme").addEventListener("click", () => {
    localStorage.setItem(KEY, current() === "dark" ? "light" : "dark");
    apply();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
  apply();
}
