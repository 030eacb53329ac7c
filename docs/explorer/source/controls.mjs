/** The settings of the layer: each control writes its part of the layer, and shows it. */

import { byId, fill, tell } from "./dom.mjs";
import { MODES, outputPadding, PADDINGS, pads, sizeOf } from "./geometry.mjs";
import { PICTURES, resized } from "./pictures.mjs";
import { LIMITS, number } from "./state.mjs";
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

/** Call a function with an integer from a field; what is no such integer is said, and not used. */
function onInteger(id, least, most, use) {
  const field = byId(id);
  Object.assign(field, { min: least, max: most });
  field.addEventListener("input", () => {
    const value = number(field.value, least, most), good = value !== null && Number.isInteger(value);
    field.setAttribute("aria-invalid", String(!good));
    tell(good ? "" : `${field.labels[0].textContent.trim()}: an integer from ${least} to ${most}, please.`);
    if (good) use(value);
  });
}

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
  byId("value").addEventListener("input", ({ target }) => {
    const value = number(target.value);
    target.setAttribute("aria-invalid", String(value === null));
    if (value !== null) change({ value });
  });
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

/** Write a field, unless the reader is writing there. */
function set(id, value) {
  if (document.activeElement === byId(id)) return;
  byId(id).value = String(value);
  byId(id).removeAttribute("aria-invalid");
}

/** Show the layer's settings in the controls. */
export function showControls() {
  const { layer } = store, named = typeof layer.padding === "string";
  ["rows", "columns"].forEach((name, axis) => {
    set(`image-${name}`, sizeOf(layer.image)[axis]);
    set(`kernel-${name}`, sizeOf(layer.kernel)[axis]);
    for (const [id, field] of PAIRS) set(`${id}-${name}`, layer[field][axis]);
    const same = layer.padding === "same" || layer.padding === "same_lower";
    byId(`output-${name}`).disabled = same;
    if (same && layer.transposed) byId(`output-${name}`).value = String(outputPadding(layer, axis));
  });
  for (const [id, axis, end] of SIDES) set(id, pads(layer)[axis][end]);
  byId("padding").value = named ? layer.padding : "numbers";
  byId("mode").value = layer.mode;
  set("value", layer.value);
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
