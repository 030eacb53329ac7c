"""Draw the figures of docs/gallery.md, whose examples this runs; `--check` only says which figures are old.

The figure that is current where an image stands in the page is written to the image's file. It needs the frameworks,
matplotlib and scikit-image.
"""

from __future__ import annotations

import doctest
import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

PAGE = Path(__file__).with_name("gallery.md")
IMAGE = re.compile(r"^!\[.*\]\((figures/.*)\)$", re.MULTILINE)
# A figure is old if its colours, from 0 to 255, differ by more than this on average. Results may differ by their
# rounding, and letters from one version of matplotlib to the next.
TOLERANCE = 2.0


def main() -> None:
    """Write the figures, or say which are old."""
    plt.rcParams["figure.dpi"] = 80
    names: dict[str, object] = {}
    old = []
    *parts, _ = IMAGE.split(PAGE.read_text())
    for text, path in zip(parts[::2], parts[1::2], strict=True):
        for example in doctest.DocTestParser().get_examples(text):
            exec(compile(example.source, PAGE.name, "exec"), names)
        file, figure = PAGE.parent / path, picture()
        if "--check" not in sys.argv:
            figure.quantize(kmeans=3).save(file, optimize=True)  # 256 colours take a third of the bytes
        elif not (file.exists() and alike(figure, Image.open(file))):
            old.append(path)
        plt.close("all")
    if old:
        sys.exit(f"docs: old figures: {', '.join(old)}. Hint: run `python docs/figures.py`.")


def picture() -> Image.Image:
    """The current figure."""
    canvas = plt.gcf().canvas
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def alike(a: Image.Image, b: Image.Image) -> bool:
    """Whether two pictures have the same size and, nearly, the same colours."""
    return a.size == b.size and float(np.abs(colours(a) - colours(b)).mean()) <= TOLERANCE


def colours(image: Image.Image) -> np.ndarray:
    """The red, green and blue of each pixel, from 0 to 255."""
    return np.asarray(image.convert("RGB"), float)


if __name__ == "__main__":
    main()
