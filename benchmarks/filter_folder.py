"""`convlab filter` on a folder of photographs beside OpenCV's own loop: ratios from interleaved runs.

    python benchmarks/filter_folder.py [--photographs 4] [--seconds 6] [--backend numpy]

The photographs are JPEGs of 12 megapixels, blurred noise in colour. OpenCV's loop reads each (`imread`), filters it
(`filter2D`, whose sums are OpenCV's own for small kernels and Fourier transforms for large ones) and writes it
(`imwrite`), at the same quality. The figure is OpenCV's time over convlab's, so that above 1 convlab is faster.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from pathlib import Path

import cv2
import numpy as np
import scipy.ndimage
from timing import console, interleaved, markdown_table, written

from convlab.cli.filter import filter_images
from convlab.filters import parse

FILTERS = ("gaussian:2", "edge:0", "box:15", "sharpen:1")


def photographs(folder: Path, number: int) -> None:
    rng = np.random.default_rng(0)
    for index in range(number):
        noise = rng.standard_normal((375, 500, 3))
        rough = scipy.ndimage.gaussian_filter(noise, (2, 2, 0)) * 300 + 128
        pixels = cv2.resize(rough.astype(np.float32), (4000, 3000), interpolation=cv2.INTER_CUBIC)
        pixels += rng.standard_normal((3000, 4000, 1)).astype(np.float32) * 4
        cv2.imwrite(str(folder / f"{index}.jpg"), np.clip(pixels, 0, 255).astype(np.uint8))


def opencv_loop(source: Path, target: Path, kernel: np.ndarray) -> None:
    for path in sorted(source.iterdir()):
        pixels = cv2.imread(str(path))
        if abs(kernel.sum()) < 1e-9:
            filtered = cv2.convertScaleAbs(cv2.filter2D(pixels, cv2.CV_32F, kernel))
        else:
            filtered = cv2.filter2D(pixels, -1, kernel)
        cv2.imwrite(str(target / path.name), filtered)


def convlab_filter(source: Path, target: Path, name: str, backend: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        filter_images([source], str(target), name, on=backend)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photographs", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=6, help="for each figure")
    parser.add_argument("--backend", default="numpy")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        source, own, ours = (Path(scratch, name) for name in ("photographs", "opencv", "convlab"))
        for folder in (source, own, ours):
            folder.mkdir()
        photographs(source, arguments.photographs)
        ratios = []
        for name in FILTERS:
            runs = {
                "opencv": lambda name=name: opencv_loop(source, own, parse(name)),
                "convlab": lambda name=name: convlab_filter(source, ours, name, arguments.backend),
            }
            times = interleaved(runs, arguments.seconds, rounds=3)
            ratios.append(times["opencv"] / times["convlab"])
    table = markdown_table(*(f"`{name}`" for name in FILTERS), title="How many times faster than OpenCV's loop")
    table.add_row(*map(written, ratios))
    console.print(table)


if __name__ == "__main__":
    main()
