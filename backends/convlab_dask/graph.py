"""Lazy results: which chunks there are, and what each is computed from."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph

from convlab.errors import GeometryError
from convlab.geometry.geometry import Geometry

from .blocks import Block, Correlation, Halo, Window
from .spans import Span, output_chunks, spans

Place = tuple[int, int]
_TOGETHER = 8  # the number of parts that one task adds up
_MOST_CHUNKS = 2**20  # the most along an axis: the scheduler holds a task for each of them


class Axis(NamedTuple):
    """The rows or the columns: X's chunks, the result's, and what each of the result's is computed from."""

    chunks: tuple[int, ...]
    outputs: tuple[int, ...]
    spans: tuple[Span, ...]


class Grid:
    """The chunks of X and of what a kernel makes of it.

    The graph has one task for each chunk of the result and at most one for each chunk of X, however large the kernel.
    A chunk of the result gets only the halo of X's chunks, or a whole chunk where it needs more than half of it.

    Attributes:
        x: (..., H, W), or with channels, in one chunk, NCHW, CHW, NHWC or HWC.
        chunks: those of the result, for so many output channels.
    """

    def __init__(self, x: da.Array, geometry: Geometry, outputs: int | None) -> None:
        self.trailing = int(outputs is not None and geometry.data_format == "NHWC")
        channels = x.ndim - (1 if self.trailing else 3)
        self.x = x if outputs is None else x.rechunk({channels: -1})
        self.down = x.ndim - self.trailing - 2
        self.rows, self.columns = (_axis(self.x.chunks[self.down + i], geometry, i) for i in (0, 1))
        self.halos = self._halos()
        chunks = [*self.x.chunks]
        chunks[self.down : self.down + 2] = self.rows.outputs, self.columns.outputs
        if outputs is not None:
            chunks[channels] = (outputs,)
        self.chunks = tuple(chunks)

    def _halos(self) -> dict[Place, dict[Window, None]]:
        """The windows of at most half a chunk, by chunk of X."""
        windows: dict[Place, dict[Window, None]] = {}
        for down, right in itertools.product(self.rows.spans, self.columns.spans):
            for place, (row, column) in itertools.chain(*_parts(down, right)):
                size = (row[2] - row[1]) * (column[2] - column[1])
                if 2 * size <= self.rows.chunks[place[0]] * self.columns.chunks[place[1]]:
                    windows.setdefault(place, {})[row, column] = None
        return windows

    def tasks(
        self, name: str, work: Callable[..., Any], keys: Callable[[tuple[int, ...]], list[Any]]
    ) -> dict[Any, Any]:
        """The tasks by their names: `work` on the pixels and zeros of each chunk of the result, and on its `keys`."""
        graph: dict[Any, Any] = {}
        halo, trail = f"halo-{name}", (0,) * self.trailing
        for images in itertools.product(*(range(len(sizes)) for sizes in self.x.chunks[: self.down])):
            for place, windows in self.halos.items():
                chunk = (*images, *place, *trail)
                graph[(halo, *chunk)] = Halo(tuple(windows), self.trailing), (self.x.name, *chunk)
            for (i, down), (j, right) in itertools.product(enumerate(self.rows.spans), enumerate(self.columns.spans)):
                grid = [
                    [
                        (halo if window in self.halos.get(place, ()) else self.x.name, *images, *place, *trail)
                        for place, window in line
                    ]
                    for line in _parts(down, right)
                ]
                chunk = (*images, i, j, *trail)
                graph[(name, *chunk)] = (Block(work, down, right, self.trailing), grid, *keys(chunk))
        return graph


def correlate(work: Correlation, x: da.Array, k: da.Array, b: da.Array | None, dtype: str) -> da.Array:
    """corr2d of a Dask array, lazily: X (..., H, W) for a rank-2 kernel, else NCHW, CHW, NHWC or HWC."""
    last = work.geometry.data_format == "NHWC"
    grid = Grid(x, work.geometry, None if k.ndim == 2 else k.shape[3 if last else 0])
    weights = [each.rechunk(-1) for each in (k, b) if each is not None]
    keys = [(each.name, *(0,) * each.ndim) for each in weights]
    name = f"corr2d-{tokenize(work, grid.x, *weights)}"
    tasks = grid.tasks(name, work, lambda chunk: keys)  # type: ignore[arg-type]  # mypy takes no NamedTuple for callable
    graph = HighLevelGraph.from_collections(name, tasks, [grid.x, *weights])
    return da.Array(graph, name, grid.chunks, np.dtype(dtype))


def total(
    work: Callable[..., Any],
    add: Callable[[list[Any]], Any],
    x: da.Array,
    others: Sequence[da.Array],
    geometry: Geometry,
    outputs: int | None,
) -> Any:
    """The sum of `work` over the chunks of a result and of others of the result's shape, computed now.

    One of the others may have a single channel.
    """
    grid = Grid(x, geometry, outputs)
    others = [
        other.rechunk(tuple(sizes if sum(sizes) == n else n for n, sizes in zip(other.shape, grid.chunks, strict=True)))
        for other in others
    ]
    name = f"total-{tokenize(work, grid.x, *others)}"
    graph = grid.tasks(name, work, lambda chunk: [(each.name, *chunk) for each in others])
    keys: list[Any] = [key for key in graph if key[0] == name]
    for level in itertools.count():
        if level and len(keys) == 1:
            break
        added = {
            (f"add-{level}-{name}", i): (add, keys[start : start + _TOGETHER])
            for i, start in enumerate(range(0, len(keys), _TOGETHER))
        }
        graph |= added
        keys = [*added]
    layers = HighLevelGraph.from_collections(name, graph, [grid.x, *others])
    return Delayed(keys[0], layers, layer=name).compute()


def _axis(chunks: tuple[int, ...], geometry: Geometry, i: int) -> Axis:
    pads, extent, stride = geometry.padding[i], geometry.extent[i], geometry.stride[i]
    count = (sum(chunks) + sum(pads) - extent) // stride + 1
    if count // max(1, *(n // stride for n in chunks)) > _MOST_CHUNKS:
        raise GeometryError(
            f"padding: got {pads} around {sum(chunks)} pixels in chunks of at most {max(chunks)}, which makes a result "
            f"of {count} in about as small chunks, expected at most {_MOST_CHUNKS} chunks.",
            hint="use a smaller padding, or rechunk the image.",
        )
    outputs = output_chunks(chunks, count, stride)
    return Axis(chunks, outputs, tuple(spans(chunks, outputs, pads, extent, stride, geometry.padding_mode)))


def _parts(rows: Span, columns: Span) -> Iterator[list[tuple[Place, Window]]]:
    """For each part of the rows and of the columns, the chunk of X and the window in it."""
    for row in rows.parts:
        yield [((row[0], column[0]), (row, column)) for column in columns.parts]
