/** The explorer's narrow floating-point numbers, beside numbers worked out by hand and exact integers. */

import assert from "node:assert/strict";
import { test } from "node:test";

import * as rounding from "../../docs/explorer/source/rounding.mjs";

test("float16 and bfloat16 round half to even, with subnormal numbers and infinity", () => {
  assert.equal(rounding.float16(2049), 2048);
  assert.equal(rounding.float16(2051), 2052);
  assert.equal(rounding.float16(0.1), 0.0999755859375);
  assert.equal(rounding.float16(-65520), -Infinity);
  assert.equal(rounding.float16(65519), 65504);
  assert.equal(rounding.float16(2 ** -25), 0);
  assert.equal(rounding.float16(1.5 * 2 ** -24), 2 ** -23);
  assert.equal(rounding.bfloat16(0.1), 0.10009765625);
  assert.equal(rounding.bfloat16(257), 256);
  assert.equal(rounding.bfloat16(-259), -260);
});

/** A float32 number as an integer times 2^-300. */
function exact(x) {
  const exponent = x === 0 ? 0 : Math.floor(Math.log2(Math.abs(x)));
  return BigInt(x * 2 ** -exponent * 2 ** 52) * 2n ** BigInt(exponent - 52 + 300);
}

/** Whether y is a float32 number nearest to an exact value, times 2^-300. */
function isNearest(y, value) {
  const away = (x) => (exact(x) > value ? exact(x) - value : value - exact(x));
  const step = 2 ** (Math.floor(Math.log2(Math.abs(y) || 1)) - 23);
  return [y - step / 2, y - step, y + step].every((other) => away(y) <= away(rounding.float32(other)));
}

test("a fused multiply-add is rounded once", () => {
  const values = rounding.numbers(7, 3000);
  for (let i = 0; i < values.length; i += 3) {
    const [a, b, c] = values.slice(i, i + 3), y = rounding.fused(a, b, c);
    assert.ok(isNearest(y, exact(a) * exact(b) / 2n ** 300n + exact(c)), `${a} * ${b} + ${c}`);
  }
});

test("a fused multiply-add is right where rounding to float64 first would make a tie", () => {
  const tie = 1 + 2 ** -23, tiny = 2 ** -70;
  const [a, b, c] = [2 ** -12 + 2 ** -35, 2 ** -12, tie];
  const value = exact(a) * exact(b) / 2n ** 300n + exact(c);
  assert.ok(isNearest(rounding.fused(a, b, c), value));
  assert.equal(rounding.fused(2 ** -35, -tiny * 2 ** 11, 1 + 2 ** -23), 1 + 2 ** -23);
  assert.equal(rounding.fused(2 ** -24, 1, 1), 1);
  assert.equal(rounding.fused(2 ** -24 * (1 + 2 ** -23), 1 + 2 ** -23, 1), rounding.float32(1 + 2 ** -23));
  assert.equal(rounding.fused(2 ** -12, 2 ** -12, 2 ** 40), 2 ** 40);
});

test("bits and steps", () => {
  assert.equal(rounding.bits(1), "00111111100000000000000000000000");
  assert.equal(rounding.bits(-2), "11000000000000000000000000000000");
  assert.equal(rounding.steps(1, 1 + 2 ** -23), 1);
  assert.equal(rounding.steps(-1e-45, 1e-45), 2);
  assert.equal(rounding.steps(-0, 0), 0);
});

test("the sums: integers agree in every order, fractions don't, and the reproducible one does", () => {
  const integers = [[1, 2], [3, 4], [5, -6], [7, 8]];
  const every = [rounding.halving, rounding.orderedFused, (pairs) => rounding.ordered(pairs, rounding.float32)];
  for (const sum of every) assert.equal(sum(integers), 40);
  const values = rounding.numbers(1, 50), pairs = values.slice(0, 25).map((a, i) => [a, values[25 + i]]);
  const results = every.map((sum) => sum(pairs));
  assert.ok(new Set(results).size > 1);
  assert.equal(rounding.halving([[1, 1], [2 ** -24, 1], [2 ** -24, 1]]), 1);
  assert.equal(rounding.halving([]), 0);
});
