"""What adapters return when they read a model, and helpers for reading."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import ModelError, UnsupportedError
from ...geometry.geometry import Pads, Pair
from .layer import Layer


@dataclass(frozen=True, eq=False)
class Part:
    """A layer as a model has it.

    Attributes:
        path: where it is in the model, as the framework writes it.
        native: the framework's own object; called by its adapter's `run`.
        layer: what it computes; None where convlab can't tell.
        note: its class, as the framework writes it, and why convlab can't tell.
    """

    path: str
    native: Any
    layer: Layer | None
    note: str = ""


@dataclass(frozen=True, eq=False)
class Model:
    """A framework's model, read.

    Attributes:
        backend: the backend of its framework.
        parts: its layers, in the order of their paths or of their calls.
        whole: whether the model is these layers one after another, and nothing else.
        native: the model itself.
        image: the only shape of an image that it takes, (C, H, W), with None for a size that may vary; None where the
            framework doesn't tell.
        loose: what belongs to no part: parameters and buffers by their path, operations by the path of the method that
            calls them, each with a note.
    """

    backend: str
    parts: list[Part]
    whole: bool
    native: Any = field(repr=False)
    image: tuple[int | None, ...] | None = None
    loose: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> Pair | None:
        """The only rows and columns of an image that it takes, where there are any."""
        size = self.image[1:] if self.image else ()
        return None if len(size) != 2 or None in size else (size[0], size[1])  # type: ignore[return-value]


def loose_array(kind: str, shape: Sequence[int]) -> str:
    """The note of a parameter or a buffer that belongs to no part.

    >>> loose_array("parameter", (64, 1, 1))
    'a parameter of shape (64, 1, 1) that belongs to no layer'
    """
    return f"a {kind} of shape {tuple(map(int, shape))} that belongs to no layer"


def loose_code(native: Any, method: str, operations: Iterable[str] = ()) -> str:
    """The note of a method that does more than call layers one after another, with the operations that are known.

    >>> loose_code(3, "forward", ["relu", "flatten", "relu"])
    'int has a forward of its own, whose operations between layers (relu, flatten) are not carried'
    """
    names = ", ".join(dict.fromkeys(operations))
    known = f" ({names})" if names else ""
    return f"{type(native).__name__} has a {method} of its own, whose operations between layers{known} are not carried"


def is_around(pads: Pads) -> bool:
    """Whether both ends of each axis have the same padding."""
    return all(before == after for before, after in pads)


def unbuilt(path: str, native: Any, hint: str) -> ModelError:
    """The error for a layer whose parameters have no values yet."""
    return ModelError(
        f"{path or 'the layer'}: got a {type(native).__name__} whose parameters have no values yet, expected them.",
        hint=f"{hint}.",
    )


def known(native: Any, readers: dict[type, Callable[[Any], Layer]]) -> tuple[Layer | None, str]:
    """What a framework's object computes, and its class's name; or None, and why it can't be told.

    The first reader of the object's type reads it.
    """
    name = type(native).__name__
    reader = next((reader for kind, reader in readers.items() if isinstance(native, kind)), None)
    if reader is None:
        return None, name
    try:
        return reader(native), name
    except UnsupportedError as error:
        return None, f"{name}: {error}"


def around(padding: Pair) -> Pads:
    """The same padding at both ends, as ((top, bottom), (left, right))."""
    rows, columns = padding
    return (rows, rows), (columns, columns)
