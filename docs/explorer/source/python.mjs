/** A layer as a Python program of a framework: plain calls, which need no convlab but in its own program. */

import { outputPadding, outputSize, pads, sizeOf } from "./geometry.mjs";

/** A number as Python's float. */
const float = (x) => (Number.isInteger(x) && Math.abs(x) < 1e16 ? `${x}.0` : String(x));

/** Python's text for a pair, or a pair of pairs. */
export const tuple = (value) => (Array.isArray(value) ? `(${value.map(tuple).join(", ")})` : String(value));

/** Python's text for lists of floats, a row a line. */
function nested(name, matrix) {
  const rows = matrix.map((row) => `[${row.map(float).join(", ")}]`);
  return rows.length === 1 ? `${name} = [${rows[0]}]` : `${name} = [\n${rows.map((row) => `    ${row},\n`).join("")}]`;
}

/** Keyword arguments but for those whose value is their default. */
export function keywords(values, defaults = {}) {
  return Object.entries(values).filter(([name, value]) => value !== defaults[name])
    .map(([name, value]) => `, ${name}=${value}`).join("");
}

export const isOne = (pair) => pair[0] === 1 && pair[1] === 1;
export const isZero = (value) => [value].flat(2).every((each) => each === 0);

/** What the programs need to know of a layer. */
export function facts(layer) {
  const border = !layer.transposed && (layer.mode !== "zeros" || layer.value !== 0);
  return {
    ...layer, kernelSize: sizeOf(layer.kernel), pads: pads(layer), size: [outputSize(layer, 0), outputSize(layer, 1)],
    more: [outputPadding(layer, 0), outputPadding(layer, 1)], border: border && !isZero(pads(layer)),
  };
}

/** The lines that define X and K, and turn K for a convolution. */
export function data(layer, turn = layer.flip) {
  const lines = [nested("X", layer.image), nested("K", layer.kernel)];
  if (turn) lines.push("K = [row[::-1] for row in K[::-1]]  # a convolution turns the kernel by 180 degrees");
  return lines;
}

const NUMPY_MODES = {
  zeros: "constant", reflect: "reflect", symmetric: "symmetric", replicate: "edge", circular: "wrap",
};

/** A call of pad, of NumPy or of what is written like it, on X. */
export function padded(module, layer, x = "X") {
  const mode = NUMPY_MODES[layer.mode];
  const value = mode === "constant" && layer.value !== 0 ? `, constant_values=${float(layer.value)}` : "";
  return `${module}.pad(${x}, ${tuple(pads(layer))}, mode="${mode}"${value})`;
}

/** NumPy's lines for a border that a framework's layer has not. */
export const numpyBorder = (layer) => `X = ${padded("np", layer, 'np.array(X, dtype="float32")')}`;

/** The lines before and after a transposed convolution without padding, which cut out the result. */
export function cut(layer) {
  const { image, stride, pads: [rows, columns], size, more } = facts(layer);
  const zeros = [0, 1].map((axis) => Math.max(0, more[axis] - [rows, columns][axis][1]));
  const added = zeros.map((count, axis) => Math.ceil(count / stride[axis])), [height, width] = sizeOf(image);
  const before = isZero(added) ? [] : [
    `X = np.pad(np.array(X, dtype="float32"), ((0, ${added[0]}), (0, ${added[1]})))  # ${height}x${width} before`,
  ];
  const [top, left] = [rows[0], columns[0]];
  return { before, slice: `${top}:${top + size[0]}, ${left}:${left + size[1]}` };
}

/** convlab's own program. */
export function convlabProgram(layer) {
  const { flip, transposed, stride, padding, mode, value, dilation, outputPadding: more } = layer;
  const name = transposed ? "conv_transpose2d" : flip ? "conv2d" : "corr2d";
  const named = typeof padding === "string";
  const options = {
    stride: isOne(stride) ? null : tuple(stride),
    padding: padding === "valid" || isZero(padding) ? null : named ? `"${padding}"` : tuple(padding),
    padding_mode: transposed || mode === "zeros" ? null : `"${mode}"`,
    padding_value: transposed || mode !== "zeros" || value === 0 ? null : float(value),
    output_padding: transposed && !isZero(more) && !(named && padding.startsWith("same")) ? tuple(more) : null,
    dilation: isOne(dilation) ? null : tuple(dilation),
  };
  const given = Object.fromEntries(Object.entries(options).filter(([, text]) => text !== null));
  return ["import convlab", "", ...data(layer, flip && transposed), `Y = convlab.${name}(X, K${keywords(given)})`];
}
