/** The layer's program by framework, to be copied; a link to the layer; and the layer as a test case. */

import { addressOf } from "./address.mjs";
import { byId, copyText, make, tell } from "./dom.mjs";
import { caseOf, npz } from "./npz.mjs";
import { FRAMEWORKS, program } from "./programs.mjs";
import { store } from "./store.mjs";

const chosen = () => document.querySelector("#frameworks input:checked").value;

/** Show the program of the chosen framework. */
export function showProgram() {
  byId("program").textContent = store.problem ? "" : program(chosen(), store.layer);
  byId("copy-program").disabled = Boolean(store.problem);
  byId("save-case").disabled = Boolean(store.problem) || store.layer.transposed;
}

/** Save the layer and its result as a file for `convlab parity --case`. */
function saveCase() {
  const file = new Blob([npz(caseOf(store.layer, store.result))], { type: "application/octet-stream" });
  const link = make("a", { href: URL.createObjectURL(file), download: "case.npz" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  tell("The layer is saved as case.npz. Compare the frameworks on it with: convlab parity --case case.npz");
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
  byId("save-case").addEventListener("click", saveCase);
  byId("copy-link").addEventListener("click", () => copyText(addressOf(store.layer), "The link"));
}
