/** Images to begin with. */

import { numbers } from "./rounding.mjs";
import { chapterLayer } from "./state.mjs";

const pixels = (rows, columns, value) =>
  [...Array(rows).keys()].map((i) => [...Array(columns).keys()].map((j) => value(i, j)));

/** By name: a function that makes the image. */
export const PICTURES = {
  "the chapter's edges": () => chapterLayer().image,
  "the numbers 0 to 8": () => pixels(3, 3, (i, j) => 3 * i + j),
  "a diagonal edge": () => pixels(8, 8, (i, j) => (j <= i ? 1 : 0)),
  "a single pixel": () => pixels(7, 7, (i, j) => (i === 3 && j === 3 ? 1 : 0)),
  "a ramp": () => pixels(8, 10, (_, j) => j),
  "a chessboard": () => pixels(8, 8, (i, j) => (i + j) % 2),
  "a disc": () => pixels(16, 16, (i, j) => (Math.hypot(i - 7.5, j - 7.5) < 5.5 ? 9 : 1)),
  "noise": () => {
    const random = numbers(2026, 144);
    return pixels(12, 12, (i, j) => Math.floor((random[12 * i + j] + 1) * 5));
  },
  "nothing": () => pixels(8, 8, () => 0),
};

/** An image cut or filled with zeros to another size. */
export const resized = (matrix, rows, columns) => pixels(rows, columns, (i, j) => matrix[i]?.[j] ?? 0);
