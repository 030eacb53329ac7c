"""Measuring what each variant costs on this machine.

A few workloads of each variant are timed, and the three constants of `convlab.planning.choose` are fitted to them:
non-negative least squares of the relative errors.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..contract.call import Call, Variant
from ..contract.framework import Framework
from ..contract.rule import Part, Rule
from ..geometry.geometry import Geometry
from ..planning.choose import VARIANTS, ChannelKind, Choice, Workload, predicted, unavailable, unfit, work
from ..planning.costs import table
from ..planning.execute import compute_chosen
from ..planning.on_need import Constants, Table
from .repeated import prepared

# The sides of square images and kernels, from small to large; for `_DEPTHWISE`, with the number of channels first.
_SIZES = ((12, 3), (64, 3), (256, 7), (256, 31), (512, 15), (1024, 3), (1024, 31))
_DEPTHWISE = ((64, 14, 3), (384, 14, 7), (96, 56, 3), (96, 56, 7), (32, 56, 31))
# Each workload is an image (N, C, H, W), the output channels, the groups, and the side of the kernel.
_WORKLOADS: dict[ChannelKind, list[Any]] = {
    "single": [((1, 1, size, size), 1, 1, k) for size, k in _SIZES],
    "depthwise": [((1, c, size, size), c, c, k) for c, size, k in _DEPTHWISE],
    "dense": [((1, c, size, size), c, 1, k) for c, size, k in ((4, 32, 11), (8, 48, 13), (8, 64, 21))],
}
# One run may take so many seconds.
_LONGEST = 0.06
# The seconds that a quick table takes.
_QUICK = 5.0


class Measurement(NamedTuple):
    """One variant on one workload, and the seconds it took."""

    variant: Variant
    workload: Workload
    seconds: float


class Task(NamedTuple):
    """All workloads of one variant, part and kind, to be timed one after another."""

    variant: Variant
    part: Part
    kind: ChannelKind

    def __str__(self) -> str:
        return " ".join(self)


def tasks(lab: Framework) -> list[Task]:
    """All tasks to be timed on a backend."""
    wanted = dict.fromkeys(variant for variants in VARIANTS.values() for variant in variants)
    return [task for variant in wanted for task in _tasks_of(lab, variant)]


def _tasks_of(lab: Framework, variant: Variant) -> Iterator[Task]:
    if unavailable(variant, lab.adapter.algorithms, "eager"):
        return
    parts: list[Part] = ["y", "k"]
    if variant is Variant.NATIVE:
        parts = ["y", "x", "k"] if lab.adapter.autograd else ["y"]
    for kind, workloads in _WORKLOADS.items():
        # These variants never win.
        if variant is Variant.TAPS and kind == "dense":
            continue
        yield from (
            Task(variant, part, kind) for part in parts if not unfit(variant, square_workload(part, *workloads[0])[0])
        )


def time_task(lab: Framework, task: Task) -> Iterator[Measurement]:
    """Time a task's workloads, up to the first that takes too long."""
    for image, outputs, groups, side in _WORKLOADS[task.kind]:
        workload, rule, first, second = square_workload(task.part, image, outputs, groups, side)
        if unfit(task.variant, workload):
            return
        rng = np.random.default_rng(0)
        arrays = [rng.standard_normal(shape).astype(np.float32) for shape in (first, second)]
        if task.variant.algorithm == "separable":
            arrays[1] = arrays[1][:, :, :, :1] * arrays[1][:, :, :1, :]
        a, b = (lab.ops.asarray(array, "float32") for array in arrays)
        seconds = _seconds(_runner(lab, task.variant, rule, a, b), a, b)
        yield Measurement(task.variant, workload, seconds)
        if seconds > _LONGEST:
            return


def quick_table(lab: Framework) -> Table:
    """A table from about five seconds of measurements.

    What there is no time for costs what convlab's own table says, times the ratio of what was measured to it.
    """
    started, known, constants, ratios = time.perf_counter(), table(lab.name, lab.version), {}, [1.0]
    for task in sorted(tasks(lab), key=lambda task: (task.kind != "single", task.part != "y")):
        if time.perf_counter() - started > _QUICK:
            break
        measurements = list(time_task(lab, task))
        constants[str(task)] = fit(measurements)
        ratios += [
            measurement.seconds / predicted(known, measurement.variant, measurement.workload)
            for measurement in measurements
            if str(task) in known
        ]
    ratio = statistics.median(ratios)
    scaled: Table = {key: (fixed * ratio, pixel * ratio, unit * ratio) for key, (fixed, pixel, unit) in known.items()}
    return scaled | constants


def fit(measurements: list[Measurement]) -> Constants:
    """The constants that predict measurements of one variant best."""
    from scipy.optimize import nnls

    rows = []
    for variant, workload, seconds in measurements:
        if variant is not Variant.NATIVE:
            workload = workload.forward()
        rows.append(np.array([1.0, workload.pixels, work(variant, workload)]) / seconds)
    scale = np.max(np.abs(rows), axis=0)
    solution, _ = nnls(np.array(rows) / scale, np.ones(len(rows)))
    fixed, pixel, unit = solution / scale
    return float(fixed), float(pixel), float(unit)


def square_workload(
    part: Part, image: tuple[int, ...], outputs: int, groups: int, k: int
) -> tuple[Workload, Rule, Any, Any]:
    """A workload with a square kernel, its rule, and the shapes of the rule's two inputs."""
    kernel = outputs, image[1] // groups, k, k
    rule = Rule("y", Geometry((k, k), groups=groups), algorithm="auto")
    shapes: tuple[Any, Any] = (image, kernel)
    if part != "y":
        derived, *sources = rule.derivatives(image)["xk".index(part)]
        result = rule.output_shape(*shapes)
        shapes = tuple(result if source is None else shapes[source] for source in sources)  # type: ignore[assignment]
        rule = derived
    return Workload.of(rule, *shapes, "float32"), rule, *shapes


def _runner(lab: Framework, variant: Variant, rule: Rule, a: Any, b: Any) -> Callable[[Any, Any], Any]:
    """A function that computes a rule by one variant, as a call of corr2d or of its gradient would."""
    ops = lab.ops
    groups = rule.geometry.groups
    # For tiny images the call itself counts, so these are computed as a user's call is.
    if rule.part == "y" and variant in (Variant.NATIVE, Variant.HOST):
        if groups == ops.sizes(a)[1] == ops.sizes(b)[0] == 1:
            a, b = (ops.reshape(each, ops.sizes(each)[2:]) for each in (a, b))
        call = Call(rule.geometry, ops.sizes(a), ops.sizes(b), "float32", False, variant.value, variant)  # type: ignore[arg-type]
        run = prepared(ops, call, a, b, None)
        return lambda *_: ops.wait(run(a, b, None))
    choice = Choice(variant, {}, {}, variant if variant.algorithm == "separable" else None)

    def compute(a: Any, b: Any) -> Any:
        return compute_chosen(ops, rule, a, b, choice)

    compiled = not variant.on_host and (ops.jitted or variant is not Variant.NATIVE)
    function = ops.compiled(compute) if compiled else compute
    return lambda a, b: ops.wait(function(a, b))


def _seconds(compute: Callable[[Any, Any], Any], a: Any, b: Any) -> float:
    """The median time of one run."""
    compute(a, b)
    start = time.perf_counter()
    compute(a, b)
    once = time.perf_counter() - start
    repeats = max(1, min(200, int(0.004 / once)))
    times = []
    for _ in range(2 if once > 0.03 else 5):
        start = time.perf_counter()
        for _ in range(repeats):
            compute(a, b)
        times.append((time.perf_counter() - start) / repeats)
    return statistics.median(times)
