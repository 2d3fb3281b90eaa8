/** A picture with colours over it; with a second picture before it, a slider between the two. */
import { blank } from "./mask.js";
import { el } from "./dom.js";

const OVERLAY_SIDE = 1024;

export class Viewer {
  /** @param {(split: number) => void} slide hears of the slider, 0 to 100 */
  constructor(slide) {
    this.after = el("img", { class: "after", alt: "" });
    this.before = el("img", { class: "before", alt: "" });
    this.overlay = blank(1, 1);
    this.overlay.className = "overlay";
    this.slider = el("input", { type: "range", class: "slider", min: 0, max: 100, step: 1 });
    this.slider.addEventListener("input", () => slide(Number(this.slider.value)));
    this.frame = el(
      "div",
      { class: "frame" },
      this.after,
      this.before,
      this.overlay,
      el("div", { class: "divider" }),
      this.slider,
    );
    this.caption = el("figcaption", {});
    this.root = el("figure", { class: "viewer" }, this.frame, this.caption);
  }

  /**
   * @param {{after: string, afterAlt: string, before?: string, beforeAlt?: string, width: number, height: number,
   *   caption: string, split: number}} shown `before` is to the left of the slider
   */
  update({ after, afterAlt, before = "", beforeAlt = "", width, height, caption, split }) {
    setSource(this.after, after, afterAlt);
    setSource(this.before, before, beforeAlt);
    this.slider.hidden = !before;
    this.frame.classList.toggle("compares", Boolean(before));
    this.slider.value = String(split);
    this.slider.setAttribute("aria-label", `${beforeAlt} to the left, ${afterAlt} to the right`);
    this.slider.setAttribute("aria-valuetext", `${split}% ${beforeAlt}`);
    this.frame.style.setProperty("--split", `${split}%`);
    this.frame.style.setProperty("--ratio", String(width / height));
    this.caption.textContent = caption;
    const scale = OVERLAY_SIDE / Math.max(width, height);
    this.overlay.width = Math.round(width * scale);
    this.overlay.height = Math.round(height * scale);
  }

  /** @param {(canvas: HTMLCanvasElement) => void} draw */
  redraw(draw) {
    this.overlay.getContext("2d").clearRect(0, 0, this.overlay.width, this.overlay.height);
    draw(this.overlay);
  }
}

/** @param {HTMLImageElement} image @param {string} source @param {string} alt */
function setSource(image, source, alt) {
  image.alt = alt;
  image.hidden = !source;
  if (source && image.getAttribute("src") !== source) image.src = source;
}
