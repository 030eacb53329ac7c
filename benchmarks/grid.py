"""convlab beside everything else, for one image and one kernel of many sizes: ratios from interleaved runs.

    python benchmarks/grid.py [--gradients] [--backends numpy,torch] [--plot grid.png]

For each image size and kernel size three ratios of median times, above 1 where convlab is slower: beside the
framework's own convolution, beside the best of OpenCV's filter2D and SciPy, and beside the time that the products or
the memory traffic of the definition take at the speed of a matrix product and of a copy (the machine's limit), which
the FFT can beat. With `--gradients` it is the forward and backward pass with respect to both.

What would take longer than `--patience` isn't run, but estimated from a smaller image: such a ratio is marked "~".
"""

from __future__ import annotations

import argparse
import functools
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timing
from rich.progress import track
from rich.table import Table
from timing import Run

SIZES, KERNELS = [32, 256, 1024, 2048, 4096], [3, 5, 7, 15, 31, 63]
LARGE = 256  # images from here on count in the means
REFERENCES = {
    "own": "its own convolution",
    "best": "the best of OpenCV and SciPy",
    "roofline": "the machine's limit",
}


class Ratio(NamedTuple):
    """convlab's time over a reference's, in a cell of the grid."""

    row: str
    reference: str
    size: int
    kernel: int
    ratio: float
    estimated: bool


class Roofline(NamedTuple):
    """What the machine does in a second: floating-point operations, and bytes moved."""

    peak: float
    bandwidth: float

    @classmethod
    def measured(cls) -> Roofline:
        """From a product of float32 matrices and from a copy by all processors."""
        n, count = 2048, os.cpu_count() or 1
        a, b = np.ones((2, n, n), np.float32)
        source, target = np.ones((count, 2**25), np.float32), np.zeros((count, 2**25), np.float32)
        with ThreadPoolExecutor(count) as pool:
            copy = lambda: list(pool.map(np.copyto, target, source))  # noqa: E731
            times = timing.interleaved({"matmul": lambda: a @ b, "copy": copy}, 1.0)
        return cls(2 * n**3 / times["matmul"], 2 * source.nbytes / times["copy"])

    def seconds(self, size: int, kernel: int, gradients: bool) -> float:
        """The least time of a correlation by its definition; each gradient is as much work again."""
        pixels, passes = (size - kernel + 1) ** 2, 3 if gradients else 1
        return passes * max(2 * pixels * kernel**2 / self.peak, 4 * (size**2 + pixels) / self.bandwidth)


def others(kernel: int) -> dict[str, Callable[[np.ndarray, np.ndarray], Any]]:
    """The calls of OpenCV and SciPy."""
    import cv2
    from scipy import ndimage, signal

    found: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
        "cv2": lambda x, k: cv2.filter2D(x, -1, k),
        "fftconvolve": lambda x, k: signal.fftconvolve(x, k[::-1, ::-1], "valid"),
        "oaconvolve": lambda x, k: signal.oaconvolve(x, k[::-1, ::-1], "valid"),
    }
    if kernel <= 7:
        found["ndimage"] = ndimage.correlate
    return found


def contenders(rows: list[str], kernel: int, gradients: bool) -> dict[tuple[str, str], Callable[..., Run]]:
    """Who is timed in a cell: by row and name, what makes a run of an image and a kernel."""
    found: dict[tuple[str, str], Callable[..., Run]] = {}
    for row in rows:
        found[row, "convlab"] = functools.partial(timing.ours, row, gradients=gradients)
        if row != "numpy":
            found[row.partition(".")[0], "own"] = lambda x, k, row=row: timing.own(
                row, x[None, None], k[None, None], gradients
            )
    for name, function in {} if gradients else others(kernel).items():
        found["", name] = lambda x, k, function=function: functools.partial(function, x, k)
    return found


def ratios(rows: list[str], size: int, kernel: int, roofline: Roofline, options: argparse.Namespace) -> Iterator[Ratio]:
    """One cell, all rows in turns."""
    rng = np.random.default_rng(0)
    x, k = (rng.standard_normal((n, n)).astype("float32") for n in (size, kernel))
    result = size - kernel + 1
    shares = [share for share in (1 / 1024, 1 / 64) if result * math.sqrt(share) >= 64]

    runs, known = {}, {}
    for key, make in contenders(rows, kernel, options.gradients).items():

        def prepare(share: float, make: Callable[..., Run] = make) -> Run:
            n = round(result * math.sqrt(share)) + kernel - 1
            return make(np.ascontiguousarray(x[:n, :n]), k)

        found = timing.affordable(prepare, shares, options.patience)
        (known if isinstance(found, float) else runs)[key] = found
    times = timing.interleaved(runs, options.seconds) | known

    for row in rows:
        theirs = {
            "own": {key: times[key] for key in [(row.partition(".")[0], "own")] if key in times},
            "best": {key: seconds for key, seconds in times.items() if not key[0]},
            "roofline": {("", ""): roofline.seconds(size, kernel, options.gradients)},
        }
        for reference, each in theirs.items():
            if each:
                best = min(each, key=each.__getitem__)
                estimated = best in known or (row, "convlab") in known
                yield Ratio(row, reference, size, kernel, times[row, "convlab"] / each[best], estimated)


def cells_beside(reference: str, rows: list[str], ratios: list[Ratio], what: str) -> Table:
    """All cells beside one reference."""
    cells = {(each.size, each.row, each.kernel): each for each in ratios if each.reference == reference}
    kernels = sorted({kernel for _, _, kernel in cells})
    table = timing.markdown_table(
        "image", "", *(f"{k}x{k}" for k in kernels), title=f"Times beside {REFERENCES[reference]}, {what}"
    )
    for size in sorted({size for size, _, _ in cells}):
        for row in rows:
            line = [cells.get((size, row, k)) for k in kernels]
            if any(line):
                texts = (timing.coloured(each.ratio, each.estimated) if each else "" for each in line)
                table.add_row(f"{size}x{size}", row, *texts)
    return table


def summary(rows: list[str], ratios: list[Ratio], what: str) -> Table:
    """How many times faster each row is, as geometric means, and its worst cell."""
    own, best, limit = (f"than {name}" for name in REFERENCES.values())
    table = timing.markdown_table(
        "", own, best, "at least", "in", limit, title=f"How many times faster from {LARGE}x{LARGE} up, {what}"
    )
    for row in rows:
        cells = [each for each in ratios if each.row == row and each.size >= LARGE]
        if not cells:
            continue
        by_reference = {name: [each for each in cells if each.reference == name] for name in REFERENCES}
        means = {
            name: timing.written(1 / timing.mean([each.ratio for each in by_reference[name]])) for name in by_reference
        }
        worst = max(by_reference["best"] or by_reference["own"], key=lambda each: each.ratio)
        least = timing.written(1 / worst.ratio, worst.estimated)
        where = f"{worst.size}x{worst.size}, {worst.kernel}x{worst.kernel}"
        table.add_row(row, means["own"], means["best"], least, where, means["roofline"])
    return table


def plot(rows: list[str], found: list[Ratio], what: str, path: Path) -> None:
    """Heat maps: a line for each row, a column for each reference."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.colors import LogNorm

    sizes, kernels = sorted({each.size for each in found}), sorted({each.kernel for each in found})
    references = [reference for reference in REFERENCES if any(each.reference == reference for each in found)]
    shape = len(rows), len(references)
    figsize = 1.0 + 4.2 * shape[1], 1.0 + 2.4 * shape[0]
    figure, axes = plt.subplots(*shape, squeeze=False, figsize=figsize, layout="constrained")
    for (i, j), axis in np.ndenumerate(axes):
        cells = {(each.size, each.kernel): each for each in found if each[:2] == (rows[i], references[j])}
        if not cells:
            axis.axis("off")
            continue
        values = np.array([[cells[s, k].ratio if (s, k) in cells else math.nan for k in kernels] for s in sizes])
        shown = axis.imshow(values, cmap="RdYlGn_r", norm=LogNorm(1 / 32, 32), aspect="auto", origin="lower")
        for (s, k), each in cells.items():
            at, colour = (kernels.index(k), sizes.index(s)), "black" if 1 / 8 < each.ratio < 8 else "white"
            axis.text(*at, timing.written(each.ratio, each.estimated), color=colour, ha="center", va="center", size=8)
        axis.set_xticks(range(len(kernels)), [f"{k}x{k}" for k in kernels])
        axis.set_yticks(range(len(sizes)), map(str, sizes))
        axis.set_title(f"{rows[i]}: convlab / {references[j]}", fontsize=10)
    figure.suptitle(f"Ratios of times, {what}: green where convlab is faster")
    figure.colorbar(shown, ax=axes, shrink=0.6)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backends", type=timing.names, default=["numpy", *timing.FRAMEWORKS])
    parser.add_argument("--sizes", type=timing.integers, default=SIZES, help="of the image")
    parser.add_argument("--kernels", type=timing.integers, default=KERNELS, help="sizes of the kernel")
    parser.add_argument("--gradients", action="store_true", help="forward and backward; not on NumPy")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each contender in a cell")
    parser.add_argument("--patience", type=float, default=3.0, help="seconds beyond which a run is estimated")
    parser.add_argument("--plot", type=Path, help="where to draw heat maps: a PNG or an SVG")
    options = parser.parse_args()

    what = "forward and backward" if options.gradients else "forward"
    names = [name for name in options.backends if not (options.gradients and name == "numpy")]
    rows = [row for name in names for row in ([name, "jax.jit"] if name == "jax" else [name])]
    for row in rows:
        timing.lab_of(row)
    roofline = Roofline.measured()
    grid = [(size, kernel) for size in options.sizes for kernel in options.kernels if kernel <= size]
    cells = track(grid, "cells", console=timing.progress, transient=True)
    found = [ratio for size, kernel in cells for ratio in ratios(rows, size, kernel, roofline, options)]
    for reference in REFERENCES:
        timing.console.print(cells_beside(reference, rows, found, what))
    timing.console.print(summary(rows, found, what))
    if options.plot:
        plot(rows, found, what, options.plot)


if __name__ == "__main__":
    main()
