/** The page: its parts are started, and drawn again whenever the layer or the look changes. */

import { startAddress } from "./address.mjs";
import { showBits, startBits } from "./bits_view.mjs";
import { startBorders } from "./borders_view.mjs";
import { showChannels, startChannels } from "./channels_view.mjs";
import { onScheme } from "./colours.mjs";
import { showConventions, startConventions } from "./conventions_view.mjs";
import { startControls, showControls } from "./controls.mjs";
import { showProgram, startCopy } from "./copy.mjs";
import { byId, tell } from "./dom.mjs";
import { filled, inWords, symbols } from "./formula.mjs";
import { showImage, startImage } from "./image_grid.mjs";
import { showKernel } from "./kernel_table.mjs";
import { showLearning, startLearning } from "./learning_view.mjs";
import { keepInside, onLook } from "./look.mjs";
import { startPhotograph } from "./photograph.mjs";
import { showResult, startResult } from "./result_grid.mjs";
import { onChange, store } from "./store.mjs";
import { showPanel } from "./sum_panel.mjs";
import { showWalk, startWalk } from "./walk.mjs";

function showGrids() {
  showImage();
  showKernel();
  showResult();
  showPanel();
  showWalk();
}

function showLayer() {
  keepInside();
  showControls();
  showGrids();
  showProgram();
  byId("problem").textContent = store.problem;
  byId("problem").hidden = !store.problem;
  for (const [id, axis] of [["rows-formula", 0], ["columns-formula", 1]]) {
    byId(id).replaceChildren(symbols(store.layer, axis), document.createElement("br"), filled(store.layer, axis));
  }
  byId("in-words").textContent = inWords(store.layer);
  showChannels();
  showConventions();
  showLearning();
}

const data = JSON.parse(byId("data").textContent);
startControls(data);
startImage();
startResult();
startWalk();
startPhotograph();
startCopy();
startChannels();
startConventions();
startBorders(data.borders);
startLearning();
startBits();
onChange(showLayer);
onLook(showGrids);
onScheme(showLayer);
startAddress();
showBits();
// A message stays until it has been read.
addEventListener("pointerdown", () => tell(""), true);
addEventListener("keydown", ({ key }) => key === "Escape" && tell(""));
