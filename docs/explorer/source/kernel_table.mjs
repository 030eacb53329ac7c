/** The kernel: a field for each weight. */

import { signed } from "./colours.mjs";
import { byId, make } from "./dom.mjs";
import { sizeOf } from "./geometry.mjs";
import { termsInView } from "./look.mjs";
import { place, shown } from "./shown.mjs";
import { number } from "./state.mjs";
import { change, store } from "./store.mjs";

let fields = [];

function setWeight(row, column, field) {
  const weight = number(field.value.trim().replaceAll("−", "-"));
  field.setAttribute("aria-invalid", String(weight === null));
  if (weight === null) return;
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
    field.addEventListener("input", () => setWeight(i, j, field));
    field.addEventListener("focus", () => (field.value = String(store.layer.kernel[i][j])));
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
    if (document.activeElement !== field) {
      field.value = shown(weight, 2);
      field.title = String(weight);
      field.removeAttribute("aria-invalid");
    }
    Object.assign(field.style, signed(weight, most));
    field.style.setProperty("--letters", Math.max(field.value.length, 4));
    field.classList.toggle("window", used.has(`${i},${j}`));
  }));
}
