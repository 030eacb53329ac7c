"""Are the planner's choices good? Fails if one is much slower than the best algorithm for its cell.

    python benchmarks/choices.py [--backends numpy,torch] [--most 1.5]

On a small grid of images and kernels, for the result and both gradients, all ways to compute take turns, the one that
"auto" chooses among them; the figure is its least time over that of the fastest. A cell above `--most` is timed up to
three times more, since machines are noisy, before it counts: then the script prints the offenders and exits with 1.
Losses below `--worth` don't count: to save less, the planner doesn't load the compiled kernels.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import timing
from rich.progress import track

from convlab.contract.rule import Rule
from convlab.geometry.geometry import Geometry
from convlab.lab import Backend
from convlab.planning.execute import choose_for, compute_chosen

SIZES, KERNELS = [64, 256, 512], [3, 7, 15, 31]
_NEAR = 3.0  # variants that take more than so many times the fastest's first run aren't timed again


class Cell(NamedTuple):
    """A rule on a backend, and the shapes of its inputs."""

    backend: str
    rule: Rule
    first: tuple[int, ...]
    second: tuple[int, ...]

    def __str__(self) -> str:
        part = {"y": "result", "x": "gradient of X", "k": "gradient of K"}[self.rule.part]
        size = self.rule.size[0] if self.rule.part == "x" else self.first[2]
        k = self.rule.geometry.kernel_size[0]
        return f"{self.backend}, {part}, {size}x{size}, {k}x{k}"


class Verdict(NamedTuple):
    """How a choice did: its time over the best way's, and the seconds between them."""

    cell: Cell
    choice: str
    best: str
    ratio: float
    lost: float

    def passes(self, options: argparse.Namespace) -> bool:
        """Whether the choice is good enough."""
        return self.ratio <= options.most or 1e6 * self.lost < options.worth


def cells(lab: Backend, sizes: list[int], kernels: list[int]) -> Iterator[Cell]:
    """The result and, where there is autograd, both gradients, for each pair of sizes."""
    for n in sizes:
        for k in kernels:
            shapes = (1, 1, n, n), (1, 1, k, k)
            rule = Rule("y", Geometry((k, k)), algorithm="auto")
            yield Cell(lab.name, rule, *shapes)
            dy = rule.output_shape(*shapes)
            for part, *sources in rule.derivatives(shapes[0]) if lab.adapter.autograd else ():
                yield Cell(lab.name, part, *(dy if source is None else shapes[source] for source in sources))


def judge(cell: Cell, seconds: float) -> Verdict:
    """Time each variant that is possible in turns."""
    lab, rng = timing.lab_of(cell.backend), np.random.default_rng(0)
    ops = lab.ops
    a, b = (lab.asarray(rng.standard_normal(shape).astype("float32")) for shape in (cell.first, cell.second))
    choice = choose_for(ops, cell.rule, a, b)
    alone = {variant: choice._replace(variant=variant, factored=None) for variant in choice.costs}
    runs = {
        variant: functools.partial(lambda plan: ops.wait(compute_chosen(ops, cell.rule, a, b, plan)), plan)
        for variant, plan in alone.items()
    }
    once = {}
    for variant, compute in runs.items():
        compute()  # compiles
        once[variant] = min(timing.timed(compute), timing.timed(compute))
    limit = _NEAR * min(once.values())
    near = {variant: runs[variant] for variant in runs if once[variant] <= limit or variant is choice.variant}
    times = timing.interleaved(near, seconds, min)  # the least disturbed
    best = min(times, key=times.__getitem__)
    chosen = choice.variant
    return Verdict(cell, chosen, best, times[chosen] / times[best], times[chosen] - times[best])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backends", type=timing.names, default=["numpy", "torch"])
    parser.add_argument("--sizes", type=timing.integers, default=SIZES, help="of the image")
    parser.add_argument("--kernels", type=timing.integers, default=KERNELS, help="sizes of the kernel")
    parser.add_argument("--most", type=float, default=1.5, help="the highest ratio that passes")
    parser.add_argument("--worth", type=float, default=50.0, help="microseconds, the least loss that counts")
    parser.add_argument("--seconds", type=float, default=0.05, help="for each way in a cell")
    options = parser.parse_args()

    labs = [timing.lab_of(name) for name in options.backends]
    everything = [cell for lab in labs for cell in cells(lab, options.sizes, options.kernels)]
    verdicts = []
    for cell in track(everything, "cells", console=timing.progress, transient=True):
        verdict = judge(cell, options.seconds)
        for _ in range(3):
            if verdict.passes(options):
                break
            verdict = min(verdict, judge(cell, 20 * options.seconds), key=lambda each: each.ratio)
        verdicts.append(verdict)

    offenders = sorted((each for each in verdicts if not each.passes(options)), key=lambda each: -each.ratio)
    table = timing.markdown_table(
        "cell", "choice", "best", "choice / best", title=f"choices more than {options.most} times the best"
    )
    for each in offenders:
        table.add_row(str(each.cell), each.choice, each.best, f"{each.ratio:.2f}")
    if offenders:
        timing.console.print(table)
    for lab in labs:
        ratios = [each.ratio for each in verdicts if each.cell.backend == lab.name]
        right = sum(each.choice == each.best for each in verdicts if each.cell.backend == lab.name)
        mean, worst = timing.written(timing.mean(ratios)), timing.written(max(ratios))
        timing.console.print(f"{lab.name}: {right} of {len(ratios)} choices are the best; mean {mean}, worst {worst}")
    sys.exit(1 if offenders else 0)


if __name__ == "__main__":
    main()
