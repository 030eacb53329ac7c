/** The section of channels and groups: a table of which channel takes which, and the layer's weights. */

import { groupsOf, takes, weightOf } from "./channels.mjs";
import { signed } from "./colours.mjs";
import { onInteger } from "./controls.mjs";
import { byId, fill, make } from "./dom.mjs";
import { showField } from "./fields.mjs";
import { sizeOf } from "./geometry.mjs";
import { makeGrid } from "./grid.mjs";
import { LIMITS } from "./state.mjs";
import { change, store } from "./store.mjs";

let grid = null, at = [0, 0];

function layer() {
  const [inputs, outputs, groups] = store.layer.channels;
  return { inputs, outputs, groups };
}

const shape = (sizes) => `(${sizes.join(", ")})`;

function inWords([output, input]) {
  const { inputs, outputs, groups } = layer(), each = inputs / groups;
  if (!takes(layer(), output, input)) {
    return `Output channel ${output + 1} doesn't take input channel ${input + 1}: they are in different groups.`;
  }
  const weight = `weight[${output}, ${input % each}]`;
  const all = each === 1 ? "It is that one result." : `It is the sum of ${each} such results, one for each channel.`;
  return `Output channel ${output + 1} of ${outputs} takes input channel ${input + 1} by a kernel of its own, ` +
    `${weight} in PyTorch. ${all}`;
}

function showWeights() {
  const { OIHW, HWIO, depthwise, count } = weightOf(layer(), sizeOf(store.layer.kernel)), { groups } = layer();
  const multiplier = depthwise?.[3] > 1 ? `(…, depth_multiplier=${depthwise[3]})` : "";
  const rows = [["PyTorch, gluon, convlab", `groups=${groups}`, `weight ${shape(OIHW)}, OIHW`],
    ["Keras", depthwise ? `DepthwiseConv2D${multiplier}` : `Conv2D(…, groups=${groups})`,
      depthwise ? `kernel ${shape(depthwise)}` : `kernel ${shape(HWIO)}, HWIO`],
    ["Flax", `feature_group_count=${groups}`, `kernel ${shape(HWIO)}, HWIO`]];
  byId("weights").replaceChildren(...rows.map(([name, code, weight]) => make("tr", {},
    make("th", { scope: "row" }, name), make("td", {}, make("code", {}, code)), make("td", {}, weight))));
  const dense = layer().inputs * layer().outputs * sizeOf(store.layer.kernel).reduce((a, b) => a * b);
  byId("weights-text").textContent = groups === 1
    ? `The weight has ${count} numbers: every output channel takes every input channel.`
    : `The weight has ${count} numbers, 1/${groups} of the ${dense} without groups.`;
}

/** Draw the section as the layer is now. */
export function showChannels() {
  const { inputs, outputs, groups } = layer();
  at = [Math.min(at[0], outputs - 1), Math.min(at[1], inputs - 1)];
  showField(byId("inputs"), inputs);
  showField(byId("outputs"), outputs);
  const called = (n) => (n === inputs && n > 1 ? `${n}: depthwise` : String(n));
  fill(byId("groups"), groupsOf(inputs, outputs).map((n) => [n, called(n)]));
  byId("groups").value = String(groups);
  grid.show([...Array(outputs).keys()].map((o) => [...Array(inputs).keys()].map((i) => {
    const taken = takes(layer(), o, i), chosen = at[0] === o && at[1] === i;
    return { text: taken ? "×" : "", label: `output ${o + 1}, input ${i + 1}: ${taken ? "taken" : "not taken"}`,
      style: signed(taken ? 1 : 0, 2), marks: chosen ? ["chosen"] : [] };
  })));
  byId("channels-text").textContent = inWords(at);
  showWeights();
}

/** Bind the section's controls. */
export function startChannels() {
  grid = makeGrid(byId("taken"), { point: (output, input) => {
    at = [output, input];
    showChannels();
  } });
  ["inputs", "outputs"].forEach((id, i) => {
    onInteger(id, 1, LIMITS.channels, (value) => {
      const sizes = [0, 1].map((j) => (i === j ? value : store.layer.channels[j])), groups = store.layer.channels[2];
      change({ channels: [...sizes, groupsOf(...sizes).includes(groups) ? groups : 1] });
    });
  });
  byId("groups").addEventListener("change", ({ target }) =>
    change({ channels: [...store.layer.channels.slice(0, 2), Number(target.value)] }));
}
