/** The loss curve, and the bowl that the loss is for a kernel of two weights. */

import { draw } from "./dom.mjs";
import { shown } from "./shown.mjs";

const WIDTH = 420, HEIGHT = 260, LEFT = 58, BOTTOM = 30, TOP = 12;
const LEAST = 1e-12;

const points = (pairs) => pairs.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");

/** Draw the losses on a logarithmic scale, with a dot at the step. */
export function drawLosses(svg, losses, step) {
  const logs = losses.map((loss) => Math.log10(Math.max(loss, LEAST)));
  const low = Math.floor(Math.min(...logs)), high = Math.max(Math.ceil(Math.max(...logs)), low + 1);
  const x = (i) => LEFT + (i / Math.max(losses.length - 1, 1)) * (WIDTH - LEFT - 10);
  const y = (log) => TOP + ((high - log) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const ticks = [low, (low + high) / 2, high].map((log) => [
    draw("line", { class: "rule", x1: LEFT, x2: WIDTH - 10, y1: y(log), y2: y(log) }),
    draw("text", { x: LEFT - 6, y: y(log) + 4, "text-anchor": "end" }, shown(10 ** log, 2, 1e6)),
  ]);
  const line = points(logs.map((log, i) => [x(i), y(log)]));
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.replaceChildren(...ticks.flat(), draw("polyline", { class: "curve", points: line }),
    draw("circle", { class: "dot", cx: x(step), cy: y(logs[step]), r: 5 }),
    draw("text", { x: LEFT, y: HEIGHT - 8 }, "step 0"),
    draw("text", { x: WIDTH - 10, y: HEIGHT - 8, "text-anchor": "end" }, `step ${losses.length - 1}`));
}

const RADIUS = 2.5;
const SIDE = 300;

/** The largest weight in the bowl's picture, so that the minimum and the start are in it: 2.5, 5, 10, 20, … */
export function radiusOf(minimum, start) {
  const most = Math.max(...minimum.map((weight) => 1.2 * Math.abs(weight)), ...start.map(Math.abs), RADIUS);
  return RADIUS * 2 ** Math.ceil(Math.log2(most / RADIUS));
}

/** The kernel at a point of the picture, given as shares of its width and height. */
export const kernelAt = (right, down, radius) => [(right * 2 - 1) * radius, (1 - down * 2) * radius];

/** The eigenvalues of a symmetric 2x2 matrix, the larger first, and the angle of the first's vector. */
function axes([[a, b], [, d]]) {
  const middle = (a + d) / 2, spread = Math.hypot((a - d) / 2, b);
  return { large: middle + spread, small: Math.max(middle - spread, 1e-9), angle: Math.atan2(2 * b, a - d) / 2 };
}

/** Draw the contours of the loss, which are ellipses around the minimum, and the path of descent up to a step. */
export function drawBowl(svg, hessian, minimum, path, step) {
  const radius = radiusOf(minimum, path[0].kernel), range = `: ${shown(-radius)} to ${shown(radius)}`;
  // The first weight to the right, the second upwards.
  const spot = ([a, b]) => [SIDE / 2 + (a / radius) * (SIDE / 2), SIDE / 2 - (b / radius) * (SIDE / 2)];
  const { large, small, angle } = axes(hessian), [x, y] = spot(minimum), scale = SIDE / 2 / RADIUS;
  const turn = `rotate(${(-angle * 180) / Math.PI} ${x} ${y})`;
  const rings = [0.15, 0.4, 0.8, 1.3, 1.9, 2.6, 3.4].map((ring) => draw("ellipse", {
    class: "ring", cx: x, cy: y, rx: ring * scale, ry: Math.min(ring * Math.sqrt(large / small), 1e3) * scale,
    transform: turn,
  }));
  const far = (value) => Math.min(Math.max(value, -20 * SIDE), 20 * SIDE);
  const walked = path.slice(0, step + 1).map(({ kernel }) => spot(kernel).map(far));
  const dots = walked.map(([cx, cy], i) => draw("circle", { class: "dot", cx, cy, r: i === step ? 5 : 2.5 }));
  svg.setAttribute("viewBox", `0 0 ${SIDE} ${SIDE}`);
  svg.replaceChildren(...rings, draw("path", { class: "rule", d: `M0 ${SIDE / 2}H${SIDE}M${SIDE / 2} 0V${SIDE}` }),
    draw("polyline", { class: "curve", points: points(walked) }), ...dots,
    draw("text", { x: SIDE / 2, y: SIDE - 8, "text-anchor": "middle" }, `first weight${range}`),
    draw("text", { x: -SIDE / 2, y: 16, "text-anchor": "middle", transform: "rotate(-90)" }, `second weight${range}`));
}
