"""A node of an ONNX graph, as the readers of its operators see it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ....errors import UnsupportedError
from ....geometry.geometry import Pair
from ...layers.layer import Layer
from ...layers.shapes import Known
from ...layers.spatial import Size
from ..fields import LARGEST, excerpt

IMAGES, ROWS = "NCHW", "NC"
# The axes of sequences, images and volumes, with the channels first and last, by the number of the others.
INNER = {1: "W", 2: "HW", 3: "DHW"}
FIRST = {rank: f"NC{axes}" for rank, axes in INNER.items()}
LAST = {rank: f"N{axes}C" for rank, axes in INNER.items()}
# The channels as G groups of K: with P numbers in each group, and before and after a channel shuffle.
GROUPS = "NGP"
SPLIT = {rank: f"NGK{axes}" for rank, axes in INNER.items()}
SHUFFLED = {rank: f"NKG{axes}" for rank, axes in INNER.items()}
# The pixels of images, row by row, as T tokens.
TOKENS, TOKENS_LAST = "NCT", "NTC"
LAYOUTS = (*FIRST.values(), *LAST.values(), ROWS)


class Value(NamedTuple):
    """What is known of a value of the graph.

    Attributes:
        name: the part's value that holds the same numbers.
        layout: a letter for each of its axes, of N, C, D, H, W, G, K, P and T; "1" for one that was put in.
        groups: of channels, 0 for images and rows of numbers.
        image: the part's value that had these rows and columns before there were groups.
    """

    name: str
    layout: str
    groups: int = 0
    image: str = ""


@dataclass(eq=False)
class Operation:
    """A node, as the readers of operators see it.

    Attributes:
        options: its attributes.
        inputs: values, constant arrays, and None for what is left out.
        known: what is known of the first value.
        layout, groups, image: of the first value; a reader sets them to those of the result.
        batch: how many images the graph takes, 0 for any number.
        moved: whether all that is done with the result is to move its channels from the end to the front.
        rank: how many axes the graph's images have beside those of images and channels.
        result, results: which of its results is read, and how many it has.
    """

    options: dict[str, Any]
    inputs: tuple[Value | np.ndarray | None, ...]
    known: Known
    layout: str = ""
    groups: int = 0
    image: str = ""
    batch: int = 0
    moved: bool = False
    rank: int = 2
    result: int = 0
    results: int = 1

    @property
    def sizes(self) -> dict[str, int | str]:
        """How long each axis is; a name where that isn't known, which no axis of other images has."""
        inner, channels = self.known.size or (0,) * self.rank, self.known.channels
        share = channels // self.groups if self.groups else 0
        known = {"N": self.batch, "C": channels, "G": self.groups, "K": share, "1": 1, "T": 0}
        known |= dict(zip("DHW"[-len(inner) :], inner, strict=True))
        known["P"] = share * math.prod(inner)
        return {axis: size or (axis if axis == "N" else f"{axis} of {self.image}") for axis, size in known.items()}

    def channels(self) -> int:
        """The channels of the first value."""
        if not 1 <= self.known.channels <= LARGEST:
            raise UnsupportedError(
                f"got {self.known.channels or 'an unknown number of'} channels, expected 1 to {LARGEST}"
            )
        return self.known.channels

    @property
    def values(self) -> list[Value]:
        """The inputs that aren't constants."""
        return [each for each in self.inputs if isinstance(each, Value)]

    def constant(self, index: int, what: str) -> np.ndarray | None:
        """An input that must be a constant, or may be left out."""
        given = self.inputs[index] if index < len(self.inputs) else None
        if isinstance(given, Value):
            raise UnsupportedError(
                f"got {what} that {'are' if what.endswith('s') else 'is'} computed, expected numbers"
            )
        return given

    def array(self, index: int, what: str, rank: int) -> np.ndarray:
        """A constant input of weights."""
        given = self.constant(index, what)
        if given is None or given.ndim != rank or not given.size or given.dtype.kind != "f":
            got = "none" if given is None else f"{given.dtype} of shape {given.shape}"
            raise UnsupportedError(f"got {what} {got}, expected floating-point numbers on {rank} axes")
        return given

    def vector(self, index: int, what: str, length: int) -> np.ndarray:
        """A constant input of one number for each channel."""
        given = self.array(index, what, 1)
        if len(given) != length:
            raise UnsupportedError(f"got {what} of {len(given)} numbers, expected {length}")
        return given

    def letters(self, axes: Sequence[int]) -> str:
        """The letters of axes."""
        if not all(-len(self.layout) <= axis < len(self.layout) for axis in axes):
            raise UnsupportedError(f"got the axes {excerpt([*axes])}, expected some of {len(self.layout)}")
        return "".join(self.layout[axis] for axis in axes)

    def axes(self, index: int) -> list[int]:
        """The axes that an attribute or, in newer opsets, an input names."""
        given = self.constant(index, "axes")
        return [int(axis) for axis in self.options.get("axes", []) if given is None] or (
            [] if given is None else np.ravel(given).tolist()
        )

    def expect(self, layout: str) -> None:
        """Refuse another layout."""
        if self.layout != layout:
            raise UnsupportedError(f"got values with axes {self.layout}, expected {layout}")

    def expect_images(self) -> None:
        """Refuse another layout than that of the graph's images, the channels first."""
        self.expect(FIRST[self.rank])

    def each(self, name: str) -> Size:
        """An attribute of one size for each axis, 1 if it isn't there."""
        given = self.options.get(name, [1] * self.rank)
        if not isinstance(given, list) or len(given) != self.rank or not all(1 <= n <= LARGEST for n in given):
            raise UnsupportedError(f"got {name} {excerpt(given)}, expected {self.rank} from 1 to {LARGEST}")
        return tuple(given)

    def pair(self, name: str) -> Pair:
        """An attribute of two sizes, of images."""
        rows, columns = self.each(name)
        return rows, columns


Reader = Callable[[Operation], Sequence[Layer]]
