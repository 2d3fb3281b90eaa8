/** Regions and attention maps as colours over a picture. */
import { blank } from "./mask.js";

const FILL = 0.42;
const ATTENTION = 0.75;
const LINE = 0.0045;
const DIRECTIONS = Array.from({ length: 16 }, (_, i) => (i * Math.PI) / 8);

/**
 * All fills, then all outlines, so that none hides another.
 * @param {HTMLCanvasElement} target
 * @param {{mask: HTMLCanvasElement, colour: string}[]} regions
 * @param {boolean} filled or outlines only
 */
export function drawRegions(target, regions, filled) {
  const context = target.getContext("2d");
  const line = Math.max(1.5, LINE * Math.max(target.width, target.height));
  const shapes = regions.map(({ mask, colour }) => ({
    shape: tint(mask, colour, target.width, target.height),
    colour,
  }));
  context.globalAlpha = filled ? FILL : 0;
  for (const { shape } of shapes) context.drawImage(shape, 0, 0);
  context.globalAlpha = 1;
  for (const { shape, colour } of shapes) {
    context.drawImage(tint(outline(shape, 2 * line), "#ffffff", target.width, target.height), 0, 0);
    context.drawImage(tint(outline(shape, line), colour, target.width, target.height), 0, 0);
  }
}

/** @param {HTMLCanvasElement} target @param {HTMLCanvasElement} map soft @param {string} colour */
export function drawAttention(target, map, colour) {
  const context = target.getContext("2d");
  context.globalAlpha = ATTENTION;
  context.drawImage(tint(map, colour, target.width, target.height), 0, 0);
  context.globalAlpha = 1;
}

/** @param {HTMLCanvasElement} mask @param {string} colour @param {number} width @param {number} height */
function tint(mask, colour, width, height) {
  const canvas = blank(width, height);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(mask, 0, 0, width, height);
  context.globalCompositeOperation = "source-in";
  context.fillStyle = colour;
  context.fillRect(0, 0, width, height);
  return canvas;
}

/** The ring around a shape: its shifted copies without itself. @param {HTMLCanvasElement} shape @param {number} width */
function outline(shape, width) {
  const canvas = blank(shape.width, shape.height);
  const context = canvas.getContext("2d");
  for (const angle of DIRECTIONS) context.drawImage(shape, width * Math.cos(angle), width * Math.sin(angle));
  context.globalCompositeOperation = "destination-out";
  context.drawImage(shape, 0, 0);
  return canvas;
}
