/** Fields of numbers: what can't be read is said, stays in its field, marked, and isn't used. */

import { tell } from "./dom.mjs";
import { typed } from "./state.mjs";

/** The number that each field stands for. */
const inForce = new WeakMap();

const isRefused = (field) => field.ariaInvalid === "true";

/** Write a field, unless the reader is writing there, or has left there what can't be read. */
export function showField(field, value, text = String(value)) {
  const changed = inForce.get(field) !== value;
  inForce.set(field, value);
  if (document.activeElement === field || (isRefused(field) && !changed)) return;
  field.value = text;
  field.removeAttribute("aria-invalid");
}

/** The number in a field, or null; what can't be read is marked and said. Where `empty` is true, nothing is fine. */
export function readField(field, { least, most, integer = false, empty = false }) {
  const value = typed(field.value, least, most), read = value !== null && (!integer || Number.isInteger(value));
  const good = read || (empty && field.value.trim() === "" && !field.validity.badInput);
  field.setAttribute("aria-invalid", String(!good));
  const name = field.ariaLabel ?? field.labels[0].textContent.trim();
  tell(good ? "" : `${name}: ${integer ? "an integer" : "a number"} from ${least} to ${most}, please.`);
  return read ? value : null;
}

/** Call a function with each number that the reader writes into a field. */
export function onNumber(field, limits, use) {
  field.addEventListener("input", () => {
    const value = readField(field, limits);
    if (value === null) return;
    inForce.set(field, value);
    use(value);
  });
  field.addEventListener("blur", () => {
    // A click has taken the sentence away.
    if (isRefused(field)) readField(field, limits);
    else if (inForce.has(field)) showField(field, inForce.get(field));
  });
}
