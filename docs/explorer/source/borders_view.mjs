/** The borders, and what each library calls them. */

import { grey } from "./colours.mjs";
import { byId, make } from "./dom.mjs";
import { change } from "./store.mjs";

const LEVELS = { a: 9, b: 6, c: 3, d: 0.5 };

function stripOf({ strip, mode }) {
  const cells = strip.flatMap((part, where) => part.map((letter) => {
    const cell = make("span", where === 1 ? {} : { class: "border" }, letter);
    Object.assign(cell.style, grey(LEVELS[letter] ?? 0, 0, 9, where !== 1));
    return cell;
  }));
  const label = `${mode}: ${strip.map((part) => part.join(" ")).join(", then ")}`;
  return make("span", { class: "strip", role: "img", "aria-label": label }, ...cells);
}

/** The text of a cell of the table, in which names stand between backticks. */
const named = (text) => text.split("`").map((part, i) => (i % 2 ? make("code", {}, part) : part));

function tryIt(mode) {
  const button = make("button", { type: "button", "aria-label": `Try the border ${mode} on the layer` }, "Try it");
  button.addEventListener("click", () => {
    change({ mode, value: 0, padding: "full", transposed: false });
    byId("layer").scrollIntoView();
  });
  return button;
}

/** Make the table of the borders. */
export function startBorders(borders) {
  const libraries = Object.keys(borders[0].names);
  byId("borders-head").append(make("th", { scope: "col" }, "pixels"),
    ...libraries.map((name) => make("th", { scope: "col" }, name)), make("th", { scope: "col" }, "on the layer"));
  byId("borders-body").append(...borders.map((border) => make("tr", {}, make("td", {}, stripOf(border)),
    ...libraries.map((name) => make("td", { "data-label": name }, ...named(border.names[name] || "—"))),
    make("td", {}, tryIt(border.mode)))));
}
