/** A layer as plain gluon of MXNet. */

import { cut, data, facts, isZero, keywords, numpyBorder, tuple } from "./python.mjs";

const DEFAULTS = { strides: "(1, 1)", padding: "(0, 0)", dilation: "(1, 1)" };

function layerLines(name, { kernelSize: [h, w] }, options, pixels) {
  return [
    "x = mx.nd.array(X).expand_dims(0).expand_dims(0)",
    `layer = nn.${name}(1, (${h}, ${w})${keywords(options, DEFAULTS)}, use_bias=False, in_channels=1)`,
    "layer.initialize()",
    `layer.weight.set_data(mx.nd.array(K).reshape((1, 1, ${h}, ${w})))`,
    `Y = layer(x)[0, 0${pixels ? `, ${pixels}` : ""}]`,
  ];
}

function forward(layer) {
  const known = facts(layer), { pads, border, stride, dilation } = known;
  const even = pads.every(([before, after]) => before === after), byHand = border || !even;
  const own = byHand ? "(0, 0)" : tuple(pads.map(([before]) => before));
  const lines = [...data(layer)];
  if (byHand) lines.push(`${numpyBorder(layer)}  # gluon's layer pads with zeros, as many on both sides`);
  const options = { strides: tuple(stride), padding: own, dilation: tuple(dilation) };
  return { numpy: byHand, lines: [...lines, ...layerLines("Conv2D", known, options)] };
}

function transposed(layer) {
  const known = facts(layer), { pads, more, stride, dilation } = known, { before, slice } = cut(layer);
  const added = pads.map(([first, last], axis) => first - last + more[axis]);
  const options = { strides: tuple(stride), dilation: tuple(dilation) };
  if (added.every((each, axis) => each >= 0 && each < stride[axis])) {
    options.padding = tuple(pads.map(([first]) => first));
    if (!isZero(added)) options.output_padding = tuple(added);
    return { numpy: false, lines: [...data(layer), ...layerLines("Conv2DTranspose", known, options)] };
  }
  const lines = [...data(layer), ...before, ...layerLines("Conv2DTranspose", known, options, slice)];
  return { numpy: before.length > 0, lines };
}

/** gluon's program. */
export function gluonProgram(layer) {
  const { numpy, lines } = layer.transposed ? transposed(layer) : forward(layer);
  return ["import mxnet as mx", ...(numpy ? ["import numpy as np"] : []), "from mxnet.gluon import nn", "", ...lines];
}
