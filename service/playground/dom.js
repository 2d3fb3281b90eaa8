/** Making and finding elements. Texts become text nodes only: nothing here can turn a text into markup. */

/** @param {string} id @returns {any} */
export const byId = (id) => document.getElementById(id);

/**
 * @param {string} tag
 * @param {Record<string, any>} [props] `on...` are listeners, `class` and the like attributes; false and null leave out
 * @param {...(Node | string | null)} children
 * @returns {any}
 */
export function el(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

/** A button that is no submit. @param {string} label @param {() => void} press @param {Record<string, any>} [props] */
export const button = (label, press, props = {}) => el("button", { type: "button", onclick: press, ...props }, label);

/** @param {string} id @param {boolean} shown */
export function show(id, shown) {
  byId(id).hidden = !shown;
}

/** Of a group of buttons one is pressed. @param {Record<string, string>} ids value -> id @param {string} value */
export function press(ids, value) {
  for (const [one, id] of Object.entries(ids)) byId(id).setAttribute("aria-pressed", String(one === value));
}

/** @param {Blob} blob @param {string} name */
export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
