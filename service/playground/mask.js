/** Masks: canvases of the picture's size whose alpha says where a change is allowed. */

/** @param {number} width @param {number} height */
export function blank(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

/** From the service's grey PNG, white = may change. @param {ImageBitmap} bitmap @param {boolean} [soft] keep the greys */
export function fromGrey(bitmap, soft = false) {
  const canvas = blank(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const levels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < levels.data.length; i += 4) {
    levels.data[i + 3] = soft ? levels.data[i] : levels.data[i] >= 128 ? 255 : 0;
  }
  context.putImageData(levels, 0, 0);
  return canvas;
}

/**
 * @typedef {{erase: boolean, size: number, points: [number, number][]} | {clear: true}} Stroke
 * A mask that was painted over a base. Undo draws it anew without its last stroke, so that it costs no copies.
 */
export class PaintedMask {
  /** @param {number} width @param {number} height @param {HTMLCanvasElement | null} base where it begins */
  constructor(width, height, base) {
    this.base = base;
    this.canvas = blank(width, height);
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.context.lineCap = this.context.lineJoin = "round";
    /** @type {Stroke[]} */
    this.strokes = [];
    /** @type {Stroke[]} */
    this.undone = [];
    this.redraw();
  }

  redraw() {
    this.context.globalCompositeOperation = "source-over";
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (this.base) this.context.drawImage(this.base, 0, 0, this.canvas.width, this.canvas.height);
    for (const stroke of this.strokes) this.draw(stroke);
  }

  /** @param {Stroke} stroke */
  add(stroke) {
    this.strokes.push(stroke);
    this.undone = [];
    this.draw(stroke);
  }

  /** @param {[number, number]} point the last stroke goes on to it */
  extend(point) {
    const stroke = this.strokes.at(-1);
    if (!stroke || "clear" in stroke) return;
    stroke.points.push(point);
    this.draw({ ...stroke, points: stroke.points.slice(-2) });
  }

  undo() {
    const stroke = this.strokes.pop();
    if (stroke) this.undone.push(stroke);
    this.redraw();
  }

  redo() {
    const stroke = this.undone.pop();
    if (stroke) this.strokes.push(stroke);
    this.redraw();
  }

  /** @param {Stroke} stroke */
  draw(stroke) {
    const context = this.context;
    if ("clear" in stroke) {
      context.clearRect(0, 0, this.canvas.width, this.canvas.height);
      return;
    }
    context.globalCompositeOperation = stroke.erase ? "destination-out" : "source-over";
    context.lineWidth = stroke.size;
    const [[x, y], ...rest] = stroke.points;
    context.beginPath();
    context.arc(x, y, stroke.size / 2, 0, 2 * Math.PI); // a canvas draws no line of length zero, whatever its caps
    context.fill();
    context.beginPath();
    context.moveTo(x, y);
    for (const point of rest) context.lineTo(point[0], point[1]);
    context.stroke();
  }

  /** Share of the picture, 0 to 1. */
  get area() {
    const { data } = this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    let inside = 0;
    for (let i = 3; i < data.length; i += 4) if (data[i] >= 128) inside++;
    return (inside * 4) / data.length;
  }

  /** As the service takes it: an opaque PNG, white = may change. @returns {Promise<Blob>} */
  toBlob() {
    const canvas = blank(this.canvas.width, this.canvas.height);
    const context = canvas.getContext("2d");
    const levels = this.context.getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < levels.data.length; i += 4) {
      levels.data.fill(levels.data[i + 3] >= 128 ? 255 : 0, i, i + 3);
      levels.data[i + 3] = 255;
    }
    context.putImageData(levels, 0, 0);
    return new Promise((resolve) => canvas.toBlob((blob) => resolve(/** @type {Blob} */ (blob)), "image/png"));
  }
}
