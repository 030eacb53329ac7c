/** The colours of cells. A text on each is black or white, whichever has the greater contrast: 4.5 to 1 at least. */

const ORANGE = [214, 92, 16], BLUE = [29, 79, 145];
const dark = matchMedia("(prefers-color-scheme: dark)");

/** Call a function whenever the page turns light or dark. */
export const onScheme = (redraw) => dark.addEventListener("change", redraw);

const neutral = () => (dark.matches ? [33, 37, 42] : [244, 244, 242]);
const page = () => (dark.matches ? [18, 20, 23] : [253, 253, 252]);
const mix = (a, b, share) => a.map((part, i) => Math.round(part + (b[i] - part) * share));

function luminance(colour) {
  const light = colour.map((part) => part / 255).map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
  return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2];
}

/** The style of a cell of this colour. */
function styled(colour) {
  return { background: `rgb(${colour.join(", ")})`, color: luminance(colour) > 0.179 ? "#000" : "#fff" };
}

/** A pixel of an image: black at the least number, white at the greatest; those of a border are fainter. */
export function grey(x, least, most, faint = false) {
  const level = most > least ? Math.min(Math.max((x - least) / (most - least), 0), 1) * 255 : 128;
  const colour = [level, level, level].map(Math.round);
  return styled(faint ? mix(colour, page(), 0.5) : colour);
}

/** A signed number: blue below zero, orange above. */
export function signed(x, most) {
  const share = most > 0 ? Math.min(Math.abs(x) / most, 1) : 0;
  return styled(mix(neutral(), x < 0 ? BLUE : ORANGE, Math.sqrt(share)));
}
