/** The edits that this browser has asked for: their ids and texts. Shared by its tabs; the pictures stay with the service. */

const KEY = "foi.history";
const MOST = 40;

/** @typedef {{id: string, text: string}} Entry */

/** @returns {Entry[]} the newest first */
export function entries() {
  const stored = localStorage.getItem(KEY);
  return stored ? JSON.parse(stored) : [];
}

/** @param {any} record */
export function remember(record) {
  const text = record.input.instructions.map((one) => one.text).join(", ");
  store([{ id: record.id, text }, ...entries()].slice(0, MOST));
}

/** @param {Entry[]} list */
export function store(list) {
  localStorage.setItem(KEY, JSON.stringify(list));
  window.dispatchEvent(new StorageEvent("storage", { key: KEY })); // browsers tell the other tabs only
}

/** @param {() => void} run whenever it changes, in whichever tab */
export function onHistory(run) {
  window.addEventListener("storage", (event) => {
    if (event.key === KEY || event.key === null) run();
  });
  run();
}
