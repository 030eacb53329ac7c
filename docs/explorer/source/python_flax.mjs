/** A layer as plain Flax on JAX. */

import { extent } from "./geometry.mjs";
import { data, facts, isZero, keywords, padded, tuple } from "./python.mjs";

const DEFAULTS = { strides: "(1, 1)", kernel_dilation: "(1, 1)", padding: '"SAME"' };

function layerPadding({ padding, pads, border }) {
  if (border || isZero(pads)) return '"VALID"';
  return padding === "same" ? '"SAME"' : tuple(pads);
}

function transposedPadding(layer) {
  const { pads, more } = facts(layer);
  return tuple(pads.map(([before, after], axis) => {
    const most = extent(layer, axis) - 1;
    return [most - before, most - after + more[axis]];
  }));
}

/** Flax's program. */
export function flaxProgram(layer) {
  const known = facts(layer), { transposed, stride, dilation, border, kernelSize } = known;
  const lines = [...data(layer), "x, k = jnp.array(X)[None, :, :, None], jnp.array(K)[:, :, None, None]"];
  if (border) lines.splice(-1, 0, `X = ${padded("jnp", layer, "jnp.array(X)")}`);
  const options = {
    strides: tuple(stride), padding: transposed ? transposedPadding(layer) : layerPadding(known),
    kernel_dilation: tuple(dilation), use_bias: "False", ...(transposed ? { transpose_kernel: "True" } : {}),
  };
  const name = transposed ? "ConvTranspose" : "Conv";
  lines.push(`layer = nn.${name}(1, ${tuple(kernelSize)}${keywords(options, DEFAULTS)})`);
  lines.push('Y = layer.apply({"params": {"kernel": k}}, x)[0, :, :, 0]');
  return ["import jax.numpy as jnp", "from flax import linen as nn", "", ...lines];
}
