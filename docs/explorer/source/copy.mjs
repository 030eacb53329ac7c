/** The layer's program by framework, to be copied, and a link to the layer. */

import { addressOf } from "./address.mjs";
import { byId, copyText, make } from "./dom.mjs";
import { FRAMEWORKS, program } from "./programs.mjs";
import { store } from "./store.mjs";

const chosen = () => document.querySelector("#frameworks input:checked").value;

/** Show the program of the chosen framework. */
export function showProgram() {
  byId("program").textContent = store.problem ? "" : program(chosen(), store.layer);
  byId("copy-program").disabled = Boolean(store.problem);
}

/** Make a choice of the frameworks, and bind the buttons. */
export function startCopy() {
  byId("frameworks").append(...Object.keys(FRAMEWORKS).map((name, i) => {
    const field = make("input", { type: "radio", name: "framework", value: name });
    field.checked = i === 0;
    field.addEventListener("change", showProgram);
    return make("label", { class: "choice" }, field, name);
  }));
  byId("copy-program").addEventListener("click", () => copyText(byId("program").textContent, "The program"));
  byId("copy-link").addEventListener("click", () => copyText(addressOf(store.layer), "The link"));
}
