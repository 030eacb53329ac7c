"""Learning from chunks: what squared error needs to know, and gradient descent with the gradient written out.

NumPy computes the chunks. `method="gram"` and "lstsq" read the images once, "autograd" reads them at each step.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np

from convlab.errors import DataError
from convlab.learning import problem as problems
from convlab.learning.checkpoint import digest
from convlab.learning.moments import StatisticsKind
from convlab.learning.problem import LearningProblem, finite, prepared_images
from convlab.learning.without_autograd import PlainDescent, draw, slopes

from .blocks import one_thread_in_workers
from .graph import total

__all__ = ["Descent", "draw", "identity", "statistics"]


def statistics(
    problem: LearningProblem, x: da.Array, y: da.Array, weights: da.Array | None, kind: StatisticsKind, name: str
) -> Any:
    """`convlab.learning.problem.statistics`, chunk by chunk."""
    measure = functools.partial(problems.statistics, kind=kind, workers=1)
    return _total(problem, measure, [x, y, *([] if weights is None else [weights])], name)


def identity(images: Sequence[da.Array | None]) -> list[np.ndarray | None]:
    """What a checkpoint knows images by: a hash of each chunk.

    An array's name wouldn't do: when it is read from a file, it stays the same when the file changes.
    """
    tasks = [[dask.delayed(_hash)(chunk) for chunk in x.to_delayed().ravel()] for x in images if x is not None]
    return [np.frombuffer("".join(hashes).encode(), np.uint8) for hashes in dask.compute(*tasks)]


def _hash(chunk: np.ndarray) -> str:
    return digest("", np.asarray(chunk))


def _total(problem: LearningProblem, measure: Callable[..., Any], images: Sequence[da.Array], name: str) -> Any:
    """The sum of measure(problem, x, y, weights, name=name) over chunks, x padded already; computed now."""
    x, *others = images
    if len(others) == 2:
        others[1] = da.broadcast_to(others[1], _weights_shape(problem, *others))
    height, width = x.shape[-3:-1] if problem.channels_last else x.shape[-2:]
    geometry = problem.lowered((1, 1, height, width))._replace(data_format=problem.geometry.data_format)
    part = _Part(problem.unpadded(), measure, name)
    result = total(part, _added, x, others, geometry, problem.out_channels)
    if result is None:
        raise DataError(
            f"weights{name}: all are 0, expected some pixels that count.",
            hint="is the mask inverted?",
        )
    return result


def _weights_shape(problem: LearningProblem, y: da.Array, weights: da.Array) -> tuple[int, ...]:
    """Y's shape, but for one channel where all channels share their weights."""
    shape = [*y.shape]
    if problem.shares(weights):
        shape[-1 if problem.channels_last else -3] = 1
    return tuple(shape)


def _added(terms: list[Any]) -> Any:
    counted = [term for term in terms if term is not None]
    return functools.reduce(operator.add, counted) if counted else None


@dataclass(frozen=True)
class _Part:
    """The task of one chunk of Y: what it adds to a sum; None if all its weights are 0."""

    problem: LearningProblem
    measure: Callable[..., Any]
    name: str

    def __call__(self, x: np.ndarray, pads: Any, y: np.ndarray, weights: np.ndarray | None = None) -> Any:
        if weights is not None and not weights.any():
            return None
        around = [*pads, *[(0, 0)] * self.problem.channels_last]
        with one_thread_in_workers():
            padded = np.pad(x, [*[(0, 0)] * (x.ndim - len(around)), *around])
            return self.measure(self.problem, padded, y, weights, name=self.name)


def _slopes(
    problem: LearningProblem,
    x: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    kernel: np.ndarray,
    bias: np.ndarray | None,
    name: str = "",
) -> np.ndarray:
    return slopes(prepared_images(problem, *finite(problem, x, y, weights, name)), kernel, bias)


class Descent(PlainDescent):
    def slopes(self) -> np.ndarray:
        measure = functools.partial(_slopes, kernel=self.kernel, bias=self.bias)
        return np.asarray(sum(_total(self.problem, measure, images, "") for images in self.pairs))
