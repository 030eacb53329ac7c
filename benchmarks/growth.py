"""How convlab's time grows with the pixels, the taps and the threads: exponents and speed-ups, algorithm by algorithm.

    python benchmarks/growth.py [--backend torch] [--plot growth.png]

The kernel is of rank 1, so that "separable" can compute it too. Exponents are slopes on log axes: the time grows like
the pixels (of images from 256x256 up, 7x7) or the taps (of a 1024x1024 image) to that power. Speed-ups are the time
with one thread over that with more (CONVLAB_NUM_THREADS), from processes that take turns, on a 1024x1024 image.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import timing
from rich.progress import track

import convlab

ALGORITHMS = ("host", "fft", "separable", "taps", "native")
SIZES, KERNELS = [64, 128, 256, 512, 1024, 2048, 4096], [3, 5, 7, 11, 15, 23, 31, 47, 63]
THREADED = ("host", "fft", "separable")  # the others' threads are the framework's
Times = dict[str, float]


def times(backend: str, size: int, kernel: int, algorithms: tuple[str, ...], seconds: float, patience: float) -> Times:
    """The median time of each algorithm that can compute this, in turns."""
    rng = np.random.default_rng(0)
    x, u = rng.standard_normal((size, size)).astype("float32"), rng.standard_normal(kernel).astype("float32")
    k = np.multiply.outer(u, u)
    result, runs = size - kernel + 1, {}
    shares = [share for share in (1 / 64,) if result >= 512]
    for algorithm in algorithms:

        def prepare(share: float, algorithm: str = algorithm) -> timing.Run:
            n = round(result * share**0.5) + kernel - 1
            return timing.ours(backend, np.ascontiguousarray(x[:n, :n]), k, algorithm=algorithm)

        try:
            found = timing.affordable(prepare, shares, patience)
        except convlab.errors.UnsupportedError:
            continue
        if not isinstance(found, float):
            runs[algorithm] = found
    return timing.interleaved(runs, seconds)


def by_threads(counts: list[int], options: argparse.Namespace) -> dict[int, Times]:
    """The median times with so many threads, each from three processes; the counts take turns."""
    found: dict[int, dict[str, list[float]]] = {count: defaultdict(list) for count in counts}
    command = [sys.executable, __file__, "--backend", options.backend, "--seconds", str(options.seconds), "--worker"]
    for count in track(counts * 3, "threads", console=timing.progress, transient=True):
        environment = os.environ | {"CONVLAB_NUM_THREADS": str(count)}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        for algorithm, seconds in json.loads(done.stdout.splitlines()[-1]).items():
            found[count][algorithm].append(seconds)
    return {count: {algorithm: statistics.median(each) for algorithm, each in found[count].items()} for count in counts}


def exponent(curve: dict[int, Times], algorithm: str, least: int) -> str:
    """The power of a size's square that the time grows like, from a size on."""
    points = [(n, each[algorithm]) for n, each in curve.items() if n >= least and algorithm in each]
    if len(points) < 2:
        return "–"
    sizes, seconds = np.log(points).T
    return f"{np.polyfit(2 * sizes, seconds, 1)[0]:.2f}"


def plot(curves: dict[str, dict[int, Times]], title: str, path: Path) -> None:
    """Three panels on log axes, times relative to the fastest point."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(curves), figsize=(4.5 * len(curves), 4.2), layout="constrained")
    for axis, (label, curve) in zip(axes, curves.items(), strict=True):
        unit = min(seconds for each in curve.values() for seconds in each.values())
        for colour, algorithm in enumerate(ALGORITHMS):
            points = [(n, each[algorithm] / unit) for n, each in curve.items() if algorithm in each]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", label=algorithm, color=f"C{colour}")
        axis.set(xlabel=label, ylabel="time / the fastest point", xscale="log", yscale="log")
        axis.set_xticks([*curve], map(str, curve))
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    doubled = [2**i for i in range(processors.bit_length()) if 2**i < processors]
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--sizes", type=timing.integers, default=SIZES, help="of the image")
    parser.add_argument("--kernels", type=timing.integers, default=KERNELS, help="sizes of the kernel")
    parser.add_argument("--threads", type=timing.integers, default=[*doubled, processors])
    parser.add_argument("--seconds", type=float, default=0.3, help="for each point")
    parser.add_argument("--patience", type=float, default=3.0, help="seconds beyond which a point is left out")
    parser.add_argument("--plot", type=Path, help="where to draw them: a PNG or an SVG")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    budget = options.seconds, options.patience
    if options.worker:
        print(json.dumps(times(options.backend, 1024, 15, THREADED, *budget)))
        return

    cases = [(size, 7) for size in options.sizes] + [(1024, kernel) for kernel in options.kernels]
    tracked = track(dict.fromkeys(cases), "points", console=timing.progress, transient=True)
    points = {case: times(options.backend, *case, ALGORITHMS, *budget) for case in tracked}
    pixels = {size: points[size, 7] for size in options.sizes}
    taps = {kernel: points[1024, kernel] for kernel in options.kernels}
    threads = by_threads(options.threads, options)

    first, *more = options.threads
    table = timing.markdown_table(
        "algorithm", "pixels^", "taps^", *(f"{count} threads" for count in more), title=options.backend
    )
    for algorithm in ALGORITHMS:
        speedups = (
            f"{threads[first][algorithm] / threads[count][algorithm]:.2f}x" if algorithm in threads[first] else "–"
            for count in more
        )
        table.add_row(algorithm, exponent(pixels, algorithm, 256), exponent(taps, algorithm, 0), *speedups)
    timing.console.print(table)
    if options.plot:
        curves = {
            "image, n x n (7x7)": pixels,
            "kernel, k x k (1024x1024)": taps,
            "threads (1024x1024, 15x15)": threads,
        }
        plot(curves, f"How convlab's time grows on {options.backend}", options.plot)


if __name__ == "__main__":
    main()
