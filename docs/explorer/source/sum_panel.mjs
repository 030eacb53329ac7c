/** The products of the pixel that the reader looks at, and their sum in words and numbers. */

import { signed } from "./colours.mjs";
import { byId, make } from "./dom.mjs";
import { sizeOf } from "./geometry.mjs";
import { look, sourceAt, termsInView } from "./look.mjs";
import { reachedInView } from "./result_grid.mjs";
import { equals, factor, place, shown } from "./shown.mjs";
import { sum } from "./products.mjs";
import { store } from "./store.mjs";

const written = ({ x, k }, digits) => `${factor(x, digits)} × ${factor(k, digits)}`;

function productCells(terms, digits) {
  const most = Math.max(...terms.map(({ x, k }) => Math.abs(x * k)), 0);
  return terms.map((term) => {
    const y = term.x * term.k;
    const cell = make("li", {}, make("span", {}, written(term, digits)),
      make("b", {}, `${equals([term.x, term.k, y], digits)} ${shown(y, digits)}`));
    Object.assign(cell.style, signed(y, most));
    return cell;
  });
}

function showSum() {
  const terms = termsInView(), columns = store.layer.transposed ? 0 : sizeOf(store.layer.kernel)[1];
  const total = sum(terms), digits = Number.isInteger(total) ? 15 : 8;
  const full = terms.every(({ x, k }) => equals([x, k], 8) === "=");
  const sign = full ? equals([total], digits) : "≈";
  byId("about").textContent = `Result at ${place(...look.at)}`;
  byId("products").style.setProperty("--columns", columns || "auto-fill");
  byId("products").classList.toggle("wide", columns > 3);
  byId("products").replaceChildren(...productCells(terms, columns > 3 ? 3 : 6));
  byId("equation").textContent = terms.length
    ? `${terms.map((term) => written(term, 8)).join(" + ")} ${sign} ${shown(total, digits)}`
    : "No weight meets a pixel here: the sum is 0.";
}

function showReach() {
  const source = sourceAt(store.layer, look.at), outputs = reachedInView();
  byId("about").textContent = source ? `Image at ${place(...source)}` : "A padded number";
  byId("products").replaceChildren();
  const listed = outputs.slice(0, 6).map(([i, j]) => place(i, j)).join("; ");
  const rest = outputs.length > 6 ? "; and others" : "";
  byId("equation").textContent = !source
    ? `The border is filled with ${shown(store.layer.value, 8)}, which is no pixel of the image.`
    : outputs.length
      ? `This pixel takes part in ${outputs.length} of ${store.result.flat().length} results: ${listed}${rest}.`
      : "This pixel takes part in no result: the stride steps over it, or the windows end before it.";
}

/** Say what the reader looks at. */
export function showPanel() {
  if (look.side === "result" && !store.problem) showSum();
  else if (!store.problem) showReach();
  byId("panel").hidden = Boolean(store.problem);
}
