/** What the reader looks at: a pixel of the result, or a place of the padded image. */

import { borderIndex, outputSize, pads, sizeOf } from "./geometry.mjs";
import { store } from "./store.mjs";

const listeners = [];
export const look = { side: "result", at: [0, 0] };

export const onLook = (listener) => listeners.push(listener);

/** Look at a pixel of the result ("result"), or at a place counted from the image's first pixel ("image"). */
export function lookAt(side, row, column) {
  Object.assign(look, { side, at: [row, column] });
  for (const listener of listeners) listener();
}

/** Rows and columns before the first pixel in the image as it is drawn. */
export const drawnPads = (layer) => (layer.transposed ? [[0, 0], [0, 0]] : pads(layer));

/** The pixel whose number stands at a place of the padded image; null for a padded number. */
export function sourceAt(layer, [row, column]) {
  const [height, width] = sizeOf(layer.image);
  const source = [borderIndex(row, height, layer.mode), borderIndex(column, width, layer.mode)];
  return source.includes(null) ? null : source;
}

/** The products of the pixel of the result that the reader looks at. */
export const termsInView = () => (look.side === "result" ? store.products[look.at[0]]?.[look.at[1]] ?? [] : []);

/** Bring the look back into a layer that has become smaller. */
export function keepInside() {
  const { layer } = store, size = sizeOf(layer.image), before = drawnPads(layer);
  const inside = look.side === "result"
    ? look.at.every((at, axis) => at < outputSize(layer, axis))
    : look.at.every((at, axis) => at >= -before[axis][0] && at < size[axis] + before[axis][1]);
  if (!inside) Object.assign(look, { side: "result", at: [0, 0] });
}
