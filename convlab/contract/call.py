"""`Call`: a checked call of `corr2d` or `conv_transpose2d`, without its tensors; `Variant`: the ways to compute one."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any, NamedTuple

from ..geometry.geometry import Geometry, Pair
from .rule import Part, Rule, RuleAlgorithm

Shape = tuple[int | None, ...]


class Variant(StrEnum):
    """An algorithm, or its compiled form on the memory of CPU tensors (`convlab.compiled`).

    >>> Variant.FFT_ON_HOST.algorithm, Variant.FFT_ON_HOST.on_host
    ('fft', True)
    """

    NATIVE = "native"
    TAPS = "taps"
    PHASE = "phase"
    FFT = "fft"
    FFT_ON_HOST = "fft@host"
    SEPARABLE = "separable"
    SEPARABLE_ON_HOST = "separable@host"
    HOST = "host"

    @property
    def algorithm(self) -> str:
        """What corr2d's `algorithm` calls it."""
        return _COMPILED.get(self.value, self.value)

    @property
    def on_host(self) -> bool:
        """Whether it is compiled and reads the tensors' own memory."""
        return self.value in _COMPILED


_COMPILED: dict[str, str] = {"host": "host", "fft@host": "fft", "separable@host": "separable"}


class Call(NamedTuple):
    """Everything about a call except its tensors; it serves any tensors of the same shapes and dtype.

    Attributes:
        geometry: stride, padding and so on, in integers.
        image: the shape of X, or of `conv_transpose2d`'s Y.
        kernel: the shape of K.
        dtype: the dtype of both, by its NumPy name; None while it isn't known.
        flipped: whether K is flipped first, as in `conv2d`.
        algorithm: the algorithm of the call's `Rule`; "native" for the framework's own convolution.
        variant: the variant that the planner chose for the result (`convlab.planning.choose`).
        inner: the backend that computes the chunks of a wrapping backend's result; "" for any other backend.
        part: "y" for `corr2d`, "x" for `conv_transpose2d`, which is the rule of X's gradient.
        output_padding: rows and columns that `conv_transpose2d` adds at the end, fewer than the stride.
    """

    geometry: Geometry
    image: Shape
    kernel: Shape
    dtype: str | None
    flipped: bool
    algorithm: RuleAlgorithm
    variant: Variant = Variant.NATIVE
    inner: str = ""
    part: Part = "y"
    output_padding: Pair = (0, 0)

    def rule(self) -> Rule:
        """The rule that computes the call on NCHW tensors of known sizes.

        >>> Call(Geometry((3, 3)), (5, 8, 9), (3, 3), "float32", False, "auto", part="x").rule().size
        (10, 11)
        """
        geometry = self.geometry._replace(data_format="NCHW")
        if self.part == "y":
            return Rule("y", geometry, algorithm=self.algorithm)
        height, width = self.canonical_shapes()[0][2:]
        return Rule("x", geometry, geometry.transposed_size((height, width), self.output_padding), self.algorithm)

    def canonical_shapes(self) -> tuple[Any, Any]:
        """The shapes of X and K as (N, C, H, W) and (O, C/groups, h, w).

        >>> Call(Geometry((3, 3)), (5, 8, 9), (3, 3), "float32", False, "auto").canonical_shapes()
        ((5, 1, 8, 9), (1, 1, 3, 3))
        """
        if len(self.kernel) == 2:
            return (math.prod(self.image[:-2]), 1, *self.image[-2:]), (1, 1, *self.kernel)  # type: ignore[arg-type]
        images, weights = (1, *self.image)[-4:], self.kernel
        if self.geometry.data_format == "NHWC":
            return tuple(images[i] for i in (0, 3, 1, 2)), tuple(weights[i] for i in (3, 2, 0, 1))
        return images, weights
