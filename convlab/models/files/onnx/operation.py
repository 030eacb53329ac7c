"""A node of an ONNX graph, as the readers of its operators see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ....errors import UnsupportedError
from ....geometry.geometry import Pair
from ...layers.layer import Layer
from ..fields import LARGEST, excerpt

IMAGES, PIXELS, ROWS = "NCHW", "NHWC", "NC"


class Value(NamedTuple):
    """What is known of a value of the graph.

    Attributes:
        name: the part's value that holds the same numbers.
        layout: a letter for each of its axes, of N, C, H and W; "1" for one that was put in.
    """

    name: str
    layout: str


@dataclass(eq=False)
class Operation:
    """A node, as the readers of operators see it.

    Attributes:
        options: its attributes.
        inputs: values, constant arrays, and None for what is left out.
        layout: of the first value; a reader sets it to that of the result.
        batch: how many images the graph takes, 0 for any number.
    """

    options: dict[str, Any]
    inputs: tuple[Value | np.ndarray | None, ...]
    layout: str
    batch: int = 0

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

    def pair(self, name: str) -> Pair:
        """An attribute of two sizes, 1 if it isn't there."""
        given = self.options.get(name, [1, 1])
        if not isinstance(given, list) or len(given) != 2 or not all(1 <= n <= LARGEST for n in given):
            raise UnsupportedError(f"got {name} {excerpt(given)}, expected two from 1 to {LARGEST}")
        return given[0], given[1]


Reader = Callable[[Operation], Sequence[Layer]]
