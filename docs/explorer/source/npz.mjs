/** Arrays as an `.npz` file, as numpy.savez writes it: a zip archive of `.npy` files, not compressed. */

const encoder = new TextEncoder();

/** An array of numbers (float64), integers (int64) or one text, with its shape, as an `.npy` file. */
function npy({ kind, shape, values }) {
  const descr = kind === "text" ? `<U${values.length}` : kind === "integers" ? "<i8" : "<f8";
  const tuple = `(${shape.join(", ")}${shape.length === 1 ? "," : ""})`;
  const header = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${tuple}, }`;
  const length = Math.ceil((10 + header.length + 1) / 64) * 64;
  const start = Uint8Array.from([0x93, ...encoder.encode("NUMPY"), 1, 0, (length - 10) & 255, (length - 10) >> 8]);
  const data = kind === "text" ? Uint32Array.from(values, (letter) => letter.codePointAt(0))
    : kind === "integers" ? BigInt64Array.from(values, BigInt) : Float64Array.from(values);
  return joined([start, encoder.encode(header.padEnd(length - 11) + "\n"), new Uint8Array(data.buffer)]);
}

function joined(parts) {
  const all = new Uint8Array(parts.reduce((total, part) => total + part.length, 0));
  parts.reduce((at, part) => (all.set(part, at), at + part.length), 0);
  return all;
}

function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

/** Little-endian numbers, each given with its count of bytes. */
function little(...fields) {
  return Uint8Array.from(fields.flatMap(([value, count]) =>
    [...Array(count).keys()].map((i) => (value >>> (8 * i)) & 255)));
}

/** The fields that a file has in its own header and in the archive's directory. 33 is the first of January 1980. */
const common = (name, data) => little([20, 2], [0, 2], [0, 2], [0, 2], [33, 2], [crc32(data), 4], [data.length, 4],
  [data.length, 4], [name.length, 2], [0, 2]);

/** The bytes of an archive of arrays by name. */
export function npz(arrays) {
  const files = [], directory = [];
  let at = 0;
  for (const [title, array] of Object.entries(arrays)) {
    const name = encoder.encode(`${title}.npy`), data = npy(array), fields = common(name, data);
    const file = joined([little([0x04034b50, 4]), fields, name, data]);
    const start = little([0x02014b50, 4], [20, 2]), end = little([0, 2], [0, 2], [0, 2], [0, 4], [at, 4]);
    directory.push(joined([start, fields, end, name]));
    files.push(file);
    at += file.length;
  }
  const entries = joined(directory), count = directory.length;
  const end = little([0x06054b50, 4], [0, 2], [0, 2], [count, 2], [count, 2], [entries.length, 4], [at, 4], [0, 2]);
  return joined([...files, entries, end]);
}

const matrix = (values) => ({ kind: "numbers", shape: [values.length, values[0].length], values: values.flat() });
const pair = (values) => ({ kind: "integers", shape: [2], values });

/** A layer and its result as the arrays of a case; a transposed convolution is no such case. */
export function caseOf(layer, Y) {
  const kernel = layer.flip ? layer.kernel.map((row) => [...row].reverse()).reverse() : layer.kernel;
  const padding = typeof layer.padding === "string" ? { kind: "text", shape: [], values: layer.padding }
    : { kind: "integers", shape: [2, 2], values: layer.padding.flat() };
  const filled = layer.mode === "zeros" && layer.value !== 0;
  const value = filled ? { padding_value: { kind: "numbers", shape: [], values: [layer.value] } } : {};
  return {
    X: matrix(layer.image), K: matrix(kernel), Y: matrix(Y),
    stride: pair(layer.stride), padding, dilation: pair(layer.dilation),
    padding_mode: { kind: "text", shape: [], values: layer.mode }, ...value,
  };
}
