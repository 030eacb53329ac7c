/** Reads layers as JSON, and writes each one's text in the address, result and programs. */

import { readFileSync } from "node:fs";

import { problem } from "../../docs/explorer/source/geometry.mjs";
import { products, result } from "../../docs/explorer/source/products.mjs";
import { FRAMEWORKS, program } from "../../docs/explorer/source/programs.mjs";

const layers = JSON.parse(readFileSync(0, "utf8"));
const answer = (layer) => {
  const programs = Object.fromEntries(Object.keys(FRAMEWORKS).map((name) => [name, program(name, layer)]));
  return problem(layer) ? { problem: problem(layer) } : { result: result(products(layer)), programs };
};
console.log(JSON.stringify(layers.map(answer)));
