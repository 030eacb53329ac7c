/** A layer as plain Keras. */

import { extent, sizeOf } from "./geometry.mjs";
import { cut, data, facts, isOne, isZero, keywords, numpyBorder, padded, tuple } from "./python.mjs";

const DEFAULTS = { strides: "(1, 1)", dilation_rate: "(1, 1)" };

/** Whether keras.ops.pad makes this border. */
function hasBorder(layer) {
  const size = sizeOf(layer.image), most = Math.max(...facts(layer).pads.map((pair, i) => Math.max(...pair) - size[i]));
  return { zeros: true, reflect: most < 0, symmetric: most <= 0 }[layer.mode] ?? false;
}

/** The lines that make K an array, spread by its dilation where Keras takes no dilation. */
function kernelLines(layer, spread) {
  if (!spread) return ['k = np.array(K, dtype="float32")'];
  const [down, right] = layer.dilation;
  return [
    `k = np.zeros((${extent(layer, 0)}, ${extent(layer, 1)}), dtype="float32")`,
    `k[::${down}, ::${right}] = K  # Keras takes no such dilation beside strides: the kernel is spread`,
  ];
}

function layerLines(name, size, options) {
  return [
    `layer = keras.layers.${name}(1, ${tuple(size)}${keywords(options, DEFAULTS)}, use_bias=False)`,
    "layer.build(x.shape)",
    "layer.set_weights([k[:, :, None, None]])",
  ];
}

function forward(layer) {
  const { pads, border, stride, dilation, padding, kernelSize } = facts(layer);
  const spread = !isOne(dilation) && !isOne(stride), named = padding === "same" && !border;
  const lines = [...data(layer)];
  if (border) {
    const own = hasBorder(layer) ? `X = ${padded("keras.ops", layer, 'np.array(X, dtype="float32")')}` : null;
    lines.push(own ?? `${numpyBorder(layer)}  # Keras has no such border`);
  }
  lines.push(`x = np.array(X, dtype="float32")[None, :, :, None]`, ...kernelLines(layer, spread));
  if (!border && !named && !isZero(pads)) lines.push(`x = keras.layers.ZeroPadding2D(${tuple(pads)})(x)`);
  const size = spread ? [extent(layer, 0), extent(layer, 1)] : kernelSize;
  const rate = spread ? "(1, 1)" : tuple(dilation);
  const options = { strides: tuple(stride), padding: named ? '"same"' : '"valid"', dilation_rate: rate };
  return [...lines, ...layerLines("Conv2D", size, options), "Y = np.array(layer(x))[0, :, :, 0]"];
}

function transposed(layer) {
  const { stride, dilation, padding, kernelSize } = facts(layer), { before, slice } = cut(layer);
  const spread = !isOne(dilation), size = spread ? [extent(layer, 0), extent(layer, 1)] : kernelSize;
  const same = padding === "same", lines = [...data(layer), ...(same ? [] : before)];
  lines.push(`x = np.array(X, dtype="float32")[None, :, :, None]`, ...kernelLines(layer, spread));
  const options = { strides: tuple(stride), padding: same ? '"same"' : '"valid"' };
  const pixels = same ? ":, :" : slice;
  return [...lines, ...layerLines("Conv2DTranspose", size, options), `Y = np.array(layer(x))[0, ${pixels}, 0]`];
}

/** Keras's program. */
export function kerasProgram(layer) {
  return ["import keras", "import numpy as np", "", ...(layer.transposed ? transposed(layer) : forward(layer))];
}
