"""The shapes on which a model is tried: those of examples, or some that its weights tell of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

_SIZES = (32, 64, 28, 224, 16, 8)
# What is added to an image's size, so that it is even or odd wherever it was halved some times; nothing is for a model
# of one size.
_LARGER = (41, 0, 2, 4, 8, 16)
# Of several inputs so many shapes are tried.
_MOST_SHAPES = 200

# Of each input, channels last.
Shapes = tuple[tuple[int, ...], ...]


def shapes_of_inputs(
    examples: Sequence[Any] | None, weights: Sequence[tuple[int, ...]], count: int
) -> Iterator[Shapes]:
    """Shapes that the inputs of a model may have: those of examples, of all inputs alike, or of images of one size."""
    if examples is not None and count > 1:
        yield tuple((len(x), *np.shape(x)[2:], np.shape(x)[1]) for x in examples)
        return
    shapes = [*_shapes(examples[0] if examples else None, weights)]
    yield from ((shape,) * count for shape in shapes)
    sizes = {shape[1:-1] for shape in shapes[:1]} | {()}
    several = itertools.product([shape for shape in shapes if shape[1:-1] in sizes], repeat=count if count > 1 else 0)
    yield from itertools.islice((each for each in several if len({*each}) > 1), _MOST_SHAPES)


def _shapes(inputs: Any, weights: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    """Shapes that a model may take: that of the given images, or some that kernels among its weights take."""
    rank = _rank(weights)
    given: list[tuple[int, ...]] = []
    if inputs is not None:
        n, channels, *size = (1, *np.shape(inputs)) if np.ndim(inputs) == rank + 1 > 2 else np.shape(inputs)
        if channels:
            yield n, *size, channels
            return
        given = [tuple(size)]
    kernels = [shape[-2:] for shape in weights if len(shape) == rank + 2] or [(1, 1), (3, 1)]
    channels_of = {inputs for inputs, _ in kernels}
    # A convolution in groups takes more channels than its kernel says, a transposed one its kernel's last number.
    in_groups = {inputs * n for inputs, outputs in kernels for n in range(2, outputs + 1) if outputs % n == 0}
    in_groups |= {outputs for _, outputs in kernels}
    sizes = given or [*(_sizes_of_embeddings(weights) if rank == 2 else ()), *((size,) * rank for size in _SIZES)]
    for channels in sorted(channels_of | in_groups, key=lambda n: (n not in channels_of, n != 3, n)):
        yield from ((2, *size, channels) for size in sizes)
    yield from ((2, rows) for rows in dict.fromkeys(shape[0] for shape in weights if len(shape) == 2))


def _rank(weights: Sequence[tuple[int, ...]]) -> int:
    """How many axes the images of a model have, by the axes of its kernels."""
    axes = {len(shape) for shape in weights}
    return next((rank for rank in (2, 3, 1) if rank + 2 in axes), 2)


def _sizes_of_embeddings(weights: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, int]]:
    """The sizes of images whose patches, as large as the kernels, an array of positions among the weights is for."""
    patches = dict.fromkeys(shape[:2] for shape in weights if len(shape) == 4)
    tables = ((1, shape[0], 1) for shape in weights if len(shape) == 2)  # of embeddings, by the tokens' numbers
    for rows, columns, _ in dict.fromkeys((*(shape for shape in weights if len(shape) == 3), *tables)):
        grids = [(rows, columns)]
        count = max(rows, columns) if 1 in (rows, columns) else 0
        for length in (count - 1, count) if count else ():  # with a class token before them, or without
            grids += [(n, length // n) for n in range(1, length + 1) if length % n == 0]
        for down, across in sorted(grids, key=lambda grid: abs(grid[0] - grid[1])):
            yield from ((down * height, across * width) for height, width in patches)


def larger_shapes(shapes: Shapes) -> Iterator[Shapes]:
    """Larger images; of several inputs first of different sizes, which code may take that resizes one to another."""
    if not any(len(shape) > 2 for shape in shapes):
        return
    different = [(more, 2) for more in (_LARGER[0], _LARGER[-1])] if len(shapes) > 1 else []
    for more, apart in [*different, *((more, 0) for more in _LARGER)]:
        yield tuple(
            (shape[0] + 1, *(size + more + place * apart for size in shape[1:-1]), shape[-1])
            for place, shape in enumerate(shapes)
        )
