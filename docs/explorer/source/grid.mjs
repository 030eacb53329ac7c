/** A matrix as a grid of cells, for the pointer, the finger and the keyboard: one cell is in the order of tabs. */

import { make } from "./dom.mjs";

/** What each cell shows: most cells stay as they are when one changes. */
const looks = new WeakMap();
const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function build(holder, rows, columns) {
  holder.style.setProperty("--columns", columns);
  holder.classList.toggle("dense", columns > 20);
  const cells = [...Array(rows)].map(() =>
    [...Array(columns)].map(() => make("div", { role: "gridcell", tabindex: -1 })));
  holder.replaceChildren(...cells.map((row) => make("div", { role: "row" }, ...row)));
  cells.forEach((row, i) => row.forEach((cell, j) => Object.assign(cell.dataset, { row: i, column: j })));
  return cells;
}

/** Let one cell be in the order of tabs. */
function rove(cells, row, column) {
  for (const cell of cells.flat()) cell.tabIndex = -1;
  cells[row][column].tabIndex = 0;
}

/** The cell that a key leads to, or null. */
function neighbour(cells, cell, key) {
  const row = Number(cell.dataset.row), column = Number(cell.dataset.column);
  if (key === "Home") return cells[row][0];
  if (key === "End") return cells[row].at(-1);
  return key in MOVES ? cells[row + MOVES[key][0]]?.[column + MOVES[key][1]] ?? cell : null;
}

/**
 * Make an empty element a grid.
 *
 * `point(row, column)` is called where the pointer or the focus comes to; `press(row, column, key)` for a click, Enter,
 * Space or any other key, and returns whether it did something.
 */
export function makeGrid(holder, { point, press = () => false }) {
  let cells = [];
  const at = (event) => event.target.closest("[role=gridcell]");
  const where = (cell) => [Number(cell.dataset.row), Number(cell.dataset.column)];
  holder.addEventListener("pointerover", (event) => {
    if (!at(event)) return;
    point(...where(at(event)));
    if (event.buttons === 1 && event.pointerType === "mouse") press(...where(at(event)), "Drag");
  });
  holder.addEventListener("focusin", (event) => {
    rove(cells, ...where(at(event)));
    point(...where(at(event)));
  });
  holder.addEventListener("pointerdown", (event) => {
    if (at(event) && event.pointerType === "mouse" && event.button === 0) press(...where(at(event)), "Enter");
  });
  holder.addEventListener("click", (event) => {
    if (at(event) && event.pointerType !== "mouse") press(...where(at(event)), "Enter");
  });
  holder.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !at(event)) return;
    const next = neighbour(cells, at(event), event.key);
    if (next) next.focus();
    if (next || press(...where(at(event)), event.key === " " ? "Enter" : event.key)) event.preventDefault();
  });
  return {
    /** Show cells, each with text, label, style and marks (names of classes). */
    show(content) {
      if (content.length !== cells.length || content[0]?.length !== cells[0]?.length) {
        cells = build(holder, content.length, content[0]?.length ?? 0);
        if (cells.length) cells[0][0].tabIndex = 0;
      }
      content.forEach((row, i) => row.forEach(({ text, label, style, marks }, j) => {
        const cell = cells[i][j], drawn = [text, label, ...Object.values(style), ...marks].join("|");
        if (looks.get(cell) === drawn) return;
        looks.set(cell, drawn);
        Object.assign(cell, { textContent: text, ariaLabel: label, className: marks.join(" ") });
        Object.assign(cell.style, style);
        cell.style.setProperty("--letters", Math.max(text.length, 4));
      }));
    },
  };
}
