/** The layer that the page shows, its products and its result; whoever listens is told of each change. */

import { problem } from "./geometry.mjs";
import { products, result } from "./products.mjs";

const listeners = [];
export const store = { layer: null, problem: "", products: [], result: [] };

export const onChange = (listener) => listeners.push(listener);

/** Change fields of the layer. */
export function change(fields) {
  store.layer = { ...store.layer, ...fields };
  store.problem = problem(store.layer);
  store.products = store.problem ? [] : products(store.layer);
  store.result = result(store.products);
  for (const listener of listeners) listener();
}
