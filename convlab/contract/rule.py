"""`Rule`: a correlation, or one of its gradients, as a value that every framework can give a custom gradient.

Result, gradient of X and gradient of K are the three derivatives of one trilinear form, so that each derivative of one
of them is another: whatever computes these three computes derivatives of any order. `convlab.correlation.compute`
computes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from ..geometry.geometry import PADDING_MODES, Geometry, Pair

Part = Literal["y", "x", "k", "b"]
Algorithm = Literal["auto", "direct", "native", "taps", "phase", "fft", "separable", "host"]
RuleAlgorithm = Algorithm | Literal["reproducible"]
ALGORITHMS: tuple[Algorithm, ...] = ("auto", "direct", "native", "taps", "phase", "fft", "separable", "host")
CODE = 16  # the length of `Rule.encode`

_PARTS: tuple[Part, ...] = ("y", "x", "k", "b")
_ALGORITHMS: tuple[RuleAlgorithm, ...] = ("reproducible", *ALGORITHMS)


class Rule(NamedTuple):
    """A function of tensors with its gradient, for `Operations.apply`: the result or one of its gradients.

    X is (N, C, H, W), K (O, C/groups, h, w), all tensors of one floating dtype.

    Attributes:
        part: the result and the inputs: "y" is Y from (X, K) or (X, K, bias), "x" the gradient of X from (dY, K), "k"
            that of K from (X, dY), "b" that of the bias from dY. "x" alone is also `conv_transpose2d`: X from (Y, K)
            or (Y, K, bias).
        geometry: where the kernel meets the image.
        size: X's (H, W), which the parts "x" and "k" need.
        algorithm: "reproducible" or one of corr2d's; only "reproducible" takes a bias.
    """

    part: Part
    geometry: Geometry
    size: Pair = (0, 0)
    algorithm: RuleAlgorithm = "reproducible"

    def derivatives(self, shape: Sequence[int]) -> list[tuple[Rule, int | None, int | None]]:
        """For each of the two inputs: the rule that computes its gradient, and where that rule's two inputs come from.

        For an input's origin, 0 and 1 are this rule's inputs and None is the gradient of its result. `shape` is the
        shape of the first input.
        """
        size = self.size if self.part == "x" else (shape[2], shape[3])
        parts: dict[Part, list[tuple[Part, int | None, int | None]]] = {
            "y": [("x", None, 1), ("k", 0, None)],
            "x": [("y", None, 1), ("k", None, 0)],
            "k": [("x", 1, None), ("y", 0, None)],
        }
        return [(self._replace(part=part, size=size), a, b) for part, a, b in parts[self.part]]

    def output_shape(self, *shapes: Sequence[Any]) -> tuple[Any, ...]:
        """The result's shape for inputs of these shapes."""
        first, geometry = shapes[0], self.geometry
        if self.part == "y":
            return (first[0], shapes[1][0], *geometry.output_size((first[2], first[3])))
        if self.part == "x":
            return (first[0], shapes[1][1] * geometry.groups, *self.size)
        if self.part == "k":
            return (shapes[1][1], first[1] // geometry.groups, *geometry.kernel_size)
        return (first[1],)

    def products(self, *shapes: Sequence[int]) -> int:
        """How many products are added up for inputs of these shapes."""
        if self.part == "b":
            return math.prod(shapes[0])
        result = self.output_shape(*shapes)
        outputs, kernel = {"y": (result, shapes[1]), "x": shapes, "k": (shapes[1], result)}[self.part][:2]
        return math.prod(outputs) * math.prod(kernel[1:])

    def encode(self) -> list[int]:
        """The rule as `CODE` integers, for frameworks whose operators take nothing else."""
        geometry = self.geometry
        (top, bottom), (left, right) = geometry.padding
        return [
            _PARTS.index(self.part),
            _ALGORITHMS.index(self.algorithm),
            *self.size,
            *geometry.kernel_size,
            *geometry.stride,
            *(top, bottom, left, right),
            PADDING_MODES.index(geometry.padding_mode),
            *geometry.dilation,
            geometry.groups,
        ]

    @classmethod
    def decode(cls, code: Sequence[int]) -> Rule:
        """The inverse of `encode`.

        >>> rule = Rule("x", Geometry((3, 5), stride=(2, 1), padding=((1, 2), (0, 3)), groups=2), (7, 8))
        >>> Rule.decode(rule.encode()) == rule
        True
        """
        part, algorithm, height, width, h, w, sh, sw, top, bottom, left, right, mode, dh, dw, groups = code
        pads = ((top, bottom), (left, right))
        geometry = Geometry((h, w), (sh, sw), pads, PADDING_MODES[mode], (dh, dw), groups)
        return cls(_PARTS[part], geometry, (height, width), _ALGORITHMS[algorithm])
