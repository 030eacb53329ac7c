/** Every product of a layer: which pixel meets which weight, for which output pixel. */

import { borderIndex, outputSize, pads, sizeOf } from "./geometry.mjs";

/** The weight that lies at row p and column q of the window: the kernel is turned by 180 degrees for a convolution. */
function weightAt(layer, p, q) {
  const [h, w] = sizeOf(layer.kernel);
  return layer.flip ? [h - 1 - p, w - 1 - q] : [p, q];
}

/** The position in the padded image, counted from the image's first pixel, or null if there is none. */
function position(layer, axis, output, tap) {
  const before = pads(layer)[axis][0], stride = layer.stride[axis], dilation = layer.dilation[axis];
  if (!layer.transposed) return output * stride + tap * dilation - before;
  const spread = output + before - tap * dilation;
  const inside = spread >= 0 && spread % stride === 0 && spread / stride < sizeOf(layer.image)[axis];
  return inside ? spread / stride : null;
}

/** For each output row (axis 0) or column (axis 1), and each tap of the kernel, the position. */
function positions(layer, axis) {
  const taps = [...Array(sizeOf(layer.kernel)[axis]).keys()];
  const outputs = [...Array(Math.max(outputSize(layer, axis), 0)).keys()];
  return outputs.map((output) => taps.map((tap) => position(layer, axis, output, tap)));
}

/**
 * The products of each output pixel, row by row.
 *
 * A product has `at`, its place in the padded image counted from the image's first pixel; `source`, the pixel whose
 * number is there, null for a padded number; `weight`, the place in the kernel; `x` and `k`, the two factors.
 */
export function products(layer) {
  const rows = positions(layer, 0), columns = positions(layer, 1), [height, width] = sizeOf(layer.image);
  const one = (r, c, p, q) => {
    const source = [borderIndex(r, height, layer.mode), borderIndex(c, width, layer.mode)];
    const inside = source[0] !== null && source[1] !== null;
    const weight = weightAt(layer, p, q);
    const x = inside ? layer.image[source[0]][source[1]] : layer.value;
    return { at: [r, c], source: inside ? source : null, weight, x, k: layer.kernel[weight[0]][weight[1]] };
  };
  return rows.map((taps) => columns.map((across) => taps.flatMap((r, p) => (r === null ? [] :
    across.flatMap((c, q) => (c === null ? [] : [one(r, c, p, q)]))))));
}

/** The sum of an output pixel's products. */
export const sum = (terms) => terms.reduce((total, { x, k }) => total + x * k, 0);

/** The layer's result, from its products. */
export const result = (all) => all.map((row) => row.map(sum));

/** The layer's result alone, which takes a tenth of the time. */
export function convolve(layer) {
  const size = sizeOf(layer.image), [h, w] = sizeOf(layer.kernel);
  const [rows, columns] = [0, 1].map((axis) => positions(layer, axis).map((taps) =>
    taps.map((at) => (at === null ? undefined : borderIndex(at, size[axis], layer.mode)))));
  const weights = [...Array(h).keys()].map((p) => [...Array(w).keys()].map((q) => {
    const [row, column] = weightAt(layer, p, q);
    return layer.kernel[row][column];
  }));
  return rows.map((taps) => columns.map((across) => {
    let total = 0;
    taps.forEach((r, p) => across.forEach((c, q) => {
      if (r === undefined || c === undefined) return;
      total += (r === null || c === null ? layer.value : layer.image[r][c]) * weights[p][q];
    }));
    return total;
  }));
}

/** The output pixels, as [row, column], whose products an input pixel takes part in. */
export function reached(all, [row, column]) {
  const takes = ({ source }) => source !== null && source[0] === row && source[1] === column;
  return all.flatMap((terms, i) => terms.flatMap((each, j) => (each.some(takes) ? [[i, j]] : [])));
}
