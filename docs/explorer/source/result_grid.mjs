/** The result, to look at: each pixel shows its window, and each pixel of the image the results that it reaches. */

import { signed } from "./colours.mjs";
import { byId } from "./dom.mjs";
import { makeGrid } from "./grid.mjs";
import { look, lookAt, sourceAt } from "./look.mjs";
import { reached } from "./products.mjs";
import { brief, place, shown } from "./shown.mjs";
import { store } from "./store.mjs";

let grid = null;

/** The pixels of the result that the reader's pixel of the image takes part in. */
export function reachedInView() {
  const source = look.side === "image" ? sourceAt(store.layer, look.at) : null;
  return source ? reached(store.products, source) : [];
}

/** Draw the result as it is now. */
export function showResult() {
  const most = Math.max(...store.result.flat().map(Math.abs), 0), lit = new Set(reachedInView().map(String));
  grid.show(store.result.map((row, i) => row.map((y, j) => {
    const chosen = look.side === "result" && look.at[0] === i && look.at[1] === j;
    const marks = [...(chosen ? ["chosen"] : []), ...(lit.has(`${i},${j}`) ? ["window"] : [])];
    return { text: brief(y), label: `${place(i, j)}: ${shown(y, 8)}`, style: signed(y, most), marks };
  })));
}

/** Make the grid; it needs its element in the page. */
export function startResult() {
  grid = makeGrid(byId("result"), { point: (i, j) => lookAt("result", i, j) });
}
