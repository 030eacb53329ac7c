/** The settings of the layer: each control writes its part of the layer, and shows it. */

import { byId, fill } from "./dom.mjs";
import { onNumber, readField, showField } from "./fields.mjs";
import { MODES, outputPadding, PADDINGS, pads, sizeOf } from "./geometry.mjs";
import { PICTURES, resized } from "./pictures.mjs";
import { LIMITS } from "./state.mjs";
import { change, store } from "./store.mjs";

const PADDING_TEXTS = {
  valid: "valid: none", same: "same (SAME, SAME_UPPER): as many results as pixels / stride",
  same_lower: "same_lower (SAME_LOWER): the odd pixel first", full: "full: every overlap", numbers: "numbers",
};
const KINDS = {
  correlation: { flip: false, transposed: false }, convolution: { flip: true, transposed: false },
  transposed: { flip: false, transposed: true }, flipped: { flip: true, transposed: true },
};
const SIDES = [["top", 0, 0], ["bottom", 0, 1], ["left", 1, 0], ["right", 1, 1]];
const PAIRS = [["stride", "stride", 1, LIMITS.stride], ["dilation", "dilation", 1, LIMITS.dilation],
  ["output", "outputPadding", 0, LIMITS.stride - 1]];

const ANY = { least: -LIMITS.value, most: LIMITS.value };

/** Call a function with each integer that the reader writes into a field. */
export function onInteger(id, least, most, use) {
  Object.assign(byId(id), { min: least, max: most });
  onNumber(byId(id), { least, most, integer: true }, use);
}

/** The number that a click paints; null if the brush is empty or can't be read, which is said. */
export const brush = () => readField(byId("brush"), { ...ANY, empty: true });

const withItem = (list, index, item) => list.map((each, i) => (i === index ? item : each));

function bindSizes() {
  for (const [what, most] of [["image", LIMITS.image], ["kernel", LIMITS.kernel]]) {
    ["rows", "columns"].forEach((name, axis) => onInteger(`${what}-${name}`, 1, most, (value) => {
      const size = withItem(sizeOf(store.layer[what]), axis, value);
      change({ [what]: resized(store.layer[what], ...size) });
    }));
  }
}

function bindGeometry() {
  for (const [id, field, least, most] of PAIRS) {
    ["rows", "columns"].forEach((name, axis) => onInteger(`${id}-${name}`, least, most, (value) =>
      change({ [field]: withItem(store.layer[field], axis, value) })));
  }
  for (const [id, axis, end] of SIDES) {
    onInteger(id, 0, LIMITS.padding, (value) =>
      change({ padding: withItem(pads(store.layer), axis, withItem(pads(store.layer)[axis], end, value)) }));
  }
  byId("padding").addEventListener("change", ({ target }) =>
    change({ padding: target.value === "numbers" ? pads(store.layer) : target.value }));
  byId("mode").addEventListener("change", ({ target }) => change({ mode: target.value }));
  byId("kind").addEventListener("change", ({ target }) => change(KINDS[target.value]));
  onNumber(byId("value"), ANY, (value) => change({ value }));
  for (const type of ["input", "blur"]) byId("brush").addEventListener(type, brush);
}

function bindPresets(kernels) {
  fill(byId("picture"), [["", "choose …"], ...Object.keys(PICTURES).map((name) => [name, name])]);
  fill(byId("filter"), [["", "choose …"], ...Object.keys(kernels).map((name) => [name, name])]);
  byId("picture").addEventListener("change", ({ target }) => {
    if (target.value) change({ image: PICTURES[target.value]() });
  });
  byId("filter").addEventListener("change", ({ target }) => {
    if (target.value) change({ kernel: kernels[target.value] });
  });
}

/** Show the layer's settings in the controls. */
export function showControls() {
  const { layer } = store, named = typeof layer.padding === "string";
  ["rows", "columns"].forEach((name, axis) => {
    showField(byId(`image-${name}`), sizeOf(layer.image)[axis]);
    showField(byId(`kernel-${name}`), sizeOf(layer.kernel)[axis]);
    for (const [id, field] of PAIRS) showField(byId(`${id}-${name}`), layer[field][axis]);
    const same = layer.padding === "same" || layer.padding === "same_lower";
    byId(`output-${name}`).disabled = same;
    if (same && layer.transposed) byId(`output-${name}`).value = String(outputPadding(layer, axis));
  });
  for (const [id, axis, end] of SIDES) showField(byId(id), pads(layer)[axis][end]);
  byId("padding").value = named ? layer.padding : "numbers";
  byId("mode").value = layer.mode;
  showField(byId("value"), layer.value);
  byId("kind").value = Object.keys(KINDS).find((name) =>
    KINDS[name].flip === layer.flip && KINDS[name].transposed === layer.transposed);
  for (const id of ["borders-of-layer", "border-caption"]) byId(id).hidden = layer.transposed;
  byId("output-of-layer").hidden = !layer.transposed;
  byId("value").disabled = layer.mode !== "zeros";
}

/** Bind all controls; `aliases` are the other names of the borders, `kernels` those of `convlab.filters`. */
export function startControls({ aliases, kernels }) {
  fill(byId("padding"), [...PADDINGS, "numbers"].map((name) => [name, PADDING_TEXTS[name]]));
  fill(byId("mode"), MODES.map((name) => [name, `${name} (${aliases[name].join(", ")})`]));
  bindSizes();
  bindGeometry();
  bindPresets(kernels);
}
