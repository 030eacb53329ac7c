/** The state in the address: what is right comes back, what is wrong or hostile is left out with a sentence. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { FRAMEWORKS, program } from "../../docs/explorer/source/programs.mjs";
import { chapterLayer, decode, encode, LIMITS, typed } from "../../docs/explorer/source/state.mjs";

const CHANGED = {
  image: [[1.5, -2], [1e-7, 4]], kernel: [[0.25], [-1]], stride: [2, 3], padding: [[1, 0], [2, 3]], mode: "reflect",
  value: -0.5, dilation: [2, 1], flip: true, transposed: true, outputPadding: [1, 2],
  channels: [6, 9, 3], lesson: "painted", rate: 0.5, start: [2, -0.25], target: [[0, 1, -1]],
};

test("a layer comes back from its text", () => {
  assert.equal(encode(chapterLayer()), "");
  assert.deepEqual(decode(""), { section: "", layer: chapterLayer(), ignored: [] });
  assert.deepEqual(decode(`#${encode(CHANGED)}`), { section: "", layer: CHANGED, ignored: [] });
  const reshaped = { ...chapterLayer(), kernel: [[1], [-1]] };
  assert.deepEqual(decode(encode(reshaped)).layer, reshaped);
  const turned = { ...chapterLayer(), image: [...Array(8)].map(() => [1, 1, 0, 0, 0, 0]) };
  assert.deepEqual(decode(encode(turned)).layer, turned);
});

test("a section stands before the layer, or alone", () => {
  assert.deepEqual(decode("#learning"), { section: "learning", layer: chapterLayer(), ignored: [] });
  assert.deepEqual(decode("#bits&stride=2,1"),
    { section: "bits", layer: { ...chapterLayer(), stride: [2, 1] }, ignored: [] });
  const { section, ignored } = decode("#stride=2,1&bits");
  assert.deepEqual([section, ignored.length], ["", 1]);
});

const HOSTILE = [
  "image=<img src=x onerror=alert(1)>", "kernel=1x2:alert(1),2", "kernel=1x2:1", "kernel=0x0:", "kernel=99x99:1",
  "kernel=1x1:NaN", "kernel=1x1:Infinity", "kernel=1x1:1e999", "kernel=1x1:0x10", "kernel=1x1: 1", "kernel=1x1:",
  "stride=0,1", "stride=-1,1", "stride=1", "stride=1,1,1", "stride=1.5,1", `stride=${LIMITS.stride + 1},1`,
  "mode=wrap ",
  "mode=__proto__", "padding=constructor", "padding=1,1,1", "flip=true", "flip=toString", "value=1;2", "output=9,9",
  "message", "learning=1", "__proto__", "__proto__=1", "constructor=1", "toString=1", "unknown=1", "<script>=1", "image", "=", "dilation=4,1", "channels=4,6,4", "channels=13,1,1", "channels=0,1,1", "channels=4,6",
  "lesson=constructor", "lesson=", "rate=-1", "rate=101", "rate=1e999", "start=1", "start=1,2,3", "start=101,0",
  "start=,", "target=0x0:", "target=25x1:1", "target=1x2:1,<b>", "target=",
];

test("what is wrong is left out, and said", () => {
  for (const text of HOSTILE) {
    const { layer, ignored } = decode(text);
    assert.deepEqual(layer, chapterLayer(), text);
    assert.equal(ignored.length, 1, text);
  }
  assert.deepEqual(decode("stride=2,2&mode=evil").layer.stride, [2, 2]);
  assert.equal(decode("stride=2,2&stride=3,3").ignored.length, 1);
  assert.equal(decode("x".repeat(1e6)).ignored.length, 1);
  assert.equal(decode("a=1&".repeat(100)).ignored.length, 5);
  assert.equal({}.polluted, undefined);
});

test("every framework has a program", () => {
  for (const name of Object.keys(FRAMEWORKS)) assert.match(program(name, chapterLayer()), /print\(Y\)\n$/);
});

test("numbers are read as people type them", () => {
  const read = { ".5": 0.5, "5.": 5, "+2": 2, "−1": -1, "-.25": -0.25, " 3 ": 3, "1e3": 1000, "1E-2": 0.01, "1e+2": 100 };
  for (const [text, value] of Object.entries(read)) assert.equal(typed(text), value, text);
  for (const text of ["1/3", "1e7", "", ".", "+", "--1", "1,5", "0x10", "Infinity", "1 2", "e3", "alert(1)"]) {
    assert.equal(typed(text), null, text);
  }
  assert.equal(typed("-1", 0, 100), null);
});
