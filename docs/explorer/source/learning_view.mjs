/** Learning a kernel: the chapter's loop, its loss, and the learning rate beyond which it diverges. */

import { drawBowl, drawLosses, kernelAt, radiusOf } from "./chart.mjs";
import { signed } from "./colours.mjs";
import { descend, equations, hessian, largestEigenvalue, leastLoss } from "./descent.mjs";
import { byId, make } from "./dom.mjs";
import { onNumber, showField } from "./fields.mjs";
import { problem, sizeOf } from "./geometry.mjs";
import { makeGrid } from "./grid.mjs";
import { convolve } from "./products.mjs";
import { brief, place, shown } from "./shown.mjs";
import { chapterLayer, LIMITS } from "./state.mjs";
import { change, store } from "./store.mjs";

const STEPS = 40, PAUSE = 250;
const START = ["start-first", "start-second"];
const NEXT = new Map([[0, 1], [1, -1], [-1, 0]]);
let timer = null, grid = null, radius = 1;

const paints = () => store.layer.lesson === "painted";

/** The layer that is learned: the chapter's, or the reader's image and kernel, without padding and stride. */
function task() {
  if (store.layer.lesson === "chapter") return chapterLayer();
  const own = { ...chapterLayer(), image: store.layer.image, kernel: store.layer.kernel };
  return problem(own) ? null : own;
}

/** The target that the kernel is to give: the true kernel's result, or the reader's, of that size. */
function targetOf(layer) {
  const reached = convolve(layer), { target } = store.layer;
  if (!paints()) return reached;
  return target && String(sizeOf(target)) === String(sizeOf(reached)) ? target
    : reached.map((row) => row.map((y) => Math.sign(y)));
}

function paint(i, j, key) {
  if (!/^(Enter|Delete|\d)$/.test(key)) return false;
  const target = targetOf(task()).map((row) => [...row]), before = target[i][j];
  target[i][j] = /\d/.test(key) ? Number(key) : key === "Delete" ? 0 : NEXT.get(before) ?? 0;
  change({ target });
  return true;
}

function showTarget(target) {
  byId("target-figure").hidden = !paints();
  if (!paints()) return;
  const most = Math.max(...target.flat().map(Math.abs), 1);
  grid.show(target.map((row, i) => row.map((y, j) =>
    ({ text: brief(y), label: `${place(i, j)}: ${shown(y, 8)}`, style: signed(y, most), marks: [] }))));
}

function showKernelAt(kernel, [, columns], truth) {
  const most = Math.max(...truth.map(Math.abs), 1e-9);
  byId("learned").style.setProperty("--columns", columns);
  byId("learned").replaceChildren(...kernel.map((weight) => {
    const cell = make("span", {}, brief(weight));
    Object.assign(cell.style, signed(weight, most));
    cell.style.setProperty("--letters", cell.textContent.length);
    return cell;
  }));
}

function rateInWords(rate, eigenvalue) {
  if (eigenvalue === 0) return "The image is zero everywhere its windows are: there is nothing to learn from.";
  const largest = 2 / eigenvalue;
  const head = `The largest stable rate is 2 / λ ≈ 2 / ${shown(eigenvalue, 4, 1e6)} ≈ ${shown(largest)}, ` +
    "where λ is the largest eigenvalue of the loss's Hessian.";
  if (rate === 0) return `${head} At 0, no step is taken: the kernel stays as it is.`;
  if (rate === largest) return `${head} At that rate, gradient descent neither converges nor diverges.`;
  return rate < largest ? `${head} At ${shown(rate)}, gradient descent converges.`
    : `${head} At ${shown(rate)}, each step overshoots further: gradient descent diverges.`;
}

function minimumInWords(kernel, unique) {
  const weights = kernel.map((weight) => shown(weight)).join(", ");
  if (unique) return `The ${paints() ? "kernel of the least loss" : "true kernel"} is ${weights}.`;
  return `${paints() ? "A kernel of the least loss" : "The true kernel"} is ${weights}; others have the same loss. ` +
    "The image doesn't determine the kernel: if gradient descent converges, it ends at the kernel of the least loss " +
    "that is nearest to its start.";
}

/** Draw the section as the layer is now. */
export function showLearning() {
  const layer = task(), { rate, start } = store.layer;
  byId("lesson").value = store.layer.lesson;
  showField(byId("rate"), rate);
  START.forEach((id, i) => showField(byId(id), start[i]));
  byId("lesson-problem").hidden = layer !== null;
  byId("lesson-result").hidden = layer === null;
  if (layer === null) return;
  const size = sizeOf(layer.kernel), target = targetOf(layer), squares = equations(layer.image, target, size);
  const curvature = hessian(squares), { kernel: least, unique } = leastLoss(squares);
  const truth = paints() ? least : layer.kernel.flat(), two = truth.length === 2;
  showTarget(target);
  const path = descend(squares, two ? start : truth.map(() => 0), rate, STEPS);
  const step = Math.min(Number(byId("step").value), path.length - 1), { kernel, loss } = path[step];
  showKernelAt(kernel, size, truth);
  byId("step-text").textContent =
    `Step ${step}: the loss is ${shown(loss, 4, 1e6)}. ${minimumInWords(truth, unique)}`;
  byId("rate-text").textContent = rateInWords(rate, largestEigenvalue(curvature));
  drawLosses(byId("losses"), path.map((each) => each.loss), step);
  byId("bowl-figure").hidden = !two;
  byId("starts").hidden = !two;
  if (!two) return;
  radius = radiusOf(truth, start);
  drawBowl(byId("bowl"), curvature, truth, path, step);
}

function stop() {
  clearInterval(timer);
  timer = null;
  byId("learn").textContent = "Learn";
}

function learn() {
  if (timer !== null) return stop();
  byId("learn").textContent = "Pause";
  if (Number(byId("step").value) >= STEPS) byId("step").value = 0;
  timer = setInterval(() => {
    byId("step").value = Number(byId("step").value) + 1;
    showLearning();
    if (Number(byId("step").value) >= STEPS) stop();
  }, PAUSE);
}

/** Bind the section's controls. */
export function startLearning() {
  byId("step").max = STEPS;
  grid = makeGrid(byId("target"), { point: () => {}, press: paint });
  byId("learn").addEventListener("click", learn);
  byId("lesson").addEventListener("change", ({ target }) => change({ lesson: target.value }));
  byId("step").addEventListener("input", showLearning);
  onNumber(byId("rate"), { least: 0, most: LIMITS.rate }, (rate) => change({ rate }));
  START.forEach((id, i) => onNumber(byId(id), { least: -LIMITS.start, most: LIMITS.start }, (value) =>
    change({ start: store.layer.start.map((weight, j) => (i === j ? value : weight)) })));
  byId("bowl").addEventListener("click", (event) => {
    const { left, top, width, height } = byId("bowl").getBoundingClientRect();
    const kernel = kernelAt((event.clientX - left) / width, (event.clientY - top) / height, radius);
    change({ start: kernel.map((weight) => Number(weight.toFixed(2))) });
  });
}
