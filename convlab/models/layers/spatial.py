"""Windows and paddings of sequences, images and volumes: of one, two or three axes beside images and channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...contract.layer import LayerSpec
from ...errors import GeometryError, ShapeError, UnsupportedError
from ...geometry.checks import integer, pair, shown
from ...geometry.lower import lower
from ...geometry.options import options

# The length of each axis; and how much stands before and after each.
Size = tuple[int, ...]
Ends = tuple[tuple[int, int], ...]

# What a model takes, by its number of axes.
WHAT = {0: "rows of numbers", 1: "sequences", 2: "images", 3: "volumes"}
SHAPES = {0: "(N, C)", 1: "(N, C, L)", 2: "(N, C, H, W)", 3: "(N, C, D, H, W)"}


@dataclass(frozen=True)
class NdSpec:
    """The options of a convolution of one or of three axes, under the names that `LayerSpec` has for two."""

    kernel_size: Size
    in_channels: int = 1
    out_channels: int = 1
    stride: Size = ()
    padding: Ends | str = "valid"
    padding_mode: str = "zeros"
    dilation: Size = ()
    groups: int = 1
    use_bias: bool = True
    dtype: str | None = None
    padding_value: float = 0.0

    def __post_init__(self) -> None:
        for name in ("stride", "dilation"):
            object.__setattr__(self, name, tuple(getattr(self, name)) or (1,) * len(self.kernel_size))

    @property
    def extent(self) -> Size:
        """How far the kernel reaches on each axis."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True))


Spec = LayerSpec | NdSpec


def shapes_in_words(rank: int, last: bool = False) -> str:
    """What a model takes, with its shape.

    >>> shapes_in_words(1), shapes_in_words(2, last=True)
    ('sequences (N, C, L)', 'images (N, H, W, C)')
    """
    first, channels, *others = SHAPES[rank][1:-1].split(", ")
    return f"{WHAT[rank]} ({', '.join([first, *others, channels] if last else [first, channels, *others])})"


def window(size: Sequence[int], **given: Any) -> Spec:
    """The options of a window or a kernel with so many axes."""
    return LayerSpec(tuple(size), **given) if len(size) == 2 else NdSpec(tuple(size), **given)


def fixed_padding(spec: Spec) -> Ends | str:
    """A layer's padding in integers, unless it depends on the image's size."""
    by_size = isinstance(spec.padding, str) and spec.padding.startswith("same") and max(spec.stride) > 1
    return spec.padding if by_size else padding_in(spec, (2**20,) * len(spec.kernel_size))


def padding_in(spec: Spec, size: Sequence[int]) -> Ends:
    """A layer's padding in integers, for an image of a size."""
    if isinstance(spec, LayerSpec):
        geometry, padding = options(spec.kernel_size, spec.stride, spec.padding, dilation=spec.dilation)
        return lower(geometry, padding, size).padding
    if len(size) != len(spec.kernel_size):
        what, given = (WHAT.get(len(axes), f"{len(axes)} axes") for axes in (spec.kernel_size, size))
        raise ShapeError(f"X: got {given}, expected {what}.", hint="a model has layers of one number of axes.")
    pads: list[tuple[int, int]] = []
    for axis, (n, k, s, d) in enumerate(zip(size, spec.kernel_size, spec.stride, spec.dilation, strict=True)):
        given_pads = spec.padding if isinstance(spec.padding, str) else ((0, 0), spec.padding[axis])
        pads.append(padding_in(LayerSpec((1, k), stride=(1, s), padding=given_pads, dilation=(1, d)), (1, n))[1])
    return tuple(pads)


def depends_on_size(padding: str) -> UnsupportedError:
    """The error of a framework that doesn't have a padding."""
    return UnsupportedError(f"padding={padding!r} with a stride depends on the image's size, which is not known.")


def is_padded(padding: Ends | str) -> bool:
    """Whether a padding adds anything, or may.

    >>> is_padded(((0, 0),)), is_padded(((0, 1), (0, 0))), is_padded("same")
    (False, True, True)
    """
    return isinstance(padding, str) or any(map(any, padding))


def around(padding: Sequence[int]) -> Ends:
    """The same padding at both ends of each axis."""
    return tuple((n, n) for n in padding)


def causal(kernel_size: Size, dilation: Size) -> Ends:
    """The padding before each axis with which no result depends on what comes later.

    >>> causal((3,), (2,))
    ((4, 0),)
    """
    return tuple(((k - 1) * d, 0) for k, d in zip(kernel_size, dilation, strict=True))


def is_around(pads: Ends) -> bool:
    """Whether both ends of each axis have the same padding."""
    return all(before == after for before, after in pads)


def starts(pads: Ends | str) -> Size:
    """What stands before each axis; with `is_around` also behind it."""
    assert not isinstance(pads, str)
    return tuple(before for before, _ in pads)


def per_axis(value: Any, rank: int) -> tuple[Any, ...]:
    """A number for each axis, of one for all or of as many.

    >>> per_axis(2, 3), per_axis([4], 1)
    ((2, 2, 2), (4,))
    """
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank


def image_size(name: str, value: object, rank: int) -> Size:
    """An argument that is one size for all axes, or a tuple of one for each.

    >>> image_size("input_size", 5, 3), image_size("input_size", (5,), 1)
    ((5, 5, 5), (5,))

    Raises:
        GeometryError: it isn't.
    """
    if rank == 2:
        return pair(name, value, 1)
    if isinstance(value, (tuple, list)) and len(value) != rank:
        what = "the length" if rank == 1 else "(depth, rows, columns)"
        raise GeometryError(
            f"{name}: got {shown(value)}, expected an int or {rank} of them, for {WHAT[rank]}.", hint=f"give {what}."
        )
    return tuple(integer(name, n, 1) for n in per_axis(value, rank))


def to_last(rank: int) -> tuple[int, ...]:
    """The permutation of the axes from channels first to channels last.

    >>> to_last(2)
    (0, 2, 3, 1)
    """
    return (0, *range(2, rank + 2), 1)


def to_first(rank: int) -> tuple[int, ...]:
    """The permutation of the axes from channels last to channels first.

    >>> to_first(2)
    (0, 3, 1, 2)
    """
    return (0, rank + 1, *range(1, rank + 1))


def hwio(kernel: np.ndarray) -> np.ndarray:
    """A kernel OIHW, or one of any number of axes, with outputs and inputs last."""
    return kernel.transpose(*range(2, kernel.ndim), 1, 0)


def oihw(kernel: np.ndarray) -> np.ndarray:
    """A kernel HWIO, or one of any number of axes, with outputs and inputs first."""
    rank = kernel.ndim - 2
    return kernel.transpose(rank + 1, rank, *range(rank))


def times(size: Sequence[int]) -> str:
    """A size in words.

    >>> times((4, 5)), times((7,))
    ('4x5', '7')
    """
    return "x".join(map(str, size))
