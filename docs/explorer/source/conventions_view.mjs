/** One layer in four frameworks: their names and code for it, and the pixels at which their conventions differ. */

import { signed } from "./colours.mjs";
import { compareConventions, converted, layersByFramework } from "./conventions.mjs";
import { byId, make } from "./dom.mjs";
import { makeGrid } from "./grid.mjs";
import { brief, place, shown } from "./shown.mjs";
import { change, store } from "./store.mjs";

const box = (rows, columns) => [...Array(rows)].map(() => Array(columns).fill(1));
// Layers on which the conventions differ, on images of any size that the page has, or of even size.
const EXAMPLES = {
  "example-stride": { kernel: box(3, 3), stride: [2, 2], dilation: [1, 1], transposed: false },
  "example-even": { kernel: box(2, 2), stride: [1, 1], dilation: [1, 1], transposed: false },
  "example-odd": { kernel: box(3, 3), stride: [1, 1], dilation: [1, 1], transposed: false },
};
const grids = {};

const AXES = [["row", "above", "below", "further down"], ["column", "left", "right", "further to the right"]];

function axisInWords([sides, same], axis) {
  const [name, before, after, direction] = AXES[axis], shift = sides[axis][0] - same[axis][0];
  const [first, last] = sides[axis], [firstOfSame, lastOfSame] = same[axis];
  const padding = `Along the ${name}s, PyTorch and gluon pad ${first} ${before} and ${last} ${after}, ` +
    `SAME ${firstOfSame} and ${lastOfSame}`;
  const lies = `each of its windows lies ${shift} ${name}${shift > 1 ? "s" : ""} ${direction}`;
  return shift > 0 ? `${padding}: ${lies}.` : `${padding}.`;
}

function verdict({ different, count, pads }) {
  if (String(pads[0]) === String(pads[1])) return "Here both conventions pad alike, and the results agree.";
  const head = different ? `${different} of ${count} pixels differ. `
    : "The paddings differ; on this image the results don't. ";
  return head + [0, 1].filter((axis) => String(pads[0][axis]) !== String(pads[1][axis]))
    .map((axis) => axisInWords(pads, axis)).join(" ");
}

function showResultOf(name, matrix, differs) {
  const most = Math.max(...matrix.flat().map(Math.abs), 0);
  grids[name].show(matrix.map((row, i) => row.map((y, j) => ({
    text: brief(y), label: `${place(i, j)}: ${shown(y, 8)}${differs(i, j) ? ", differs" : ""}`, style: signed(y, most),
    marks: differs(i, j) ? ["differs"] : [],
  }))));
}

/** A row of a table: its name, and cells with the labels that they have on a narrow screen. */
const line = (name, cells) => make("tr", {}, make("th", { scope: "row" }, name),
  ...Object.entries(cells).map(([label, cell]) => make("td", { "data-label": label }, cell)));

/** Draw the section for the layer as it is now. */
export function showConventions() {
  const found = compareConventions(store.layer), differ = String(found.pads[0]) !== String(found.pads[1]);
  const layers = Object.entries(layersByFramework(store.layer));
  byId("layers").replaceChildren(...layers.map(([name, [title, code, shapes]]) =>
    line(name, { "its name": title, "its code": make("code", {}, code), "its shapes": shapes })));
  byId("verdict").textContent = verdict(found);
  byId("verdict").className = differ ? "verdict-line bad" : "verdict-line good";
  showResultOf("sides", found.sides, found.differs);
  showResultOf("same", found.same, found.differs);
  byId("conversion").hidden = !differ;
  byId("converted").replaceChildren(...Object.entries(converted(store.layer)).map(([name, code]) =>
    line(name, { "its code": make("code", {}, code) })));
}

/** Make the section's grids, and bind its examples. */
export function startConventions() {
  for (const name of ["sides", "same"]) grids[name] = makeGrid(byId(`result-${name}`), { point: () => {} });
  for (const [id, fields] of Object.entries(EXAMPLES)) byId(id).addEventListener("click", () => change(fields));
}
