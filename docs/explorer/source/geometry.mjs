/** Where a layer puts its kernel: sizes, paddings and borders, as in convlab/geometry. Pairs are [rows, columns]. */

export const PADDINGS = ["valid", "same", "same_lower", "full"];
export const MODES = ["zeros", "reflect", "symmetric", "replicate", "circular"];

export const sizeOf = (matrix) => [matrix.length, matrix[0].length];
const modulo = (i, n) => ((i % n) + n) % n;

/** The rows or columns that the kernel spans, dilation counted. */
export function extent(layer, axis) {
  return (sizeOf(layer.kernel)[axis] - 1) * layer.dilation[axis] + 1;
}

/** An even total split in two halves; the odd pixel goes to the end, or to the start for "same_lower". */
function halves(total, name) {
  const small = Math.floor(total / 2);
  return name === "same_lower" ? [total - small, small] : [small, total - small];
}

/** The pixels before and after an axis that the layer's padding stands for. */
function padsOfAxis(layer, axis) {
  const { padding, transposed } = layer;
  const span = extent(layer, axis), stride = layer.stride[axis], n = sizeOf(layer.image)[axis];
  if (Array.isArray(padding)) return padding[axis];
  if (padding === "valid") return [0, 0];
  if (padding === "full") return [span - 1, span - 1];
  const total = transposed ? span - stride : (Math.ceil(n / stride) - 1) * stride + span - n;
  return halves(Math.max(total, 0), padding);
}

/** [[top, bottom], [left, right]]. */
export const pads = (layer) => [padsOfAxis(layer, 0), padsOfAxis(layer, 1)];

/** The rows and columns that a transposed convolution adds at the end of its result. */
export function outputPadding(layer, axis) {
  const same = layer.padding === "same" || layer.padding === "same_lower";
  return same ? Math.max(layer.stride[axis] - extent(layer, axis), 0) : layer.outputPadding[axis];
}

/** The result's rows (axis 0) or columns (axis 1); it may be less than one, and then there is no result. */
export function outputSize(layer, axis) {
  const n = sizeOf(layer.image)[axis], [before, after] = pads(layer)[axis];
  const span = extent(layer, axis), stride = layer.stride[axis];
  if (layer.transposed) return (n - 1) * stride - before - after + span + outputPadding(layer, axis);
  return Math.floor((n + before + after - span) / stride) + 1;
}

/** The index of the pixel, out of n, that stands at position i of the padded axis; null for a padded number. */
export function borderIndex(i, n, mode) {
  if (i >= 0 && i < n) return i;
  if (mode === "zeros") return null;
  if (mode === "circular") return modulo(i, n);
  if (mode === "symmetric") return Math.min(modulo(i, 2 * n), modulo(-1 - i, 2 * n));
  if (mode === "replicate" || n === 1) return Math.min(Math.max(i, 0), n - 1);
  return Math.min(modulo(i, 2 * (n - 1)), modulo(-i, 2 * (n - 1)));
}

/** What is wrong with the layer's geometry, in words; "" if it has a result. */
export function problem(layer) {
  for (const axis of [0, 1]) {
    const name = ["rows", "columns"][axis], size = outputSize(layer, axis);
    if (layer.transposed && layer.outputPadding[axis] >= Math.max(layer.stride[axis], layer.dilation[axis])) {
      return `The output padding must be less than the larger of stride and dilation, along the ${name}.`;
    }
    if (size < 1 && layer.transposed) return `The padding leaves ${size} ${name} of the result. Make it smaller.`;
    if (size < 1) {
      const padded = sizeOf(layer.image)[axis] + pads(layer)[axis][0] + pads(layer)[axis][1];
      return `The kernel spans ${extent(layer, axis)} ${name}, dilation counted, and the padded image has ${padded}. ` +
        "Make the kernel or the dilation smaller, or the padding larger.";
    }
  }
  return "";
}
