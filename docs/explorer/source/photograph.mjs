/** An image from a file or the webcam, scaled down to 24 pixels a side at most, in ten greys. It stays here. */

import { byId, tell } from "./dom.mjs";
import { LIMITS } from "./state.mjs";
import { change } from "./store.mjs";

const TYPES = ["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"];
const LARGEST = 30 * 2 ** 20;
const REFRESH = 150;
let stream = null, timer = null, asking = false;

/** The grey levels 0 to 9 of a picture of any size. */
function levels(picture, width, height) {
  const scale = LIMITS.image / Math.max(width, height);
  const [columns, rows] = [width, height].map((size) => Math.max(Math.round(size * scale), 1));
  const canvas = new OffscreenCanvas(columns, rows), context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillRect(0, 0, columns, rows);
  context.drawImage(picture, 0, 0, columns, rows);
  const { data } = context.getImageData(0, 0, columns, rows);
  const level = (i) => Math.round((0.2126 * data[i] + 0.7152 * data[i + 1] + 0.0722 * data[i + 2]) / 255 * 9);
  return [...Array(rows).keys()].map((r) => [...Array(columns).keys()].map((c) => level(4 * (r * columns + c))));
}

async function readFile(file) {
  if (!TYPES.includes(file.type)) return tell("The explorer reads PNG, JPEG, WebP, BMP and GIF files.");
  if (file.size > LARGEST) return tell("The explorer reads files of at most 30 MB. Make the photograph smaller first.");
  try {
    const bitmap = await createImageBitmap(file);
    change({ image: levels(bitmap, bitmap.width, bitmap.height) });
    bitmap.close();
    tell("");
  } catch {
    tell("The browser can't read this file as a picture: it may be damaged, or too large.");
  }
}

function stopWebcam() {
  clearInterval(timer);
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  byId("webcam").textContent = "Use the webcam";
}

async function startWebcam() {
  const video = document.createElement("video");
  asking = true;
  byId("webcam").textContent = "Waiting for the webcam";
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 320 } } });
    Object.assign(video, { srcObject: stream, muted: true, playsInline: true });
    await video.play();
  } catch {
    stopWebcam();
    return tell("There is no webcam, or the browser keeps it from this page.");
  } finally {
    asking = false;
  }
  byId("webcam").textContent = "Keep this picture";
  timer = setInterval(() => {
    if (video.videoWidth) change({ image: levels(video, video.videoWidth, video.videoHeight) });
  }, REFRESH);
}

/** Bind the file and the webcam. */
export function startPhotograph() {
  byId("file").addEventListener("change", async ({ target }) => {
    if (target.files[0]) await readFile(target.files[0]);
    target.value = "";
  });
  byId("webcam").addEventListener("click", () => {
    // A second request would start a second stream.
    if (asking) return;
    if (stream) stopWebcam();
    else startWebcam();
  });
}
