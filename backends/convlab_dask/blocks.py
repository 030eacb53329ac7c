"""The tasks: one for each chunk of the result, and one for each chunk of X whose neighbours need parts of it."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from convlab.compiled import threads
from convlab.correlation.corr2d import conv2d, corr2d
from convlab.geometry.geometry import Geometry
from convlab.registry import framework

from .spans import Part, Span

Window = tuple[Part, Part]


class Correlation(NamedTuple):
    """What all chunks of a result have in common. It names the backend that computes, so that tasks can travel."""

    inner: str
    geometry: Geometry
    algorithm: str
    flipped: bool

    def __call__(self, x: np.ndarray, padding: Any, k: np.ndarray, b: Any = None) -> np.ndarray:
        """corr2d on the inner backend, with NumPy arrays in and out; `padding` is of zeros."""
        geometry, reproducible = self.geometry, self.algorithm == "reproducible"
        with one_thread_in_workers():
            y = (conv2d if self.flipped else corr2d)(
                x,
                k,
                bias=b,
                stride=geometry.stride,
                padding=padding,
                dilation=geometry.dilation,
                groups=geometry.groups,
                data_format=geometry.data_format,
                algorithm="auto" if reproducible else self.algorithm,  # type: ignore[arg-type]
                reproducible=reproducible,
                backend=self.inner,
            )
            return framework(self.inner).to_numpy(y)


@contextlib.contextmanager
def one_thread_in_workers() -> Iterator[None]:
    """A context in which a task takes one thread where the scheduler runs one task for each processor.

    That is everywhere but in the main thread of the process that began.
    """
    here = threading.current_thread() is threading.main_thread() and multiprocessing.parent_process() is None
    with contextlib.nullcontext() if here else threads.limited(1):
        yield


@dataclass(frozen=True)
class Block:
    """The task of one chunk of the result.

    Attributes:
        work: what computes it from pixels, the zeros before and after their rows and columns, and the other arguments.
        rows, columns: which pixels.
        trailing: how many axes X has after the columns.
    """

    work: Callable[..., Any]
    rows: Span
    columns: Span
    trailing: int

    def __call__(self, grid: list[list[Any]], *others: Any) -> Any:
        """The chunk; for each part of the rows and each of the columns, `grid` holds X's chunk or its `Halo`'s."""
        x = self._gathered(grid)
        for span, axis in ((self.rows, -2), (self.columns, -1)):
            if span.order is not None:
                x = x.take(span.order, axis - self.trailing)
        return self.work(x, (self.rows.pads, self.columns.pads), *others)

    def _gathered(self, grid: list[list[Any]]) -> np.ndarray:
        """The parts in one array; a single part isn't copied."""
        pieces = [
            [cut(held, (row, column), self.trailing) for column, held in zip(self.columns.parts, line, strict=True)]
            for row, line in zip(self.rows.parts, grid, strict=True)
        ]
        if len(pieces) == len(pieces[0]) == 1:
            return pieces[0][0]
        first = pieces[0][0]
        shape, down = list(first.shape), first.ndim - 2 - self.trailing
        shape[down : down + 2] = (
            sum(stop - start for _, start, stop in span.parts) for span in (self.rows, self.columns)
        )
        x, top = np.empty(shape, first.dtype), 0
        for line in pieces:
            left, bottom = 0, top + line[0].shape[down]
            for piece in line:
                right = left + piece.shape[down + 1]
                x[slices(((0, top, bottom), (0, left, right)), self.trailing)] = piece
                left = right
            top = bottom
        return x


@dataclass(frozen=True)
class Halo:
    """The task that copies from a chunk of X what other chunks' windows need of it, so that it can be forgotten."""

    windows: tuple[Window, ...]
    trailing: int

    def __call__(self, chunk: np.ndarray) -> dict[Window, np.ndarray]:
        """The windows' pixels, by window."""
        return {window: np.array(chunk[slices(window, self.trailing)]) for window in self.windows}


def cut(held: Any, window: Window, trailing: int) -> np.ndarray:
    """A window of a chunk, or of what a halo keeps of it."""
    pixels: np.ndarray = held[window] if isinstance(held, dict) else np.asarray(held)[slices(window, trailing)]
    return pixels


def slices(window: Window, trailing: int) -> tuple[Any, ...]:
    """The index of a window."""
    (_, top, bottom), (_, left, right) = window
    return (..., slice(top, bottom), slice(left, right), *[slice(None)] * trailing)
