/** The image with its border, to paint and to look at. */

import { grey } from "./colours.mjs";
import { brush } from "./controls.mjs";
import { byId } from "./dom.mjs";
import { sizeOf } from "./geometry.mjs";
import { makeGrid } from "./grid.mjs";
import { drawnPads, look, lookAt, sourceAt, termsInView } from "./look.mjs";
import { brief, place, shown } from "./shown.mjs";
import { change, store } from "./store.mjs";

let grid = null, paint = 0;

const first = () => drawnPads(store.layer).map(([before]) => before);
const isInside = ([row, column]) => store.layer.image[row]?.[column] !== undefined;

function setPixel([row, column], value) {
  const image = store.layer.image.map((line) => [...line]);
  image[row][column] = value;
  change({ image });
}

/** Paint with a click, Enter or Space, which also erases; go on while the mouse is dragged; or type a digit. Without
 *  a number for a brush, a click only looks. */
function press(i, j, key) {
  const at = [i - first()[0], j - first()[1]];
  if (!isInside(at) || !/^(Enter|Drag|Delete|\d)$/.test(key)) return false;
  if (/^(Delete|\d)$/.test(key)) {
    setPixel(at, Number(key) || 0);
    return true;
  }
  const value = brush();
  if (value === null) return false;
  if (key === "Enter") paint = store.layer.image[at[0]][at[1]] === value ? 0 : value;
  setPixel(at, paint);
  return true;
}

function marksOf(at, source, places) {
  const marks = isInside(at) ? [] : ["border"];
  if (places.has(String(at))) marks.push("window");
  const chosen = look.side === "image" && sourceAt(store.layer, look.at);
  if (look.side === "image" && (String(look.at) === String(at) || (chosen && String(source) === String(chosen)))) {
    marks.push("chosen");
  }
  return marks;
}

function cell(at, places, least, most) {
  const { layer } = store, source = sourceAt(layer, at);
  const x = source ? layer.image[source[0]][source[1]] : layer.value;
  const name = isInside(at) ? place(...at) : source ? `border, from ${place(...source)}` : "border";
  return {
    text: brief(x), label: `${name}: ${shown(x, 8)}`, style: grey(x, least, most, !isInside(at)),
    marks: marksOf(at, source, places),
  };
}

/** Draw the image as it is now. */
export function showImage() {
  const { layer } = store, [height, width] = sizeOf(layer.image), [[top, bottom], [left, right]] = drawnPads(layer);
  const numbers = layer.image.flat(), least = Math.min(0, ...numbers), most = Math.max(1, ...numbers);
  const places = new Set(termsInView().map(({ at }) => String(at)));
  const line = (count, before) => [...Array(count).keys()].map((i) => i - before);
  grid.show(line(top + height + bottom, top).map((r) =>
    line(left + width + right, left).map((c) => cell([r, c], places, least, most))));
}

/** Make the grid; it needs its element in the page. */
export function startImage() {
  grid = makeGrid(byId("image"), { point: (i, j) => lookAt("image", i - first()[0], j - first()[1]), press });
}
