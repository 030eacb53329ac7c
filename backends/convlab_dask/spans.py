"""Where the chunks of a result get their pixels: along one axis at a time, in plain integers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from convlab.geometry.geometry import PaddingMode, Pair, border_index

Part = tuple[int, int, int]


class Span(NamedTuple):
    """The pixels along one axis that a chunk of the result is computed from.

    Attributes:
        parts: (chunk of X, start, stop), with start and stop within that chunk, in the order of the chunks.
        order: which element of the joined parts stands where; None if they stand as they are.
        pads: how many zeros come before and after.
    """

    parts: tuple[Part, ...]
    order: np.ndarray | None
    pads: Pair


def output_chunks(chunks: Sequence[int], outputs: int, stride: int) -> tuple[int, ...]:
    """The chunks of a result with `outputs` elements along an axis: where X's are, in steps of the stride.

    What hangs over at the end fills the last chunk up to the size of the largest and goes on in chunks of that size, so
    that regular chunks stay regular.

    >>> output_chunks((4, 4, 4), 12, 1), output_chunks((4, 4, 4), 10, 1), output_chunks((4, 4, 3), 13, 1)
    ((4, 4, 4), (4, 4, 2), (4, 4, 4, 1))
    >>> output_chunks((4, 4, 4), 6, 2), output_chunks((1, 1, 1, 1), 2, 3)
    ((2, 2, 2), (1, 1))
    """
    ends = np.minimum(-(-np.cumsum(chunks) // stride), outputs)
    sizes = [int(size) for size in np.diff(ends, prepend=0) if size]
    rest = outputs - sum(sizes)
    if not sizes:
        return (rest,)
    largest = max(sizes)
    grown = min(rest, largest - sizes[-1])
    sizes[-1] += grown
    full, last = divmod(rest - grown, largest)
    return (*sizes, *[largest] * full, *[last] * (last > 0))


def spans(
    chunks: Sequence[int], outputs: Sequence[int], pads: Pair, extent: int, stride: int, mode: PaddingMode
) -> Iterator[Span]:
    """What each chunk of the result (`outputs`: their sizes) needs of an axis of X.

    >>> [span.parts for span in spans((4, 4), (4, 4), (1, 1), 3, 1, "zeros")]
    [((0, 0, 4), (1, 0, 1)), ((0, 3, 4), (1, 0, 4))]
    >>> first, last = spans((4, 4), (4, 4), (1, 1), 3, 1, "circular")
    >>> first.parts, first.order
    (((0, 0, 4), (1, 0, 4)), array([7, 0, 1, 2, 3, 4]))
    """
    ends = np.cumsum(chunks)
    first = -pads[0]
    for size in outputs:
        yield _span(ends, first, first + (size - 1) * stride + extent, mode)
        first += size * stride


def _span(ends: np.ndarray, start: int, stop: int, mode: PaddingMode) -> Span:
    """The span of the positions start to stop, counted from X's first pixel; those beyond X are its border."""
    n, before, after = int(ends[-1]), 0, 0
    if mode == "zeros":
        before = min(max(-start, 0), stop - start)
        inside = np.arange(min(max(start, 0), n), min(max(stop, 0), n))
        after = stop - start - before - len(inside)
    else:
        inside = np.array([border_index(i, n, mode) if i < 0 or i >= n else i for i in range(start, stop)])
    if not len(inside):  # even for nothing but zeros, the number of images must be known
        return Span(((0, 0, 0),), None, (before, after))
    owners = np.searchsorted(ends, inside, side="right")
    parts, order, joined = [], np.empty_like(inside), 0
    for chunk in np.unique(owners):
        mine = owners == chunk
        within = inside[mine] - (ends[chunk - 1] if chunk else 0)
        low, high = int(within.min()), int(within.max()) + 1
        order[mine] = within - low + joined
        joined += high - low
        parts.append((int(chunk), low, high))
    plain = joined == len(order) and bool((np.diff(order) == 1).all())
    return Span(tuple(parts), None if plain else order, (before, after))
