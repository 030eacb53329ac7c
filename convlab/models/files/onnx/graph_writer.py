"""What the writers of nodes know of the graph that they add to."""

from __future__ import annotations

from typing import Any, Protocol

from ....errors import ModelError


class GraphWriter(Protocol):
    """The graph that nodes are added to.

    Attributes:
        number: of the layer that is written.
        dtype: the dtype that the model is computed in.
        last, others: the names of the values that the next node takes.
        rank: how many axes the last value has.
    """

    number: int
    dtype: str
    last: str
    others: list[str]
    rank: int

    def refused(self, number: int, got: str, expected: str) -> ModelError:
        """The error that names a layer."""

    def channels(self) -> int:
        """The channels of what the layer takes."""

    def constant(self, name: str, value: Any, dtype: str = "") -> str:
        """Add an array; its name in the graph comes back."""

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> None:
        """Add an operation on the last result."""
