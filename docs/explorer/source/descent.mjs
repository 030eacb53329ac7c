/** Gradient descent on the squared error of a kernel: the chapter's loop, and the quadratic that it walks on. */

/** The windows of an image, one list of numbers for each output pixel, and the targets beside them. */
export function equations(image, target, [h, w]) {
  const windows = [];
  target.forEach((row, i) => row.forEach((_, j) => {
    windows.push([...Array(h * w).keys()].map((tap) => image[i + Math.floor(tap / w)][j + (tap % w)]));
  }));
  return { windows, targets: target.flat() };
}

const dot = (a, b) => a.reduce((total, x, i) => total + x * b[i], 0);

const errorsOf = ({ windows, targets }, kernel) => windows.map((window, i) => dot(window, kernel) - targets[i]);
const squared = (errors) => errors.reduce((total, error) => total + error ** 2, 0);
const slopesOf = ({ windows }, errors) =>
  windows[0].map((_, tap) => 2 * windows.reduce((total, window, i) => total + errors[i] * window[tap], 0));

/** The sum of the squared errors of a kernel, as a list of numbers. */
export const loss = (problem, kernel) => squared(errorsOf(problem, kernel));

/** The gradient of `loss` in the kernel. */
export const gradient = (problem, kernel) => slopesOf(problem, errorsOf(problem, kernel));

/** The kernels and losses of `steps` steps, from `start` on; it ends early where a number is no longer finite. */
export function descend(problem, start, rate, steps) {
  let errors = errorsOf(problem, start);
  const path = [{ kernel: start, loss: squared(errors) }];
  for (let step = 0; step < steps; step++) {
    const slope = slopesOf(problem, errors), kernel = path[step].kernel.map((weight, i) => weight - rate * slope[i]);
    errors = errorsOf(problem, kernel);
    if (!Number.isFinite(squared(errors))) break;
    path.push({ kernel, loss: squared(errors) });
  }
  return path;
}

/** The matrix of the second derivatives of the loss. */
export function hessian({ windows }) {
  const taps = [...windows[0].keys()];
  return taps.map((p) => taps.map((q) => 2 * windows.reduce((total, window) => total + window[p] * window[q], 0)));
}

/**
 * The kernel of the least loss, and whether it is the only one.
 *
 * The normal equations are solved by elimination; a weight that they leave open is 0.
 */
export function leastLoss(problem) {
  const rows = hessian(problem), slopes = gradient(problem, rows.map(() => 0));
  const matrix = rows.map((row, i) => [...row, -slopes[i]]), least = 1e-10 * Math.max(...rows.flat().map(Math.abs));
  const pivots = [];
  for (let column = 0, done = 0; column < rows.length; column++) {
    const left = matrix.slice(done).map((row) => Math.abs(row[column])), most = Math.max(...left);
    if (!(most > least)) continue;
    const pivot = done + left.indexOf(most);
    [matrix[done], matrix[pivot]] = [matrix[pivot], matrix[done]];
    matrix[done] = matrix[done].map((x) => x / matrix[done][column]);
    matrix.forEach((row, i) => {
      if (i !== done) matrix[i] = row.map((x, j) => x - row[column] * matrix[done][j]);
    });
    pivots.push(column);
    done += 1;
  }
  const kernel = rows.map((_, i) => (pivots.includes(i) ? matrix[pivots.indexOf(i)].at(-1) : 0));
  return { kernel, unique: pivots.length === rows.length };
}

/** The largest eigenvalue of a symmetric matrix without negative eigenvalues, by power iteration. */
export function largestEigenvalue(matrix) {
  let vector = matrix.map((_, i) => 1 + i / 7), value = 0;
  for (let step = 0; step < 5000; step++) {
    const next = matrix.map((row) => dot(row, vector)), length = Math.hypot(...next);
    if (length === 0) return 0;
    vector = next.map((x) => x / length);
    const before = value;
    value = dot(vector, matrix.map((row) => dot(row, vector)));
    if (step > 50 && Math.abs(value - before) <= 1e-15 * value) break;
  }
  return value;
}

/** The learning rate above which gradient descent diverges. */
export const largestRate = (problem) => 2 / largestEigenvalue(hessian(problem));
