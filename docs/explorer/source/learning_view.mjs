/** Learning a kernel: the chapter's loop, its loss, and the learning rate beyond which it diverges. */

import { drawBowl, drawLosses, kernelAt } from "./chart.mjs";
import { signed } from "./colours.mjs";
import { best, descend, equations, hessian, largestEigenvalue } from "./descent.mjs";
import { byId, make } from "./dom.mjs";
import { problem, sizeOf } from "./geometry.mjs";
import { makeGrid } from "./grid.mjs";
import { products, result } from "./products.mjs";
import { place, shown } from "./shown.mjs";
import { chapterLayer, number } from "./state.mjs";
import { store } from "./store.mjs";

const STEPS = 40, PAUSE = 250;
const NEXT = new Map([[0, 1], [1, -1], [-1, 0]]);
let timer = null, start = [-1, 1.5], grid = null, painted = [[]];

const paints = () => byId("lesson").value === "painted";

/** The layer that is learned: the chapter's, or the reader's image and kernel, without padding and stride. */
function task() {
  if (byId("lesson").value === "chapter") return chapterLayer();
  const own = { ...chapterLayer(), image: store.layer.image, kernel: store.layer.kernel };
  return problem(own) ? null : own;
}

/** The target that the kernel is to give: the true kernel's result, or the reader's, of that size. */
function targetOf(layer) {
  const reached = result(products(layer));
  if (!paints()) return reached;
  if (String(sizeOf(painted)) !== String(sizeOf(reached))) painted = reached.map((row) => row.map((y) => Math.sign(y)));
  return painted;
}

function paint(i, j, key) {
  if (!/^(Enter|Delete|\d)$/.test(key)) return false;
  const before = painted[i][j], value = /\d/.test(key) ? Number(key) : key === "Delete" ? 0 : NEXT.get(before) ?? 0;
  painted = painted.map((row, r) => row.map((y, c) => (r === i && c === j ? value : y)));
  showLearning();
  return true;
}

function showTarget(target) {
  byId("target-figure").hidden = !paints();
  if (!paints()) return;
  const most = Math.max(...target.flat().map(Math.abs), 1);
  grid.show(target.map((row, i) => row.map((y, j) =>
    ({ text: shown(y, 3), label: `${place(i, j)}: ${shown(y)}`, style: signed(y, most), marks: [] }))));
}

function showKernelAt(kernel, [, columns], truth) {
  const most = Math.max(...truth.map(Math.abs), 1e-9);
  byId("learned").style.setProperty("--columns", columns);
  byId("learned").replaceChildren(...kernel.map((weight) => {
    const cell = make("span", {}, shown(weight, 3));
    Object.assign(cell.style, signed(weight, most));
    return cell;
  }));
}

function rateInWords(rate, eigenvalue) {
  if (eigenvalue === 0) return "The image is zero everywhere its windows are: there is nothing to learn from.";
  const largest = 2 / eigenvalue;
  const head = `The largest stable rate is 2 / λ = 2 / ${shown(eigenvalue)} = ${shown(largest)}, ` +
    "where λ is the largest eigenvalue of the loss's Hessian.";
  return rate < largest ? `${head} At ${shown(rate)}, gradient descent converges.`
    : `${head} At ${shown(rate)}, each step overshoots further: gradient descent diverges.`;
}

/** Draw the section as its controls are now. */
export function showLearning() {
  const layer = task();
  byId("lesson-problem").hidden = layer !== null;
  byId("lesson-result").hidden = layer === null;
  if (layer === null) return;
  const size = sizeOf(layer.kernel), target = targetOf(layer), squares = equations(layer.image, target, size);
  const curvature = hessian(squares), truth = paints() ? best(squares) : layer.kernel.flat(), two = truth.length === 2;
  showTarget(target);
  const rate = number(byId("rate").value, 0, 100) ?? 0.03;
  const path = descend(squares, two ? start : truth.map(() => 0), rate, STEPS);
  const step = Math.min(Number(byId("step").value), path.length - 1), { kernel, loss } = path[step];
  showKernelAt(kernel, size, truth);
  const wanted = truth.map((x) => shown(x)).join(", "), which = paints() ? "kernel of the least loss" : "true kernel";
  byId("step-text").textContent = `Step ${step}: the loss is ${shown(loss)}. The ${which} is ${wanted}.`;
  byId("rate-text").textContent = rateInWords(rate, largestEigenvalue(curvature));
  drawLosses(byId("losses"), path.map((each) => each.loss), step);
  byId("bowl-figure").hidden = !two;
  byId("starts").hidden = !two;
  if (two) drawBowl(byId("bowl"), curvature, truth, path, step);
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

function startAt(kernel) {
  start = kernel;
  ["first", "second"].forEach((name, i) => (byId(`start-${name}`).value = String(Number(kernel[i].toFixed(2)))));
  showLearning();
}

/** Bind the section's controls. */
export function startLearning() {
  byId("step").max = STEPS;
  grid = makeGrid(byId("target"), { point: () => {}, press: paint });
  byId("learn").addEventListener("click", learn);
  byId("lesson").addEventListener("change", showLearning);
  byId("step").addEventListener("input", showLearning);
  byId("rate").addEventListener("input", ({ target }) => {
    target.setAttribute("aria-invalid", String(number(target.value, 0, 100) === null));
    showLearning();
  });
  ["first", "second"].forEach((name, i) => byId(`start-${name}`).addEventListener("input", ({ target }) => {
    const value = number(target.value, -100, 100);
    target.setAttribute("aria-invalid", String(value === null));
    if (value === null) return;
    start = start.map((weight, j) => (i === j ? value : weight));
    showLearning();
  }));
  byId("bowl").addEventListener("click", (event) => {
    const { left, top, width, height } = byId("bowl").getBoundingClientRect();
    startAt(kernelAt((event.clientX - left) / width, (event.clientY - top) / height));
  });
}
