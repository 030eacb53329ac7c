/** Channels and groups: which channels of the image each channel of the result takes, and the weight's shape. */

/** The numbers of groups that two numbers of channels allow: the divisors of both. */
export function groupsOf(inputs, outputs) {
  return [...Array(Math.min(inputs, outputs)).keys()].map((n) => n + 1)
    .filter((n) => inputs % n === 0 && outputs % n === 0);
}

/** Whether an output channel takes an input channel, both counted from 0. */
export function takes({ inputs, outputs, groups }, output, input) {
  return Math.floor(output / (outputs / groups)) === Math.floor(input / (inputs / groups));
}

/** The weight's shape in each framework, and how many numbers it has; the kernel has `size` rows and columns. */
export function weightOf({ inputs, outputs, groups }, [h, w]) {
  const each = inputs / groups, depthwise = groups === inputs && groups > 1;
  return {
    OIHW: [outputs, each, h, w], HWIO: [h, w, each, outputs],
    depthwise: depthwise ? [h, w, inputs, outputs / inputs] : null, count: outputs * each * h * w,
  };
}
