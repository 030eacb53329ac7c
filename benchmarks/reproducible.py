"""What `reproducible=True` costs beside the framework's own convolution: ratios from interleaved runs.

    python benchmarks/reproducible.py [--backends torch,jax.jit] [--seconds 0.5]

Above 1 the reproducible one is slower. "jax.jit" is compiled with gradients and all, "tensorflow.xla" by
`tf.function(jit_compile=True)`; the others are eager. The second table sums up, with the longest first call,
compilation included, in seconds.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np
from timing import FRAMEWORKS, coloured, console, interleaved, markdown_table, mean, names, ours, own, timed, written

# name, X, K, stride, padding: images of one channel, and layers of a ResNet.
CASES = [
    ("256x256, 5x5", (1, 1, 256, 256), (1, 1, 5, 5), 1, 0),
    ("1024x1024, 7x7", (1, 1, 1024, 1024), (1, 1, 7, 7), 1, 0),
    ("256x256, 31x31", (1, 1, 256, 256), (1, 1, 31, 31), 1, 0),
    ("8x16x32x32, 32 of 3x3", (8, 16, 32, 32), (32, 16, 3, 3), 1, 0),
    ("8x3x224x224, 64 of 7x7, stride 2", (8, 3, 224, 224), (64, 3, 7, 7), 2, 3),
    ("8x64x56x56, 64 of 3x3", (8, 64, 56, 56), (64, 64, 3, 3), 1, 1),
    ("8x64x56x56, 256 of 1x1", (8, 64, 56, 56), (256, 64, 1, 1), 1, 0),
    ("8x128x28x28, 128 of 3x3", (8, 128, 28, 28), (128, 128, 3, 3), 1, 1),
    ("8x128x28x28, 256 of 3x3, stride 2", (8, 128, 28, 28), (256, 128, 3, 3), 2, 1),
    ("8x256x14x14, 256 of 3x3", (8, 256, 14, 14), (256, 256, 3, 3), 1, 1),
    ("8x512x7x7, 512 of 3x3", (8, 512, 7, 7), (512, 512, 3, 3), 1, 1),
]
ROWS = {"jax": ("jax", "jax.jit"), "tensorflow": ("tensorflow", "tensorflow.xla")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    rows = [row for name in FRAMEWORKS for row in ROWS.get(name, (name,))]
    parser.add_argument("--backends", type=names, default=rows)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each figure")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    table = markdown_table("", "of what", *arguments.backends, title="reproducible=True beside the native convolution")
    first = dict.fromkeys(arguments.backends, 0.0)
    ratios: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for title, *shapes, stride, padding in CASES:
        x, k = (rng.standard_normal(shape).astype("float32") for shape in shapes)
        geometry = {"stride": stride, "padding": padding}
        for what, gradients in (("result", False), ("gradients", True)):
            cells = []
            for row in arguments.backends:
                runs = {
                    "ours": ours(row, x, k, gradients, **geometry, reproducible=True),
                    "own": own(row, x, k, gradients, **geometry),
                }
                first[row] = max(first[row], timed(runs["ours"]))
                times = interleaved(runs, arguments.seconds)
                cells.append(coloured(times["ours"] / times["own"]))
                ratios[row, x.shape[1] == 1].append(times["ours"] / times["own"])
            table.add_row(title, what, *cells)
    console.print(table)
    kinds = {"one channel": True, "layers of a ResNet": False}
    sums = markdown_table("", *kinds, "first call", title="Least, geometric mean and most")
    for row, seconds in first.items():
        groups = [ratios[row, single] for single in kinds.values()]
        cells = [", ".join(map(written, (min(group), mean(group), max(group)))) for group in groups]
        sums.add_row(row, *cells, f"{seconds:.1f} s")
    console.print(sums)


if __name__ == "__main__":
    main()
