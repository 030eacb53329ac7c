/** Why bits differ: one sum of products computed in several ways, and the digits and bits at which they part. */

import { onInteger } from "./controls.mjs";
import { byId, make } from "./dom.mjs";
import { showField } from "./fields.mjs";
import {
  bfloat16, bits, float16, float32, halving, numbers, ordered, orderedFused, reproducible, steps, totals,
} from "./rounding.mjs";
import { shown } from "./shown.mjs";

const WAYS = {
  "float32, first to last": (pairs) => ordered(pairs, float32),
  "float32, last to first": (pairs) => ordered([...pairs].reverse(), float32),
  "float32, in a halving tree": halving,
  "float32, fused multiply-adds": orderedFused,
  "float16, first to last": (pairs) => ordered(pairs, float16),
  "bfloat16, first to last": (pairs) => ordered(pairs, bfloat16),
};

let seed = 4;

function setSeed(value) {
  seed = value;
  showBits();
}

/** The pairs of a 3x3 window and a kernel, from a seed; whole numbers if that is wanted. */
function pairsOf(seed, whole) {
  const values = numbers(seed, 18).map((x) => (whole ? Math.round(x * 9) : x));
  return values.slice(0, 9).map((x, i) => [x, values[9 + i]]);
}

/** A text with the characters marked at which it differs from another. */
function marked(text, other) {
  const pieces = [...text].map((letter, i) => (letter === other[i] ? letter : make("mark", {}, letter)));
  return make("span", { class: "digits" }, ...pieces);
}

const digits = (x) => x.toPrecision(9).replaceAll("-", "−");

/** The sign, the exponent and the fraction, apart. */
const grouped = (x) => bits(x).replace(/^(.)(.{8})/, "$1 $2 ");

function row(name, y, reference) {
  const away = steps(y, reference), same = Object.is(y + 0, reference + 0);
  return make("tr", {}, make("th", { scope: "row" }, name),
    make("td", { "data-label": "sum" }, marked(digits(y), digits(reference))),
    make("td", { "data-label": "bits" }, marked(grouped(y), grouped(reference))),
    make("td", { "data-label": "from the last row" }, same ? "the same bits" : `float32 numbers away: ${away}`));
}

/** The totals from the first product on beside those from the last one on, which meet in the same sum or don't. */
function totalsOf(pairs) {
  const [forward, backward] = [totals(pairs), totals([...pairs].reverse())];
  return forward.map((total, i) => make("li", {}, make("span", {}, digits(total)), make("span", {}, i < pairs.length - 1
    ? digits(backward[i]) : marked(digits(backward[i]), digits(total)))));
}

/** Draw the section as its controls are now. */
export function showBits() {
  const pairs = pairsOf(seed, byId("whole").checked);
  const reference = reproducible(pairs);
  showField(byId("seed"), seed);
  const sums = Object.values(WAYS).map((way) => way(pairs));
  byId("pairs").textContent = pairs.map(([a, b]) => `${shown(a, 3)} × ${shown(b, 3)}`).join("  +  ");
  byId("sums").replaceChildren(...Object.keys(WAYS).map((name, i) => row(name, sums[i], reference)),
    row("reproducible=True, on every framework", reference, reference));
  byId("totals").replaceChildren(...totalsOf(pairs));
  const different = new Set(sums.slice(0, 4).map(bits)).size;
  byId("bits-text").textContent = different === 1
    ? "All float32 sums have the same bits here: where no sum is rounded, or by chance, the order doesn't matter."
    : `The four float32 sums have ${different} different values. None is wrong: each is within the rounding bound.`;
}

/** Bind the section's controls. */
export function startBits() {
  onInteger("seed", 0, 1e6, setSeed);
  byId("whole").addEventListener("change", showBits);
  byId("other").addEventListener("click", () => setSeed((seed + 1) % 1000));
}
