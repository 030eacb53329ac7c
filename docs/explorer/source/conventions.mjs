/** The two conventions of padding that frameworks have, on one layer: where they differ, and how to make them agree. */

import { extent, pads, problem, sizeOf } from "./geometry.mjs";
import { convolve } from "./products.mjs";
import { isOne, keywords, tuple } from "./python.mjs";

const GEOMETRY = ["stride", "strides", "dilation", "dilation_rate", "kernel_dilation"];
const DEFAULTS = Object.fromEntries(GEOMETRY.map((name) => [name, "(1, 1)"]));

/** The layer as PyTorch's and gluon's users write it, half a kernel on each side, and as SAME pads it. */
export function bothConventions(layer) {
  const plain = { ...layer, mode: "zeros", value: 0, transposed: false, outputPadding: [0, 0] };
  const half = [0, 1].map((axis) => Math.floor(extent(plain, axis) / 2));
  return { sides: { ...plain, padding: half.map((n) => [n, n]) }, same: { ...plain, padding: "same" } };
}

/** Both results, and for each pixel whether they differ; a pixel that only one has differs. */
export function compareConventions(layer) {
  const both = bothConventions(layer);
  const compute = (one) => (problem(one) ? [] : convolve(one));
  const [sides, same] = [compute(both.sides), compute(both.same)];
  const differs = (i, j) => sides[i]?.[j] !== same[i]?.[j];
  const rows = Math.max(sides.length, same.length), columns = Math.max(sides[0]?.length ?? 0, same[0]?.length ?? 0);
  const pixels = [...Array(rows).keys()].flatMap((i) => [...Array(columns).keys()].map((j) => differs(i, j)));
  const different = pixels.filter(Boolean).length;
  return { sides, same, differs, different, count: pixels.length, pads: [pads(both.sides), pads(both.same)] };
}

/** Whether Keras's layer refuses the layer: it takes no dilation beside strides. */
const isRefused = ({ stride, dilation }) => !isOne(stride) && !isOne(dilation);

/** For each framework: what it calls the layer, its code with its own convention, and the shapes that it takes. */
export function layersByFramework(layer) {
  const { sides } = bothConventions(layer), size = tuple(sizeOf(layer.kernel)), [h, w] = sizeOf(layer.kernel);
  const half = tuple(sides.padding.map(([n]) => n)), stride = tuple(layer.stride), dilation = tuple(layer.dilation);
  const first = `images (N, C, H, W), kernel (1, 1, ${h}, ${w})`;
  const last = `images (N, H, W, C), kernel (${h}, ${w}, 1, 1)`;
  const keras = { strides: stride, padding: '"same"', dilation_rate: dilation, use_bias: "False" };
  const flax = { strides: stride, padding: '"SAME"', kernel_dilation: dilation, use_bias: "False" };
  const torch = { stride, padding: half, dilation, bias: "False" };
  const gluon = { strides: stride, padding: half, dilation };
  return {
    PyTorch: ["torch.nn.Conv2d", `torch.nn.Conv2d(1, 1, ${size}${keywords(torch, DEFAULTS)})`, first],
    gluon: ["mxnet.gluon.nn.Conv2D", `nn.Conv2D(1, ${size}${keywords(gluon, DEFAULTS)}, use_bias=False)`, first],
    Keras: ["keras.layers.Conv2D", isRefused(layer) ? "refused: Keras takes no dilation beside strides"
      : `keras.layers.Conv2D(1, ${size}${keywords(keras, DEFAULTS)})`, last],
    Flax: ["flax.linen.Conv", `nn.Conv(1, ${size}${keywords(flax, DEFAULTS)})`, last],
  };
}

/**
 * Layers that compute the other convention's result.
 *
 * Where Keras refuses the stride, a pooling of single pixels takes the pixels that the stride would.
 */
export function converted(layer) {
  const { sides, same } = bothConventions(layer), size = tuple(sizeOf(layer.kernel));
  const stride = tuple(layer.stride), dilation = tuple(layer.dilation), [[top, bottom], [left, right]] = pads(same);
  const torch = keywords({ stride, dilation, bias: "False" }, DEFAULTS);
  const refused = isRefused(layer), strides = refused ? "(1, 1)" : stride;
  const keras = keywords({ strides, dilation_rate: dilation, use_bias: "False" }, DEFAULTS);
  const pooling = refused ? `, keras.layers.MaxPooling2D((1, 1), strides=${stride})` : "";
  const both = { padding: tuple(sides.padding), kernel_dilation: dilation, use_bias: "False" };
  const flax = keywords({ strides: stride, ...both }, DEFAULTS);
  return {
    "PyTorch, as SAME": `torch.nn.Sequential(torch.nn.ZeroPad2d((${left}, ${right}, ${top}, ${bottom})), ` +
      `torch.nn.Conv2d(1, 1, ${size}${torch}))`,
    "Keras, as PyTorch": `keras.Sequential([keras.layers.ZeroPadding2D(${tuple(sides.padding)}), ` +
      `keras.layers.Conv2D(1, ${size}${keras})${pooling}])`,
    "Flax, as PyTorch": `nn.Conv(1, ${size}${flax})`,
  };
}
