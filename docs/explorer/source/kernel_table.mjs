/** The kernel: a field for each weight. */

import { signed } from "./colours.mjs";
import { byId, make } from "./dom.mjs";
import { onNumber, showField } from "./fields.mjs";
import { sizeOf } from "./geometry.mjs";
import { termsInView } from "./look.mjs";
import { brief, place } from "./shown.mjs";
import { LIMITS } from "./state.mjs";
import { change, store } from "./store.mjs";

let fields = [];

function setWeight(row, column, weight) {
  const kernel = store.layer.kernel.map((line) => [...line]);
  kernel[row][column] = weight;
  change({ kernel });
}

function build(rows, columns) {
  const holder = byId("kernel");
  holder.style.setProperty("--columns", columns);
  fields = [...Array(rows).keys()].map((i) => [...Array(columns).keys()].map((j) => {
    const label = `weight at ${place(i, j)}`;
    const field = make("input", { "aria-label": label, inputmode: "decimal", autocomplete: "off" });
    onNumber(field, { least: -LIMITS.value, most: LIMITS.value }, (weight) => setWeight(i, j, weight));
    field.addEventListener("focus", () => {
      if (field.ariaInvalid !== "true") field.value = String(store.layer.kernel[i][j]);
    });
    field.addEventListener("blur", showKernel);
    return field;
  }));
  holder.replaceChildren(...fields.flat());
}

/** Draw the kernel as it is now, in two digits; a field in which the reader writes keeps its text. */
export function showKernel() {
  const { kernel } = store.layer, [rows, columns] = sizeOf(kernel), most = Math.max(...kernel.flat().map(Math.abs));
  if (fields.length !== rows || fields[0].length !== columns) build(rows, columns);
  const used = new Set(termsInView().map(({ weight }) => String(weight)));
  kernel.forEach((line, i) => line.forEach((weight, j) => {
    const field = fields[i][j];
    showField(field, weight, brief(weight, 2));
    field.title = String(weight);
    Object.assign(field.style, signed(weight, most));
    field.style.setProperty("--letters", Math.max(field.value.length, 4));
    field.classList.toggle("window", used.has(`${i},${j}`));
  }));
}
