"""What `reproducible=True` costs beside the framework's own convolution: ratios from interleaved runs.

    python benchmarks/reproducible.py [--backends torch,jax] [--seconds 0.5]

Above 1 the reproducible one is slower. JAX is compiled by `jax.jit` with gradients and all; "TensorFlow XLA" by
`tf.function(jit_compile=True)`; the others are eager. The last column is how long the first call took, compilation
included, in seconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from native import compare, natives, wait
from rich.console import Console
from rich.table import Table

import convlab

# name, X, K
CASES = [
    ("256x256, 5x5", (1, 1, 256, 256), (1, 1, 5, 5)),
    ("1024x1024, 7x7", (1, 1, 1024, 1024), (1, 1, 7, 7)),
    ("256x256, 31x31", (1, 1, 256, 256), (1, 1, 31, 31)),
    ("8x16x32x32, 32 of 3x3", (8, 16, 32, 32), (32, 16, 3, 3)),
    ("8x32x56x56, 64 of 3x3", (8, 32, 56, 56), (64, 32, 3, 3)),
]
VARIANTS = {"torch": "torch", "jax": "jax", "tensorflow": "tensorflow", "xla": "tensorflow", "mxnet": "mxnet"}


def compiled(variant: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as users of this variant would run it."""
    if variant == "jax":
        import jax

        return jax.jit(function)
    if variant == "xla":
        import tensorflow as tf

        return tf.function(function, jit_compile=True, autograph=False)
    return function


def runs(variant: str, name: str, x: Any, k: Any, dy: Any) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """For forward and for the gradients: the reproducible computation, and the framework's own."""
    lab = convlab.backend(name)
    own = natives(name)["own"]
    ours = lambda x, k: lab.corr2d(x, k, reproducible=True)  # noqa: E731
    slope = lambda f: compiled(variant, lambda x, k, dy: lab.ops.vjp(f, (x, k), dy))  # noqa: E731
    forward, native = compiled(variant, ours), compiled(variant, own)
    backward, native_backward = slope(ours), slope(own)
    return {
        "result": (lambda: forward(x, k), lambda: native(x, k)),
        "gradients": (lambda: backward(x, k, dy), lambda: native_backward(x, k, dy)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backends", default=",".join(VARIANTS))
    parser.add_argument("--seconds", type=float, default=0.5, help="for each comparison")
    arguments = parser.parse_args()
    console, rng = Console(), np.random.default_rng(0)
    table = Table("reproducible / native", "of what", *arguments.backends.split(","))
    first: dict[str, float] = {}
    for title, shape, kernel in CASES:
        rows: dict[str, list[str]] = {"result": [], "gradients": []}
        for variant in arguments.backends.split(","):
            lab = convlab.backend(VARIANTS[variant])
            arrays = (
                rng.standard_normal(s).astype("float32") for s in (shape, kernel, convlab.output_shape(shape, kernel))
            )
            for what, (ours, other) in runs(variant, lab.name, *map(lab.asarray, arrays)).items():
                start = time.perf_counter()
                y = ours()
                wait(lab.name, y)
                first[variant] = max(first.get(variant, 0.0), time.perf_counter() - start)
                rows[what].append(f"{compare(lab.name, ours, other, arguments.seconds)[0]:.2f}")
        for what, cells in rows.items():
            table.add_row(title, what, *cells)
    table.add_row("longest first call, s", "", *(f"{first[variant]:.1f}" for variant in first))
    console.print(table)


if __name__ == "__main__":
    main()
