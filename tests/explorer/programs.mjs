/** Reads layers as JSON, and writes each one's result, programs, test case and both conventions. */

import { readFileSync } from "node:fs";

import { problem } from "../../docs/explorer/source/geometry.mjs";
import { bothConventions, compareConventions, converted } from "../../docs/explorer/source/conventions.mjs";
import { caseOf, npz } from "../../docs/explorer/source/npz.mjs";
import { products, result } from "../../docs/explorer/source/products.mjs";
import { FRAMEWORKS, program } from "../../docs/explorer/source/programs.mjs";

const layers = JSON.parse(readFileSync(0, "utf8"));
function conventions(layer) {
  const { sides, same } = compareConventions(layer), both = bothConventions(layer);
  return problem(both.sides) || problem(both.same) ? null : { sides, same, converted: converted(layer) };
}

function answer(layer) {
  if (problem(layer)) return { problem: problem(layer) };
  const Y = result(products(layer)), names = Object.keys(FRAMEWORKS);
  const programs = Object.fromEntries(names.map((name) => [name, program(name, layer)]));
  const archive = layer.transposed ? null : Buffer.from(npz(caseOf(layer, Y))).toString("base64");
  return { layer, result: Y, programs, archive, conventions: conventions(layer) };
}

console.log(JSON.stringify(layers.map(answer)));
