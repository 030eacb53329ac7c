/** Numbers as people read them. */

/** A number with so many significant digits at most, and a true minus sign. */
export function shown(x, digits = 4) {
  if (!Number.isFinite(x)) return x > 0 ? "∞" : x < 0 ? "−∞" : "not a number";
  return String(Number(x.toPrecision(digits))).replaceAll("-", "−");
}

/** A factor in a product: negative numbers stand in parentheses. */
export const factor = (x) => (x < 0 ? `(${shown(x)})` : shown(x));

/** A place in a matrix, counted from 1. */
export const place = (row, column) => `row ${row + 1}, column ${column + 1}`;
