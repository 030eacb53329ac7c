"""convlab beside dask-image on the same Dask array: ratios of times from interleaved runs, and of peaks of memory.

    python benchmarks/beside_dask_image.py [--size 8192] [--chunk 1024] [--seconds 5]

Both filter chunk by chunk, to a sum, so that neither keeps a result; a ratio below 1 means that convlab takes less. The
peaks are from processes of their own, less what the image and the libraries take. Needs `pip install dask-image`.
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import timing

import convlab

KERNELS = {
    "random 3x3": lambda: np.random.default_rng(1).standard_normal((3, 3)),
    "random 7x7": lambda: np.random.default_rng(1).standard_normal((7, 7)),
    "random 31x31": lambda: np.random.default_rng(1).standard_normal((31, 31)),
    "gaussian 2": lambda: convlab.filters.gaussian_blur(2.0),
    "gaussian 8": lambda: convlab.filters.gaussian_blur(8.0),
}


def filtered(who: str, name: str, x: da.Array) -> da.Array:
    """A Dask array filtered by convlab or by dask-image, lazily."""
    kernel = KERNELS[name]().astype("float32")
    if who == "convlab":
        return convlab.corr2d(x, kernel, padding="same", padding_mode="reflect")
    from dask_image import ndfilters

    if name.startswith("gaussian"):
        sigma = float(name.split()[1])
        return ndfilters.gaussian_filter(x, sigma, mode="mirror", truncate=(kernel.shape[0] // 2) / sigma)
    return ndfilters.correlate(x, kernel, mode="mirror")


def total(who: str, name: str, x: da.Array) -> Callable[[], Any]:
    """A run that computes every chunk and keeps none."""
    return functools.partial(filtered(who, name, x).sum().compute, scheduler="threads")


def image(size: int, chunk: int) -> da.Array:
    pixels = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    return da.from_array(pixels, chunks=chunk)


def difference(name: str, x: da.Array) -> float:
    """The largest difference of the two results on a corner of the image."""
    corner = x[:200, :300].rechunk(100)
    ours, theirs = (filtered(who, name, corner).compute() for who in ("convlab", "dask-image"))
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def measure(who: str, name: str, size: int, chunk: int) -> int:
    """Bytes beyond the image and the libraries, in this process."""
    x = image(size, chunk)
    total(who, name, x[:chunk, :chunk])()
    run = total(who, name, x)
    return timing.peak_beyond(run)


def memory(who: str, name: str, size: int, chunk: int) -> int:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--measure", who, name, str(size), str(chunk)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**16)}
    )
    return max(int(done.stdout.split()[-1]), 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=8192, help="rows and columns of the image")
    parser.add_argument("--chunk", type=int, default=1024, help="rows and columns of a chunk")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each filter of each library")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        who, name, size, chunk = options.measure
        print(measure(who, name, int(size), int(chunk)))
        return
    x = image(options.size, options.chunk)
    table = timing.markdown_table(
        "filter", "time", "seconds", "memory", "MB", "difference", title="convlab / dask-image"
    )
    for name in KERNELS:
        runs = {who: total(who, name, x) for who in ("convlab", "dask-image")}
        seconds = timing.interleaved(runs, options.seconds, rounds=3)
        peaks = {who: memory(who, name, options.size, options.chunk) for who in runs}
        ours, theirs = seconds.values()
        mine, other = peaks.values()
        table.add_row(
            name,
            timing.coloured(ours / theirs),
            f"{ours:.3g} / {theirs:.3g}",
            timing.coloured(mine / other),
            f"{mine / 1e6:.0f} / {other / 1e6:.0f}",
            f"{difference(name, x):.1e}",
        )
    timing.console.print(table)


if __name__ == "__main__":
    main()
