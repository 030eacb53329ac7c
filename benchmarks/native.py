"""What convlab's `corr2d` costs beside the same call written by hand: ratios from interleaved runs.

    python benchmarks/native.py [--backends torch,jax] [--seconds 0.3]

For each case, convlab and the framework's own convolution (and, on MXNet, the matrix form) take turns; the figure is
convlab's median time over the other's, so that above 1 convlab is slower. "tiny" shows the cost of dispatch, also in
microseconds.
"""

from __future__ import annotations

import argparse

import numpy as np
from timing import (
    FRAMEWORKS,
    Run,
    coloured,
    console,
    image,
    interleaved,
    kernel,
    lab_of,
    markdown_table,
    names,
    ours,
    own,
)

# name, X, K, gradients too
CASES = [
    ("tiny 8x8, 3x3", (1, 1, 8, 8), (1, 1, 3, 3), False),
    ("256x256, 3x3", (1, 1, 256, 256), (1, 1, 3, 3), False),
    ("256x256, 7x7", (1, 1, 256, 256), (1, 1, 7, 7), False),
    ("1024x1024, 7x7", (1, 1, 1024, 1024), (1, 1, 7, 7), False),
    ("1024x1024, 7x7, gradients", (1, 1, 1024, 1024), (1, 1, 7, 7), True),
    ("layer 8x32x56x56, 64 of 3x3", (8, 32, 56, 56), (64, 32, 3, 3), False),
    ("layer, gradients", (8, 32, 56, 56), (64, 32, 3, 3), True),
]


def matrix(x: np.ndarray, k: np.ndarray, gradients: bool) -> Run:
    """MXNet's convolution as a product of matrices, by hand."""
    from mxnet import np as mnp

    lab = lab_of("mxnet")
    images, weights = image(lab, x), kernel(lab, k)
    (n, c, height, width), (o, _, h, w) = x.shape, k.shape
    rows, columns = height - h + 1, width - w + 1

    def product(x: mnp.ndarray, k: mnp.ndarray) -> mnp.ndarray:
        windows = mnp.stack([x[:, :, p : p + rows, q : q + columns] for p in range(h) for q in range(w)], 2)
        return mnp.matmul(k.reshape(o, -1), windows.reshape(n, c * h * w, -1)).reshape(n, o, rows, columns)

    if not gradients:
        return lambda: lab.ops.wait(product(images, weights))
    dy = lab.asarray(np.ones((n, o, rows, columns), "float32"))
    return lambda: [lab.ops.wait(each) for each in lab.ops.vjp(product, (images, weights), dy)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backends", type=names, default=[*FRAMEWORKS])
    parser.add_argument("--seconds", type=float, default=0.3, help="for each figure")
    arguments = parser.parse_args()
    rows = [row for name in arguments.backends for row in ([name, "jax.jit"] if name == "jax" else [name])]
    table = markdown_table("", *rows, title="Times beside the framework's own convolution")
    rng = np.random.default_rng(0)
    for title, *shapes, gradients in CASES:
        x, k = (rng.standard_normal(shape).astype("float32") for shape in shapes)
        cells = []
        for row in rows:
            runs = {"convlab": ours(row, x, k, gradients), "": own(row, x, k, gradients)}
            if row == "mxnet":
                runs["matrix "] = matrix(x, k, gradients)
            times = interleaved(runs, arguments.seconds)
            mine = times.pop("convlab")
            figures = []
            for other, seconds in times.items():
                extra = f" ({1e6 * (mine - seconds):+.1f} us)" if title.startswith("tiny") else ""
                figures.append(f"{other}{coloured(mine / seconds)}{extra}")
            cells.append(", ".join(figures))
        table.add_row(title, *cells)
    console.print(table)


if __name__ == "__main__":
    main()
