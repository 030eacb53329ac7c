/** The explorer's arithmetic beside convlab's golden cases, and its other pure modules. Run by `node --test`. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { kernelAt, radiusOf } from "../../docs/explorer/source/chart.mjs";
import { groupsOf, takes, weightOf } from "../../docs/explorer/source/channels.mjs";
import { compareConventions } from "../../docs/explorer/source/conventions.mjs";
import * as descent from "../../docs/explorer/source/descent.mjs";
import { problem } from "../../docs/explorer/source/geometry.mjs";
import { convolve, products, reached, result } from "../../docs/explorer/source/products.mjs";
import { brief, equals, shown } from "../../docs/explorer/source/shown.mjs";
import { chapterLayer } from "../../docs/explorer/source/state.mjs";

const GOLDEN = JSON.parse(readFileSync(new URL("../../convlab/testing/golden.json", import.meta.url), "utf8")).cases;

const pair = (value) => (Array.isArray(value) ? value : [value, value]);
const fourPads = (value) => (typeof value === "string" ? value : pair(value).map(pair));

function layerOf(image, kernel, { options = {}, function: name } = {}) {
  const { stride = 1, padding = "valid", padding_mode: mode = "zeros", dilation = 1 } = options;
  const geometry = { stride: pair(stride), padding: fourPads(padding), mode, dilation: pair(dilation) };
  return { ...chapterLayer(), image, kernel, flip: name === "conv2d", ...geometry };
}

const add = (a, b) => a.map((row, i) => row.map((x, j) => x + b[i][j]));
const rank = (x) => (Array.isArray(x) ? 1 + rank(x[0]) : 0);

/** A case's images, its kernels (O, C/groups) and its results, channels first. */
function channelsFirst(golden) {
  const last = golden.options?.data_format === "NHWC";
  const images = rank(golden.X) === 4 ? golden.X : [golden.X], results = rank(golden.Y) === 4 ? golden.Y : [golden.Y];
  if (!last) return { images, kernels: golden.K, results };
  const first = (x) => x[0][0].map((_, c) => x.map((row) => row.map((pixel) => pixel[c])));
  const kernels = golden.K[0][0][0].map((_, o) => golden.K[0][0].map((_, c) =>
    golden.K.map((row) => row.map((tap) => tap[c][o]))));
  return { images: images.map(first), kernels, results: results.map(first) };
}

function computeChannels(golden) {
  const { images, kernels, results } = channelsFirst(golden), groups = golden.options?.groups ?? 1;
  const found = images.map((image) => kernels.map((channels, o) => {
    const start = Math.floor(o / (kernels.length / groups)) * channels.length;
    const parts = channels.map((kernel, c) => result(products(layerOf(image[start + c], kernel, golden))));
    return parts.reduce(add).map((row) => row.map((x) => x + (golden.bias?.[o] ?? 0)));
  }));
  return { found, results };
}

for (const golden of GOLDEN) {
  test(`golden: ${golden.name}`, () => {
    if (rank(golden.K) === 2) {
      const layer = layerOf(golden.X, golden.K, golden);
      assert.deepEqual(result(products(layer)), golden.Y);
      assert.deepEqual(convolve(layer), golden.Y);
    } else {
      const { found, results } = computeChannels(golden);
      assert.deepEqual(found, results);
    }
  });
}

test("there are golden cases of every padding and of groups", () => {
  const names = GOLDEN.map(({ options }) => options?.padding);
  for (const name of ["same", "same_lower", "full"]) assert.ok(names.includes(name));
  assert.ok(GOLDEN.length >= 20);
});

const transposed = (more) => ({ ...chapterLayer(), transposed: true, ...more });

test("the transposed convolution of docs/reference/semantics.md", () => {
  const layer = transposed({ image: [[0, 1], [2, 3]], kernel: [[0, 1], [2, 3]], stride: [2, 2] });
  for (const found of [result(products(layer)), convolve(layer)]) {
    assert.deepEqual(found, [[0, 0, 0, 1], [0, 0, 2, 3], [0, 2, 0, 3], [4, 6, 6, 9]]);
  }
});

test("a transposed convolution is the transpose of the correlation", () => {
  const kernel = [[1, 2], [3, 5]], X = [...Array(6)].map((_, i) => [...Array(7)].map((_, j) => 7 * i + j));
  const Y = [[0, 1, 2], [3, 4, 5], [6, 7, 8]], inner = (a, b) => a.flat().reduce((t, x, i) => t + x * b.flat()[i], 0);
  const forward = result(products({ ...chapterLayer(), image: X, kernel, stride: [2, 2] }));
  const back = result(products(transposed({ image: Y, kernel, stride: [2, 2], outputPadding: [0, 1] })));
  assert.equal(inner(forward, Y), 11508);
  assert.equal(inner(X, back), 11508);
});

test("a transposed convolution with padding same has n * stride rows and columns", () => {
  for (const stride of [1, 2, 3, 4]) {
    const layer = transposed({ kernel: [[1, 2, 3]], stride: [stride, stride], padding: "same" });
    assert.equal(problem(layer), "");
    assert.deepEqual([result(products(layer)).length, result(products(layer))[0].length], [6 * stride, 8 * stride]);
  }
});

test("an input pixel reaches the outputs whose windows hold it, borders among them", () => {
  const all = products(chapterLayer());
  assert.deepEqual(reached(all, [0, 0]), [[0, 0]]);
  assert.deepEqual(reached(all, [2, 3]), [[2, 2], [2, 3]]);
  const wrapped = products({ ...chapterLayer(), padding: "same", mode: "circular" });
  assert.deepEqual(reached(wrapped, [1, 0]), [[1, 0], [1, 7]]);  // of an even kernel, "same" pads the end
});

test("what has no result says why", () => {
  const tall = { ...chapterLayer(), kernel: [...Array(7)].map(() => [1]) };
  assert.match(problem(tall), /kernel spans 7 rows.*padded image has 6/);
  assert.match(problem(transposed({ padding: [[6, 6], [0, 0]] })), /leaves -6 rows/);
  assert.match(problem(transposed({ outputPadding: [1, 0] })), /output padding must be less/);
});

test("the chapter's loop gives the losses of docs/chapter.md", () => {
  const { image, kernel } = chapterLayer(), target = result(products(chapterLayer()));
  const problemOfChapter = descent.equations(image, target, [1, 2]);
  const path = descent.descend(problemOfChapter, [0, 0], 0.03, 10);
  // The loss that an epoch prints is the one before its step.
  assert.deepEqual([2, 4, 6, 8, 10].map((epoch) => path[epoch - 1].loss.toFixed(3)),
    ["4.915", "0.825", "0.138", "0.023", "0.004"]);
  assert.deepEqual(path[10].kernel.map((x) => x.toFixed(3)), ["0.988", "-0.988"]);
  assert.equal(descent.loss(problemOfChapter, kernel[0]), 0);
});

test("the largest stable rate parts descent from divergence", () => {
  const target = result(products(chapterLayer())), equations = descent.equations(chapterLayer().image, target, [1, 2]);
  const largest = descent.largestRate(equations);
  assert.ok(Math.abs(largest - 2 / descent.largestEigenvalue(descent.hessian(equations))) < 1e-12);
  const last = (rate) => descent.descend(equations, [0.3, 0.1], rate, 400).at(-1).loss;
  assert.ok(last(largest * 0.99) < 1e-2);
  assert.ok(last(largest * 1.01) > 1);
});

test("the conventions differ as docs/reference/semantics.md says", () => {
  const image = [[1, 2, 3, 4, 5, 6, 7, 8]], kernel = [[1, 1, 1, 1, 1, 1, 1]];
  const layer = { ...chapterLayer(), image, kernel, stride: [1, 2] };
  const { sides, same, different, count } = compareConventions(layer);
  assert.deepEqual([sides, same], [[[10, 21, 35, 30]], [[15, 28, 33, 26]]]);
  assert.deepEqual([different, count], [4, 4]);
});

test("groups divide both numbers of channels, and a channel takes those of its group", () => {
  assert.deepEqual(groupsOf(4, 6), [1, 2]);
  assert.deepEqual(groupsOf(8, 12), [1, 2, 4]);
  const layer = { inputs: 4, outputs: 6, groups: 2 };
  const taken = [...Array(6).keys()].map((o) => [...Array(4).keys()].map((i) => Number(takes(layer, o, i))));
  assert.deepEqual(taken, [...Array(3).fill([1, 1, 0, 0]), ...Array(3).fill([0, 0, 1, 1])]);
});

test("weights of groups have the frameworks' shapes", () => {
  assert.deepEqual(weightOf({ inputs: 4, outputs: 6, groups: 2 }, [3, 5]),
    { OIHW: [6, 2, 3, 5], HWIO: [3, 5, 2, 6], depthwise: null, count: 180 });
  assert.deepEqual(weightOf({ inputs: 3, outputs: 6, groups: 3 }, [3, 3]).depthwise, [3, 3, 3, 2]);
});

test("the kernel of the least loss, also where the image leaves a weight open", () => {
  const image = [[1, 2, 0, 4], [0, 1, 3, 5]], target = [[1, -2, 4], [1, 2, 2]];  // of [-1, 1], by hand
  const least = descent.leastLoss(descent.equations(image, target, [1, 2]));
  least.kernel.forEach((x, i) => assert.ok(Math.abs(x - [-1, 1][i]) < 1e-12));
  assert.equal(least.unique, true);
  assert.deepEqual(descent.leastLoss(descent.equations([[0, 0, 0]], [[1, 1]], [1, 2])),
    { kernel: [0, 0], unique: false });
  // A constant image knows only the sum of the weights.
  assert.deepEqual(descent.leastLoss(descent.equations([[2, 2, 2]], [[6, 6]], [1, 2])),
    { kernel: [3, 0], unique: false });
});

test("the bowl's picture holds the minimum and the start, and grows by no click in it", () => {
  assert.equal(radiusOf([1, -1], [-1, 1.5]), 2.5);
  assert.equal(radiusOf([4, -6], [-1, 1.5]), 10);
  assert.equal(radiusOf([1, -1], [5, 0]), 5);
  assert.equal(radiusOf([2.5, 0], [0, 0]), 5);
  assert.deepEqual(kernelAt(1, 0.5, 10), [10, 0]);
  assert.deepEqual(kernelAt(0.25, 1, 10), [-5, -10]);
  assert.equal(radiusOf([4, -6], kernelAt(1, 1, 10)), 10);
});

test("numbers are shown so that none is taken for another", () => {
  const cells = [0, 1234, -12345, 0.123456, 1234.56, 123456, -1.5e12, 99999.9, 2e-7];
  assert.deepEqual(cells.map((x) => brief(x)),
    ["0", "1234", "−12345", "0.123", "1235", "1.2e5", "−1.5e12", "100000", "2e−7"]);
  assert.deepEqual([shown(1e9, 2, 1e6), shown(-1.234e30, 2, 1e6), shown(99999, 2, 1e6)], ["1e9", "−1.2e30", "100000"]);
  assert.equal(equals([0.1, 3, 0.1 * 3], 4), "=");
  assert.equal(equals([123456, 2], 4), "≈");
  assert.equal(equals([1 / 3], 8), "≈");
});
