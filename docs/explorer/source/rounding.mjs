/** Sums in narrow floating-point numbers, bit for bit. */

const wide = new Float64Array(1), wideBits = new BigInt64Array(wide.buffer);
const narrow = new Float32Array(1), narrowBits = new Uint32Array(narrow.buffer);

/** A number rounded, half to even, to `precision` significant bits and an exponent of at least `least`. */
function roundTo(x, precision, least, largest) {
  if (x === 0 || !Number.isFinite(x)) return x;
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(x))), least);
  const quantum = 2 ** (exponent - precision + 1), scaled = x / quantum, floor = Math.floor(scaled);
  const up = scaled - floor > 0.5 || (scaled - floor === 0.5 && floor % 2 !== 0);
  const rounded = (floor + (up ? 1 : 0)) * quantum;
  return Math.abs(rounded) > largest ? Math.sign(x) * Infinity : rounded;
}

export const float32 = Math.fround;
export const float16 = (x) => roundTo(x, 11, -14, 65504);
export const bfloat16 = (x) => roundTo(x, 8, -126, 3.3895313892515355e38);

/** a * b + c of float32 numbers, rounded once to float32: a fused multiply-add. */
export function fused(a, b, c) {
  const product = a * b, total = product + c;
  const second = total - product, error = product - (total - second) + (c - second);
  wide[0] = total;
  // Rounding to odd keeps the second rounding, to float32, from going wrong at a tie.
  if (error !== 0 && (wideBits[0] & 1n) === 0n) wideBits[0] += error > 0 === total > 0 ? 1n : -1n;
  return float32(wide[0]);
}

/** The sum of products in order, each product and each sum rounded. */
export function ordered(pairs, round) {
  return pairs.reduce((total, [a, b]) => round(total + round(round(a) * round(b))), 0);
}

/** The totals after each product, each rounded to float32. */
export function totals(pairs) {
  return pairs.map((_, i) => ordered(pairs.slice(0, i + 1), float32));
}

/** The sum of products with a fused multiply-add each, in float32. */
export const orderedFused = (pairs) => pairs.reduce((total, [a, b]) => fused(a, b, total), 0);

/** The sum of products in a halving tree, in float32: the second half is added to the first until one is left. */
export function halving(pairs) {
  let sums = pairs.map(([a, b]) => float32(a * b));
  while (sums.length > 1) {
    const half = Math.ceil(sums.length / 2);
    sums = sums.slice(0, half).map((x, i) => float32(x + (sums[half + i] ?? 0)));
  }
  return sums[0] ?? 0;
}

/** convlab's `reproducible=True`: exact products in float64, added in order of kernel row and column, rounded once. */
export const reproducible = (pairs) => float32(pairs.reduce((total, [a, b]) => total + a * b, 0));

/** The 32 bits of a float32 number. */
export function bits(x) {
  narrow[0] = x;
  return narrowBits[0].toString(2).padStart(32, "0");
}

/** How many float32 numbers b is away from a. */
export function steps(a, b) {
  const place = (x) => {
    narrow[0] = x;
    return narrowBits[0] >= 0x80000000 ? 0x80000000 - narrowBits[0] : narrowBits[0];
  };
  return Math.abs(place(a) - place(b));
}

/** Numbers between -1 and 1 from a seed, the same everywhere. */
export function numbers(seed, count) {
  let state = seed >>> 0;
  return [...Array(count)].map(() => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return float32(state / 2 ** 31 - 1);
  });
}
