"""The lazy result: which chunks there are, and what each is computed from."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from .blocks import Block, Halo, Recipe, Window
from .spans import Span, output_chunks, spans

Place = tuple[int, int]


class Axis(NamedTuple):
    """The rows or the columns: X's chunks, the result's, and what each of the result's is computed from."""

    chunks: tuple[int, ...]
    outputs: tuple[int, ...]
    spans: tuple[Span, ...]


def correlate(recipe: Recipe, x: da.Array, k: da.Array, b: da.Array | None, dtype: str) -> da.Array:
    """corr2d of a Dask array, lazily: X (..., H, W) for a rank-2 kernel, else NCHW, CHW, NHWC or HWC.

    The graph has one task for each chunk of the result and at most one for each chunk of X, however large the kernel. A
    chunk of the result gets of X's chunks only the halo, or all of one of which it needs more than half.
    """
    trailing = int(k.ndim == 4 and recipe.geometry.data_format == "NHWC")
    if k.ndim == 4:
        x = x.rechunk({x.ndim - (1 if trailing else 3): -1})
    weights = [each.rechunk(-1) for each in (k, b) if each is not None]
    down = x.ndim - trailing - 2
    rows, columns = (_axis(x.chunks[down + i], recipe, i) for i in (0, 1))
    halos = _halos(rows, columns)
    name = f"corr2d-{tokenize(recipe, x, *weights)}"
    given = [(each.name, *(0,) * each.ndim) for each in weights]
    graph: dict[Any, Any] = {}
    for images in itertools.product(*(range(len(sizes)) for sizes in x.chunks[:down])):

        def key(name: str, place: Place, images: tuple[int, ...] = images) -> tuple[Any, ...]:
            return (name, *images, *place, *(0,) * trailing)

        for place, windows in halos.items():
            graph[key(f"halo-{name}", place)] = Halo(tuple(windows), trailing), key(x.name, place)
        for i, j in itertools.product(range(len(rows.spans)), range(len(columns.spans))):
            block = Block(recipe, rows.spans[i], columns.spans[j], trailing)
            grid = [
                [key(f"halo-{name}" if window in halos.get(place, ()) else x.name, place) for place, window in line]
                for line in _parts(block.rows, block.columns)
            ]
            graph[key(name, (i, j))] = (block, grid, *given)
    chunks = [*x.chunks]
    chunks[down : down + 2] = rows.outputs, columns.outputs
    if k.ndim == 4:
        chunks[-1 if trailing else -3] = (k.shape[3 if trailing else 0],)
    return da.Array(HighLevelGraph.from_collections(name, graph, [x, *weights]), name, tuple(chunks), np.dtype(dtype))


def _axis(chunks: tuple[int, ...], recipe: Recipe, i: int) -> Axis:
    geometry = recipe.geometry
    pads, extent, stride = geometry.padding[i], geometry.extent[i], geometry.stride[i]
    outputs = output_chunks(chunks, (sum(chunks) + sum(pads) - extent) // stride + 1, stride)
    return Axis(chunks, outputs, tuple(spans(chunks, outputs, pads, extent, stride, geometry.padding_mode)))


def _parts(rows: Span, columns: Span) -> Iterable[list[tuple[Place, Window]]]:
    """For each part of the rows and of the columns, the chunk of X and the window in it."""
    for row in rows.parts:
        yield [((row[0], column[0]), (row, column)) for column in columns.parts]


def _halos(rows: Axis, columns: Axis) -> dict[Place, dict[Window, None]]:
    """The windows of at most half a chunk, by chunk of X."""
    found: dict[Place, dict[Window, None]] = {}
    for down, right in itertools.product(rows.spans, columns.spans):
        for place, (row, column) in itertools.chain(*_parts(down, right)):
            size = (row[2] - row[1]) * (column[2] - column[1])
            if 2 * size <= rows.chunks[place[0]] * columns.chunks[place[1]]:
                found.setdefault(place, {})[row, column] = None
    return found
