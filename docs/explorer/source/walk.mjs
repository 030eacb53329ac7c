/** The window's walk over the image: play it, scrub it, step it. */

import { byId } from "./dom.mjs";
import { look, lookAt } from "./look.mjs";
import { place } from "./shown.mjs";
import { store } from "./store.mjs";

const PAUSE = 500;
let timer = null;

const columns = () => store.result[0]?.length ?? 1;
const count = () => store.result.length * columns();
const here = () => (look.side === "result" ? look.at[0] * columns() + look.at[1] : -1);

function goTo(index) {
  if (store.problem) return;
  const inside = ((index % count()) + count()) % count();
  lookAt("result", Math.floor(inside / columns()), inside % columns());
}

/** Stop the walk. */
export function stop() {
  clearInterval(timer);
  timer = null;
  byId("play").textContent = "Play";
  byId("panel").setAttribute("aria-live", "polite");
}

function play() {
  byId("play").textContent = "Pause";
  // A screen reader would never come to an end of what changes twice a second.
  byId("panel").setAttribute("aria-live", "off");
  if (here() === count() - 1) goTo(0);
  timer = setInterval(() => {
    if (here() + 1 < count()) goTo(here() + 1);
    else stop();
  }, PAUSE);
}

/** Show where the walk is. */
export function showWalk() {
  const slider = byId("scrub");
  slider.max = count() - 1;
  if (here() >= 0) slider.value = here();
  slider.setAttribute("aria-valuetext", look.side === "result" ? place(...look.at) : "not on the walk");
}

/** Bind the buttons and the slider. */
export function startWalk() {
  byId("play").addEventListener("click", () => (timer === null ? play() : stop()));
  for (const [id, by] of [["back", -1], ["next", 1]]) {
    byId(id).addEventListener("click", () => {
      stop();
      goTo(Math.max(here(), by < 0 ? 0 : -1) + by);
    });
  }
  byId("scrub").addEventListener("input", () => {
    stop();
    goTo(Number(byId("scrub").value));
  });
}
