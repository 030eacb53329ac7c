/** A layer as PyTorch's plain calls. */

import { sizeOf } from "./geometry.mjs";
import { cut, data, facts, isOne, isZero, keywords, numpyBorder, tuple } from "./python.mjs";

const options = (values) => keywords(values, { stride: "(1, 1)", padding: "(0, 0)", dilation: "(1, 1)" });

/** Whether torch.nn.functional.pad makes this border. */
function hasBorder(layer) {
  const size = sizeOf(layer.image), most = Math.max(...facts(layer).pads.map((pair, i) => Math.max(...pair) - size[i]));
  return { zeros: true, replicate: true, reflect: most < 0, circular: most <= 0 }[layer.mode] ?? false;
}

function borderLine(layer) {
  const [[top, bottom], [left, right]] = facts(layer).pads;
  const mode = layer.mode === "zeros" ? "" : `, mode="${layer.mode}"`;
  const value = layer.mode === "zeros" && layer.value !== 0 ? `, value=${layer.value}` : "";
  return `x = F.pad(x, (${left}, ${right}, ${top}, ${bottom})${mode}${value})`;
}

function forward(layer) {
  const { pads, border, stride, dilation, padding } = facts(layer);
  const even = pads.every(([before, after]) => before === after), native = border && hasBorder(layer);
  const same = padding === "same" && isOne(stride) && !border;
  const own = same ? '"same"' : border || !even ? "(0, 0)" : tuple(pads.map(([before]) => before));
  const lines = [...data(layer)];
  if (border && !native) lines.push(`${numpyBorder(layer)}  # PyTorch has no such border`);
  lines.push("x, k = torch.tensor(X)[None, None], torch.tensor(K)[None, None]");
  if (native || (!border && !even && !same)) lines.push(borderLine(layer));
  const call = options({ stride: tuple(stride), padding: own, dilation: tuple(dilation) });
  return { numpy: border && !native, lines: [...lines, `Y = F.conv2d(x, k${call})[0, 0]`] };
}

function transposed(layer) {
  const { pads, more, stride, dilation } = facts(layer), { before, slice } = cut(layer);
  const added = pads.map(([first, last], axis) => first - last + more[axis]);
  const direct = added.every((each, axis) => each >= 0 && each < Math.max(stride[axis], dilation[axis]));
  const tensors = "x, k = torch.tensor(X)[None, None], torch.tensor(K)[None, None]";
  const common = { stride: tuple(stride), dilation: tuple(dilation) };
  if (direct) {
    const own = { ...common, padding: tuple(pads.map(([first]) => first)) };
    if (!isZero(added)) own.output_padding = tuple(added);
    return { numpy: false, lines: [...data(layer), tensors, `Y = F.conv_transpose2d(x, k${options(own)})[0, 0]`] };
  }
  const call = `Y = F.conv_transpose2d(x, k${options(common)})[0, 0, ${slice}]`;
  return { numpy: before.length > 0, lines: [...data(layer), ...before, tensors, call] };
}

/** PyTorch's program. */
export function torchProgram(layer) {
  const { numpy, lines } = layer.transposed ? transposed(layer) : forward(layer);
  return [...(numpy ? ["import numpy as np"] : []), "import torch", "import torch.nn.functional as F", "", ...lines];
}
