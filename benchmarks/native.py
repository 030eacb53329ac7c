"""What convlab's `corr2d` costs beside the same call written by hand: ratios from interleaved runs.

    python benchmarks/native.py [--backends torch,jax] [--seconds 0.3]

For each case, convlab and the framework's own convolution (and, on MXNet, the matrix form) take turns; the figure
is the median of the ratios convlab / other, so that above 1 convlab is slower. "tiny" shows the cost of dispatch, also
in microseconds.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.console import Console
from rich.table import Table

import convlab

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


def natives(name: str) -> dict[str, Callable[..., Any]]:
    """The framework's own convolution of NCHW tensors, as its users write it."""
    if name == "torch":
        import torch

        return {"own": torch.nn.functional.conv2d}
    if name == "jax":
        import jax

        return {"own": jax.jit(lambda x, k: jax.lax.conv(x, k, (1, 1), "VALID"))}
    if name == "tensorflow":
        import tensorflow as tf

        def own(x: Any, k: Any) -> Any:
            x, k = tf.transpose(x, (0, 2, 3, 1)), tf.transpose(k, (2, 3, 1, 0))
            return tf.transpose(tf.nn.conv2d(x, k, 1, "VALID"), (0, 3, 1, 2))

        return {"own": own}
    from mxnet import np as mnp
    from mxnet import npx

    def convolution(x: Any, k: Any) -> Any:
        return npx.convolution(x, k, kernel=k.shape[2:], num_filter=k.shape[0], no_bias=True)

    def matrix(x: Any, k: Any) -> Any:
        (n, c, height, width), (o, _, h, w) = x.shape, k.shape
        rows, columns = height - h + 1, width - w + 1
        windows = mnp.stack([x[:, :, p : p + rows, q : q + columns] for p in range(h) for q in range(w)], 2)
        return mnp.matmul(k.reshape(o, -1), windows.reshape(n, c * h * w, -1)).reshape(n, o, rows, columns)

    return {"own": convolution, "matrix": matrix}


def wait(name: str, y: Any) -> None:
    """Until the result is there."""
    if name == "jax":
        import jax

        jax.block_until_ready(y)
    elif name == "mxnet":
        import mxnet

        mxnet.npx.waitall()


def timed(name: str, run: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        y = run()
    wait(name, y)
    return (time.perf_counter() - start) / repeats


def compare(name: str, ours: Callable[[], Any], other: Callable[[], Any], seconds: float) -> tuple[float, float]:
    """The median ratio and the median difference in seconds, over pairs of interleaved batches."""
    for run in (ours, other):
        timed(name, run, 2)
    once = timed(name, ours, 1) + timed(name, other, 1)
    repeats = max(1, int(seconds / 10 / once))
    pairs = [(timed(name, ours, repeats), timed(name, other, repeats)) for _ in range(9 if once < seconds else 3)]
    ratio = statistics.median(mine / theirs for mine, theirs in pairs)
    return ratio, statistics.median(mine - theirs for mine, theirs in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    installed = [name for name in ("torch", "jax", "tensorflow", "mxnet") if importlib.util.find_spec(name)]
    parser.add_argument("--backends", default=",".join(installed))
    parser.add_argument("--seconds", type=float, default=0.3, help="for each comparison")
    arguments = parser.parse_args()
    table = Table("convlab / the framework's own", *arguments.backends.split(","))
    rng = np.random.default_rng(0)
    for title, shape, kernel, with_gradients in CASES:
        cells = []
        for name in arguments.backends.split(","):
            lab = convlab.backend(name)
            x, k = (lab.asarray(rng.standard_normal(s).astype("float32")) for s in (shape, kernel))
            ours = lab.corr2d
            if name == "jax":
                import jax

                ours = jax.jit(convlab.corr2d)
            figures = []
            for label, other in natives(name).items():
                runs = [lambda f=f: f(x, k) for f in (ours, other)]  # noqa: B023
                if with_gradients:
                    dy = lab.asarray(np.ones(convlab.output_shape(shape, kernel), "float32"))
                    runs = [lambda f=f: lab.ops.vjp(f, (x, k), dy) for f in (ours, other)]  # noqa: B023
                ratio, difference = compare(name, *runs, arguments.seconds)
                extra = f" (+{difference * 1e6:.1f} us)" if title.startswith("tiny") else ""
                figures.append(f"{'' if label == 'own' else label + ' '}{ratio:.2f}{extra}")
            cells.append(", ".join(figures))
        table.add_row(title, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
