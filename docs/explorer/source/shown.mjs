/** Numbers as people read them. */

/** A number with so many significant digits at most, and a true minus sign. */
export function shown(x, digits = 4) {
  if (!Number.isFinite(x)) return x > 0 ? "∞" : x < 0 ? "−∞" : "not a number";
  const plain = String(Number(x.toPrecision(digits)));
  const short = Math.abs(x) < 0.001 && x !== 0 ? x.toExponential(digits - 1).replace(/\.?0*e/, "e") : plain;
  return (short.length < plain.length ? short : plain).replaceAll("-", "−");
}

/** A factor in a product: negative numbers stand in parentheses. */
export const factor = (x, digits = 4) => (x < 0 ? `(${shown(x, digits)})` : shown(x, digits));

/** A place in a matrix, counted from 1. */
export const place = (row, column) => `row ${row + 1}, column ${column + 1}`;
