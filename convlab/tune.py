"""Measuring what each way to compute costs on this machine: `convlab tune`.

For each way a few problems are timed, and the three constants of `convlab.planner` fitted to them, relative errors
squared, none below zero.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from . import planned
from .geometry import Geometry
from .lab import Backend
from .planner import ON_HOST, WAYS, Plan, Problem, unavailable, unfit, work
from .rules import Rule
from .wisdom import Constants

# (N, C, H, W), output channels, groups, kernel rows and columns; from small to large.
_SIZES = ((12, 3), (64, 3), (256, 7), (256, 31), (512, 15), (1024, 3), (1024, 31))
_DEPTHWISE = ((64, 14, 3), (384, 14, 7), (96, 56, 3), (96, 56, 7), (32, 56, 31))
_PROBLEMS = {
    "single": [((1, 1, size, size), 1, 1, k) for size, k in _SIZES],
    "depthwise": [((1, c, size, size), c, c, k) for c, size, k in _DEPTHWISE],
    "dense": [((1, c, size, size), c, 1, k) for c, size, k in ((4, 32, 11), (8, 48, 13), (8, 64, 21))],
}
_SHOWN_IMAGES, _SHOWN_KERNELS = (64, 256, 1024, 4096), (3, 5, 7, 15, 31, 63)
_LONGEST = 0.06  # seconds that one run may take


class Measurement(NamedTuple):
    """One way on one problem, and the seconds it took."""

    way: str
    problem: Problem
    seconds: float


class Task(NamedTuple):
    """All problems of one way, part and kind, to be timed one after another."""

    way: str
    part: str
    kind: str

    def __str__(self) -> str:
        return " ".join(self)


def tasks(lab: Backend) -> list[Task]:
    """What there is to measure on a backend."""
    ways = dict.fromkeys(way for ways in WAYS.values() for way in ways)
    found = []
    for way in ways:
        if unavailable(way, lab.adapter.algorithms, "eager"):
            continue
        for kind, problems in _PROBLEMS.items():
            if way == "matmul" or (way, kind) == ("taps", "dense"):  # which never win; they can be asked for
                continue
            parts = "yk" if way != "native" else "yxk" if lab.adapter.autograd else "y"
            found += [Task(way, part, kind) for part in parts if not unfit(way, _problem(part, *problems[0])[0])]
    return found


def measure(lab: Backend, task: Task) -> Iterator[Measurement]:
    """Time a task's problems, up to the first that takes too long."""
    for each in _PROBLEMS[task.kind]:
        problem, rule, first, second = _problem(task.part, *each)
        if unfit(task.way, problem):
            return
        rng = np.random.default_rng(0)
        arrays = [rng.standard_normal(shape).astype(np.float32) for shape in (first, second)]
        if task.way.startswith("separable"):
            arrays[1] = arrays[1][:, :, :, :1] * arrays[1][:, :, :1, :]
        a, b = map(lab.asarray, arrays)
        seconds = _seconds(_runner(lab, task.way, rule, a, b), a, b)
        yield Measurement(task.way, problem, seconds)
        if seconds > _LONGEST:
            return


def fit(measurements: list[Measurement]) -> Constants:
    """The constants that predict measurements of one way best."""
    from scipy.optimize import nnls

    rows = []
    for way, problem, seconds in measurements:
        if way != "native":
            problem = problem.forward()
        rows.append(np.array([1.0, problem.pixels, work(way, problem)]) / seconds)
    scale = np.max(np.abs(rows), axis=0)
    solution, _ = nnls(np.array(rows) / scale, np.ones(len(rows)))
    fixed, pixel, each = solution / scale
    return float(fixed), float(pixel), float(each)


def _problem(part: str, image: tuple[int, ...], outputs: int, groups: int, k: int) -> tuple[Problem, Rule, Any, Any]:
    kernel = outputs, image[1] // groups, k, k
    rule = Rule("y", Geometry((k, k), groups=groups), algorithm="auto")
    shapes: tuple[Any, Any] = (image, kernel)
    if part != "y":
        derived, *sources = rule.derivatives(image)["xk".index(part)]
        result = rule.output_shape(*shapes)
        shapes = tuple(result if source is None else shapes[source] for source in sources)  # type: ignore[assignment]
        rule = derived
    return Problem.of(rule, *shapes, "float32"), rule, *shapes


def _runner(lab: Backend, way: str, rule: Rule, a: Any, b: Any) -> Callable[[Any, Any], Any]:
    """What computes a rule in one way, as a call of corr2d or of its gradient would."""
    ops = lab.ops
    groups = rule.geometry.groups
    if rule.part == "y" and way in ("native", "host"):  # for tiny images the call itself counts
        if groups == ops.sizes(a)[1] == ops.sizes(b)[0] == 1:  # as an image, in any layout
            x, k = (ops.reshape(each, ops.sizes(each)[2:]) for each in (a, b))
            return lambda a, b: ops.wait(lab.corr2d(x, k, algorithm=way))  # type: ignore[arg-type]
        return lambda a, b: ops.wait(lab.corr2d(a, b, groups=groups, algorithm=way))  # type: ignore[arg-type]
    made = Plan(way, {}, {}, way if way.startswith("separable") else "")

    def compute(a: Any, b: Any) -> Any:
        return planned.run(ops, rule, a, b, made)

    compiled = way not in ON_HOST and (ops.jitted or way != "native")
    function = ops.compiled(compute) if compiled else compute
    return lambda a, b: ops.wait(function(a, b))


def _seconds(run: Callable[[Any, Any], Any], a: Any, b: Any) -> float:
    """The median time of one run."""
    run(a, b)
    start = time.perf_counter()
    run(a, b)
    once = time.perf_counter() - start
    repeats = max(1, min(200, int(0.004 / once)))
    times = []
    for _ in range(2 if once > 0.03 else 5):
        start = time.perf_counter()
        for _ in range(repeats):
            run(a, b)
        times.append((time.perf_counter() - start) / repeats)
    return statistics.median(times)


def winners(lab: Backend) -> Table:
    """Who wins where: the planned algorithm and its predicted milliseconds for square one-channel images."""
    table = Table(
        "image",
        *(f"{k}x{k}" for k in _SHOWN_KERNELS),
        title=f"{lab.name}: the fastest way, predicted ms",
        title_justify="left",
    )
    for n in _SHOWN_IMAGES:
        cells = []
        for k in _SHOWN_KERNELS:
            problem, rule, first, second = _problem("y", (1, 1, n, n), 1, 1, k)
            made = planned.plan_for(lab.ops, rule, first, second, problem.dtype, "eager")
            cells.append(f"{made.way} {1e3 * made.costs[made.way]:.2g}")
        table.add_row(f"{n}²", *cells)
    return table
