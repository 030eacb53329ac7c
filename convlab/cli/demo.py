"""`convlab demo`: the chapter on every backend, side by side, ending in a verdict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from .. import chapter
from ..atomic import whole
from ..compiled.kernels import compile_ahead
from ..compiled.tiling import numba_installed
from ..errors import BackendBroken, BackendNotInstalled
from ..lab import Backend, backend
from ..learning.run import LearnedKernel
from ..registry import adapters
from ..testing import descent, error_bound, gradient_bounds, gradients, oracle_gradients, worst_ratio
from ..truth.oracle import oracle
from .quiet import quiet
from .screen import busy, print_line, print_table

LR, STEPS, INIT = 3e-2, 10, np.array([[0.05, -0.05]], np.float32)


def run_demo(console: Console, names: list[str] | None, plot: Path | None) -> bool:
    """Print the demo; True if every result agrees. With names, a backend that doesn't load is an error."""
    labs = load_backends(console, names)
    if numba_installed():
        with busy(console, "compiling for this processor, which takes half a minute once"):
            compile_ahead()
    X = chapter.edge_image()
    Y = oracle(X, chapter.EDGE_KERNEL).astype(np.float32)
    _show_chapter(console, labs, X)
    learned = {
        lab.name: lab.learn_kernel(lab.asarray(X), lab.asarray(Y), (1, 2), init=INIT, lr=LR, num_steps=STEPS)
        for lab in labs
    }
    _show_learning(console, labs, learned)
    agreed = _show_verdict(console, labs, learned, X, Y)
    if plot is not None:
        draw_picture(plot, learned, X)
        print_line(console, f"picture: {plot}")
    return agreed


def load_backends(console: Console, names: list[str] | None) -> list[Backend]:
    """Load the named backends; without names load all, and print a line for each that doesn't load."""
    if names is not None:
        with quiet():
            return [backend(name) for name in names]
    labs = []
    for name in sorted(adapters(), key=lambda name: name != "numpy"):
        try:
            with busy(console, f"loading {name}"), quiet():
                labs.append(backend(name))
        except (BackendNotInstalled, BackendBroken) as error:
            print_line(console, f"left out: {error}", "dim")
    return labs


def _show_chapter(console: Console, labs: list[Backend], X: np.ndarray) -> None:
    small, K = np.arange(9, dtype=np.float32).reshape(3, 3), np.arange(4, dtype=np.float32).reshape(2, 2)
    columns: dict[str, Callable[[Backend], Any]] = {
        "corr2d": lambda lab: lab.corr2d(lab.asarray(small), lab.asarray(K)),
        "conv2d": lambda lab: lab.conv2d(lab.asarray(small), lab.asarray(K)),
        "edges, first row": lambda lab: lab.corr2d(lab.asarray(X), chapter.EDGE_KERNEL)[0],
        "edges, transposed": lambda lab: lab.corr2d(lab.asarray(X.T), chapter.EDGE_KERNEL)[0],
    }
    rows = [[lab.name, *(_numbers(lab.to_numpy(compute(lab))) for compute in columns.values())] for lab in labs]
    print_table(console, ["the chapter", *columns], rows)


def _numbers(array: np.ndarray) -> str:
    return "\n".join(" ".join(f"{value:g}" for value in row) for row in np.atleast_2d(array))


def _show_learning(console: Console, labs: list[Backend], learned: dict[str, LearnedKernel]) -> None:
    epochs = range(1, STEPS, 2)
    rows = [
        [
            lab.name,
            *(f"{learned[lab.name].losses[step]:.3f}" for step in epochs),
            " ".join(f"{weight:.4f}" for weight in lab.to_numpy(learned[lab.name].kernel)[0]),
        ]
        for lab in labs
    ]
    # The head tells once that the numbers are losses.
    head = ["learning [1, -1]", *(f"{'loss ' if step == 1 else ''}{step + 1}" for step in epochs), "kernel"]
    print_table(console, head, rows)


def _show_verdict(
    console: Console, labs: list[Backend], learned: dict[str, LearnedKernel], X: np.ndarray, Y: np.ndarray
) -> bool:
    """A table: whether the backends' bits are equal, and the largest error as a multiple of what rounding allows."""
    rng = np.random.default_rng(0)
    image, kernel = (rng.standard_normal(shape).astype(np.float32) for shape in ((64, 64), (5, 5)))
    dy = rng.standard_normal((60, 60)).astype(np.float32)
    differentiable = [lab for lab in labs if lab.adapter.autograd]
    slopes = {lab.name: gradients(lab, image, kernel, np.zeros(1, np.float32), dy) for lab in differentiable}
    path = descent(X, Y, INIT, lr=LR, num_steps=STEPS)
    result = oracle(image, kernel)
    rows: list[tuple[str, dict[str, np.ndarray], np.ndarray, Any]] = [
        ("edges in the chapter's image", _all(labs, X, chapter.EDGE_KERNEL), oracle(X, chapter.EDGE_KERNEL), 0.0),
        ("random 64x64 image, 5x5 kernel", _all(labs, image, kernel), result, error_bound(image, kernel)),
    ]
    truth, bounds = oracle_gradients(image, kernel, dy), gradient_bounds(image, kernel, dy, "float32")
    for index, name in enumerate(("image", "kernel", "bias")):
        results = {key: slope[index] for key, slope in slopes.items()}
        rows.append((f"its gradient for the {name}", results, truth[index], bounds[index]))
    same = _all(labs, image, kernel, reproducible=True)
    tight = error_bound(image, kernel, algorithm="reproducible")
    rows.append(("that image with reproducible=True", same, result, tight))
    kernels = {lab.name: lab.to_numpy(learned[lab.name].kernel) for lab in labs}
    rows.append((f"kernel learned in {STEPS} steps", kernels, path.kernel, path.kernel_bound))
    lines, agreed = [], True
    for name, results, true, bound in rows:
        if not results:
            continue
        worst = max(worst_ratio(value, true, bound) for value in results.values())
        equal = len({value.tobytes() for value in results.values()}) == 1
        agreed &= worst <= 1
        verdict = "[green]agree[/]" if worst <= 1 else "[bold red]differ[/]"
        lines.append([name, "[green]identical[/]" if equal else "not all equal", f"{worst:.3f}", verdict])
    print_table(console, ["verdict", "bits", "error / allowed", ""], lines)
    return agreed


def _all(labs: list[Backend], X: np.ndarray, K: np.ndarray, **options: Any) -> dict[str, np.ndarray]:
    return {lab.name: lab.to_numpy(lab.corr2d(lab.asarray(X), lab.asarray(K), **options)) for lab in labs}


def draw_picture(path: Path, learned: dict[str, LearnedKernel], X: np.ndarray) -> None:
    """Image, kernel, feature map and the backends' loss curves in one picture."""
    from matplotlib.figure import Figure

    from ..plot import feature_maps, kernels, losses

    figure = Figure(figsize=(11, 5.6), layout="constrained")
    panels = figure.subplot_mosaic("ABC;DDD", height_ratios=(1, 1.1))
    feature_maps(X, cmap="gray", ax=panels["A"]).set_title("image")
    kernels(chapter.EDGE_KERNEL, ax=panels["B"]).set_title("kernel")
    feature_maps(oracle(X, chapter.EDGE_KERNEL), ax=panels["C"]).set_title("feature map")
    losses(learned, ax=panels["D"]).set_title("learning the kernel by gradient descent")
    with whole(path) as part:
        figure.savefig(part)
