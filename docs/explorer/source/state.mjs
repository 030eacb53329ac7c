/** A layer as the text behind the # of the page's address, and back. What is wrong in it is left out, never run. */

import { MODES, PADDINGS } from "./geometry.mjs";

export const LIMITS = { image: 24, kernel: 7, stride: 4, dilation: 3, padding: 24, channels: 12, value: 1e6,
  rate: 100, start: 100 };
const NUMBER = /^-?\d{1,9}(\.\d{1,12})?(e-?\d{1,2})?$/;
const LONGEST = 20000;
const LESSONS = ["chapter", "own", "painted"];
/** The sections of the page: an address may begin with the name of one. */
const SECTIONS = ["layer", "channels", "conventions", "borders", "learning", "bits"];

/** The layer that the page opens with: the chapter's image and kernel. */
export function chapterLayer() {
  return {
    image: [...Array(6)].map(() => [1, 1, 0, 0, 0, 0, 1, 1]), kernel: [[1, -1]], stride: [1, 1], padding: "valid",
    mode: "zeros", value: 0, dilation: [1, 1], flip: false, transposed: false, outputPadding: [0, 0],
    channels: [4, 6, 2], lesson: "chapter", rate: 0.03, start: [-1, 1.5], target: null,
  };
}

/** A number from text, or null. */
export function number(text, least = -LIMITS.value, most = LIMITS.value) {
  const value = NUMBER.test(text) ? Number(text) : NaN;
  return value >= least && value <= most ? value : null;
}

const TYPED = /^[+-]?(\d{1,9}(\.\d{0,12})?|\.\d{1,12})(e[+-]?\d{1,2})?$/i;

/** A number as people type it, such as .5, 5., +2 or −1, or null. */
export function typed(text, least = -LIMITS.value, most = LIMITS.value) {
  const plain = text.trim().replaceAll("−", "-"), value = TYPED.test(plain) ? Number(plain) : NaN;
  return value >= least && value <= most ? value : null;
}

/** Integers from text, separated by commas, or null. */
function integers(text, count, least, most) {
  const values = text.split(",").map((each) => (/^\d{1,2}$/.test(each) ? number(each, least, most) : null));
  return values.length === count && !values.includes(null) ? values : null;
}

/** A matrix from text such as 2x2:0,1,2,3, or null. */
function matrix(text, most) {
  const [, rows, columns, list] = /^(\d{1,2})x(\d{1,2}):(.*)$/.exec(text) ?? [];
  const [height, width] = [Number(rows), Number(columns)];
  if (!(height >= 1 && height <= most && width >= 1 && width <= most)) return null;
  const values = list.split(",").map((each) => number(each));
  if (values.length !== height * width || values.includes(null)) return null;
  return [...Array(height).keys()].map((row) => values.slice(row * width, (row + 1) * width));
}

/** Two weights to begin gradient descent with, or null. */
function startOf(text) {
  const values = text.split(",").map((each) => number(each, -LIMITS.start, LIMITS.start));
  return values.length === 2 && !values.includes(null) ? values : null;
}

function padding(text) {
  if (PADDINGS.includes(text)) return text;
  const four = integers(text, 4, 0, LIMITS.padding);
  return four && [four.slice(0, 2), four.slice(2)];
}

const flag = (text) => (text === "0" || text === "1" ? text === "1" : null);

/** Input channels, output channels and groups, which divide both. */
function channels(text) {
  const [inputs, outputs, groups] = integers(text, 3, 1, LIMITS.channels) ?? [];
  return groups && inputs % groups === 0 && outputs % groups === 0 ? [inputs, outputs, groups] : null;
}

/** For each part of the address: the layer's field and how it is read. */
const PARTS = {
  image: ["image", (text) => matrix(text, LIMITS.image)],
  kernel: ["kernel", (text) => matrix(text, LIMITS.kernel)],
  stride: ["stride", (text) => integers(text, 2, 1, LIMITS.stride)],
  padding: ["padding", padding],
  mode: ["mode", (text) => (MODES.includes(text) ? text : null)],
  value: ["value", (text) => number(text)],
  dilation: ["dilation", (text) => integers(text, 2, 1, LIMITS.dilation)],
  flip: ["flip", flag],
  transposed: ["transposed", flag],
  output: ["outputPadding", (text) => integers(text, 2, 0, LIMITS.stride - 1)],
  channels: ["channels", channels],
  lesson: ["lesson", (text) => (LESSONS.includes(text) ? text : null)],
  rate: ["rate", (text) => number(text, 0, LIMITS.rate)],
  start: ["start", startOf],
  target: ["target", (text) => matrix(text, LIMITS.image)],
};

/** The section ("" if there is none) and the layer of a text, and a sentence for each part that was left out. */
export function decode(text) {
  const layer = chapterLayer(), ignored = [], seen = new Set();
  if (text.length > LONGEST) return { section: "", layer, ignored: ["The address is too long, and was ignored."] };
  const pieces = text.replace(/^#/, "").split("&").filter(Boolean);
  const section = SECTIONS.includes(pieces[0]) ? pieces.shift() : "";
  for (const piece of pieces) {
    const [name, ...rest] = piece.split("=");
    if (!Object.hasOwn(PARTS, name) || seen.has(name)) {
      ignored.push(`The address has an unknown or repeated part "${name.slice(0, 20)}", which was ignored.`);
      continue;
    }
    seen.add(name);
    const [field, read] = PARTS[name], value = read(rest.join("="));
    if (value === null) ignored.push(`The explorer can't use the ${name} in the address, and ignored it.`);
    else layer[field] = value;
  }
  return { section, layer, ignored: ignored.slice(0, 5) };
}

function write(value) {
  if (typeof value === "boolean") return value ? "1" : "0";
  return [value].flat(2).join(",");
}

/** The text of a layer; parts that are as the page opens are left out. */
export function encode(layer) {
  const start = chapterLayer();
  return Object.entries(PARTS).filter(([, [field]]) => write(layer[field]) !== write(start[field]) ||
    (layer[field]?.[0]?.length !== start[field]?.[0]?.length)).map(([name, [field]]) => {
    const value = layer[field], isMatrix = ["image", "kernel", "target"].includes(name);
    return `${name}=${isMatrix ? `${value.length}x${value[0].length}:` : ""}${write(value)}`;
  }).join("&");
}
