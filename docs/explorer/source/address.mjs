/** The section and the layer in the page's address: they can be linked to, and the page opens with them. */

import { byId, tell } from "./dom.mjs";
import { decode, encode } from "./state.mjs";
import { change, onChange, store } from "./store.mjs";

const DELAY = 200;
let timer = null, section = "";

/** The address of the page with the layer as it is, and the section to open it at. */
export function addressOf(layer, at = "") {
  const state = [at, encode(layer)].filter(Boolean).join("&");
  return location.href.split("#")[0] + (state && `#${state}`);
}

const write = () => history.replaceState(history.state, "", addressOf(store.layer, section));

/** Bring a section into view, and the keyboard to it. */
function goTo(name) {
  byId(name).tabIndex = -1;
  byId(name).focus({ preventScroll: true });
  byId(name).scrollIntoView();
}

function read() {
  const found = decode(location.hash);
  section = found.section;
  // The name of a section alone keeps the layer.
  if (location.hash.includes("=") || !store.layer || !section) change(found.layer);
  tell(...found.ignored);
  if (section) goTo(section);
}

/** Read the address, and write it from now on. */
export function startAddress() {
  read();
  addEventListener("hashchange", () => {
    if (!location.hash) return;
    read();
    write();
  });
  for (const link of document.querySelectorAll("a[href^='#']")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      section = link.hash.slice(1);
      write();
      goTo(section);
    });
  }
  onChange(() => {
    clearTimeout(timer);
    timer = setTimeout(write, DELAY);
  });
}
