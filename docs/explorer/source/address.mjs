/** The layer in the page's address: it can be linked to, and the page opens with it. */

import { tell } from "./dom.mjs";
import { decode, encode } from "./state.mjs";
import { change, onChange, store } from "./store.mjs";

const DELAY = 200;
let timer = null;

function read() {
  const { layer, ignored } = decode(location.hash.includes("=") ? location.hash : "");
  change(layer);
  tell(...ignored);
}

/** The address of the page with the layer as it is. */
export const addressOf = (layer) => `${location.href.split("#")[0]}#${encode(layer)}`;

/** Read the layer from the address, and write it there from now on. */
export function startAddress() {
  read();
  addEventListener("hashchange", () => {
    if (location.hash.includes("=")) read();
  });
  onChange(() => {
    clearTimeout(timer);
    timer = setTimeout(() => history.replaceState(null, "", addressOf(store.layer)), DELAY);
  });
}
