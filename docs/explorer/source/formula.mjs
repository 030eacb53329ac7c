/** The formula of the result's size, and the formula with the layer's numbers. */

import { extent, outputPadding, outputSize, pads, sizeOf } from "./geometry.mjs";

const NAMES = [["H", "top", "bottom", "h"], ["W", "left", "right", "w"]];

/** The formula of the rows (axis 0) or columns (axis 1). */
export function symbols(layer, axis) {
  const [size, before, after, kernel] = NAMES[axis];
  if (layer.transposed) {
    return `${size}′ = (${size} − 1) × stride − ${before} − ${after} + dilation × (${kernel} − 1) + output padding + 1`;
  }
  return `${size}′ = ⌊(${size} + ${before} + ${after} − (${kernel} − 1) × dilation − 1) / stride⌋ + 1`;
}

/** The formula with numbers. */
export function filled(layer, axis) {
  const n = sizeOf(layer.image)[axis], [before, after] = pads(layer)[axis], k = sizeOf(layer.kernel)[axis];
  const stride = layer.stride[axis], dilation = layer.dilation[axis], size = outputSize(layer, axis);
  if (layer.transposed) {
    const more = outputPadding(layer, axis);
    return `(${n} − 1) × ${stride} − ${before} − ${after} + ${dilation} × (${k} − 1) + ${more} + 1 = ${size}`;
  }
  return `⌊(${n} + ${before} + ${after} − (${k} − 1) × ${dilation} − 1) / ${stride}⌋ + 1 = ${size}`;
}

/** What the numbers of a padding and a dilation come to, in a sentence. */
export function inWords(layer) {
  const [[top, bottom], [left, right]] = pads(layer);
  const removed = layer.transposed ? "Taken off the result" : "Padding";
  return `${removed}: ${top} above, ${bottom} below, ${left} to the left, ${right} to the right. ` +
    `The kernel spans ${extent(layer, 0)}×${extent(layer, 1)} pixels.`;
}
