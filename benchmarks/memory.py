"""How much memory convlab takes beside the framework's own convolution: ratios of peaks.

    python benchmarks/memory.py [--backends torch,jax] [--sizes 1024,2048]

Each figure is from a process of its own, which computes first on a small image (with JAX on one as large), so that
libraries, threads and compiled kernels are there, and then on the large one: the peak of its resident memory, less what
it held before, less the result. A cell shows convlab's over the framework's, and both in images: how often X would fit
into them. Less than a tenth of an image, or than a megabyte, counts as that much. Needs Linux or macOS.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

import numpy as np
import timing
from rich.progress import track

SIZES, KERNELS = [1024, 2048, 4096], [7, 31]


def measure(row: str, who: str, size: int, kernel: int) -> int:
    """Bytes beyond X, K and the result, in this process."""
    rng = np.random.default_rng(0)
    k = rng.standard_normal((kernel, kernel)).astype("float32")

    def prepared(n: int) -> timing.Run:
        x = rng.standard_normal((n, n), "float32")
        return timing.ours(row, x, k) if who == "convlab" else timing.own(row, x[None, None], k[None, None])

    warm = prepared(size if timing.lab_of(row).ops.jitted else kernel + 200)  # JAX compiles for each size anew
    warm()
    warm()
    del warm
    run = prepared(size)
    return timing.peak_beyond(run) - 4 * (size - kernel + 1) ** 2


def images(row: str, who: str, size: int, kernel: int, patience: float) -> float | None:
    """`measure` in a fresh process, in images; None if it takes too long or dies."""
    command = [sys.executable, __file__, "--measure", row, who, str(size), str(kernel)]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**16)}  # glibc gives back at once what is freed
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=patience, env=environment)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        return None
    image = 4 * size**2
    return max(int(done.stdout.split()[-1]), image // 10, 2**20) / image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backends", type=timing.names, default=[*timing.FRAMEWORKS])
    parser.add_argument("--sizes", type=timing.integers, default=SIZES, help="of the image")
    parser.add_argument("--kernels", type=timing.integers, default=KERNELS, help="sizes of the kernel")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds that a process may take")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        row, who, size, kernel = options.measure
        print(measure(row, who, int(size), int(kernel)))
        return

    rows = [row for name in options.backends for row in ([name, "jax.jit"] if name == "jax" else [name])]
    cases = [(size, kernel) for size in options.sizes for kernel in options.kernels]
    table = timing.markdown_table("image, kernel", *rows, title="Memory: convlab / own (both in images)")
    for size, kernel in track(cases, "cells", console=timing.progress, transient=True):
        cells = []
        for row in rows:
            mine, theirs = (images(row, who, size, kernel, options.patience) for who in ("convlab", "own"))
            ratio = timing.coloured(mine / theirs) if mine and theirs else "–"
            each = " / ".join(timing.written(number) if number else "failed" for number in (mine, theirs))
            cells.append(f"{ratio} ({each})")
        table.add_row(f"{size}x{size}, {kernel}x{kernel}", *cells)
    timing.console.print(table)


if __name__ == "__main__":
    main()
