/** Numbers as people read them. */

/** A number with so many significant digits at most, and a true minus sign; from `large` on as 1.2e9. */
export function shown(x, digits = 4, large = 1e21) {
  if (!Number.isFinite(x)) return x > 0 ? "∞" : x < 0 ? "−∞" : "not a number";
  const plain = String(Number(x.toPrecision(digits)));
  const power = x.toExponential(digits - 1).replace(/\.?0*e\+?/, "e");
  const small = Math.abs(x) < 0.001 && x !== 0 && power.length < plain.length;
  return (small || Math.abs(x) >= large ? power : plain).replaceAll("-", "−");
}

/** A number for a cell: no digit before the point is rounded away, and numbers of six digits become 1.2e5. */
export function brief(x, digits = 3) {
  const whole = String(Math.trunc(Math.abs(x))).length;
  return whole > 5 ? shown(x, 2, 1e5) : shown(x, Math.max(digits, whole));
}

/** "=" before a result where the numbers are shown in full, "≈" where one of them is rounded. */
export const equals = (numbers, digits) =>
  (numbers.some((x) => Math.abs(Number(x.toPrecision(digits)) - x) > 1e-12 * Math.abs(x)) ? "≈" : "=");

/** A factor in a product: negative numbers stand in parentheses. */
export const factor = (x, digits = 4) => (x < 0 ? `(${shown(x, digits)})` : shown(x, digits));

/** A place in a matrix, counted from 1. */
export const place = (row, column) => `row ${row + 1}, column ${column + 1}`;
