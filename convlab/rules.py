"""`Rule`: a correlation, or one of its gradients, as a value that every framework can give a custom gradient.

Result, gradient of X and gradient of K are the three derivatives of one trilinear form, so that each derivative of one
of them is another: whatever computes these three computes derivatives of any order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from . import planned, reproducible
from .contract import Operations
from .geometry import PADDING_MODES, Geometry, Pair
from .planned import ALGORITHMS

_PARTS = ("y", "x", "k", "b")
CODE = 16
_ALGORITHMS = ("reproducible", *ALGORITHMS)


class Rule(NamedTuple):
    """A function of tensors with its gradient, for `Operations.apply`: the result or one of its gradients.

    part "y": (X, K) or (X, K, bias) to the result Y; "x": (dY, K) to the gradient of X, "k": (X, dY) to that of K,
    "b": dY to that of the bias. X is (N, C, H, W), K (O, C/groups, h, w), all of one floating dtype; `size` is X's
    (H, W), which the parts "x" and "k" need. `algorithm` is "reproducible" or one of corr2d's; only "reproducible"
    knows a bias.
    """

    part: str
    geometry: Geometry
    size: Pair = (0, 0)
    algorithm: str = "reproducible"

    def compute(self, ops: Operations, *inputs: Any) -> Any:
        """The result for tensors with values, or while tracing; without gradient."""
        if self.algorithm == "reproducible":
            return reproducible.compute(ops, self, *inputs)
        return planned.compute(ops, self, *inputs)

    def gradients(self, ops: Operations, inputs: Sequence[Any], dy: Any, needed: Sequence[bool]) -> list[Any]:
        """The gradients of sum(dy * compute(*inputs)) with respect to the inputs; None where not needed."""
        if self.part == "b":
            return [ops.zeros(ops.sizes(inputs[0]), dy) + ops.reshape(dy, (1, -1, 1, 1))]
        found = [
            ops.apply(rule, *(dy if source is None else inputs[source] for source in sources)) if need else None
            for (rule, *sources), need in zip(self.derivatives(ops.sizes(inputs[0])), needed, strict=False)
        ]
        if len(inputs) == 3:
            found.append(ops.apply(self._replace(part="b"), dy) if needed[2] else None)
        return found

    def derivatives(self, shape: Sequence[int]) -> list[tuple[Rule, int | None, int | None]]:
        """The rules of the gradients of both inputs, each with its own inputs: 0 or 1, which of this rule's inputs;
        None, the gradient of the result. `shape` is the first input's."""
        size = self.size if self.part == "x" else (shape[2], shape[3])
        parts: dict[str, list[tuple[str, int | None, int | None]]] = {
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
        """How many products are added up, for inputs of these shapes."""
        if self.part == "b":
            return math.prod(shapes[0])
        result = self.output_shape(*shapes)
        outputs, kernel = {"y": (result, shapes[1]), "x": shapes, "k": (shapes[1], result)}[self.part][:2]
        return math.prod(outputs) * math.prod(kernel[1:])

    def encode(self) -> list[int]:
        """The rule as `CODE` integers, for frameworks whose operators take nothing else."""
        g = self.geometry
        (top, bottom), (left, right) = g.padding
        mode, pads = PADDING_MODES.index(g.padding_mode), (top, bottom, left, right)
        names = _PARTS.index(self.part), _ALGORITHMS.index(self.algorithm)
        return [*names, *self.size, *g.kernel_size, *g.stride, *pads, mode, *g.dilation, g.groups]

    @classmethod
    def decode(cls, code: Sequence[int]) -> Rule:
        """`encode` undone.

        >>> rule = Rule("x", Geometry((3, 5), stride=(2, 1), padding=((1, 2), (0, 3)), groups=2), (7, 8))
        >>> Rule.decode(rule.encode()) == rule
        True
        """
        part, algorithm, height, width, h, w, sh, sw, top, bottom, left, right, mode, dh, dw, groups = code
        pads = ((top, bottom), (left, right))
        geometry = Geometry((h, w), (sh, sw), pads, PADDING_MODES[mode], (dh, dw), groups)
        return cls(_PARTS[part], geometry, (height, width), _ALGORITHMS[algorithm])


def correlate(ops: Operations, x: Any, k: Any, b: Any, geometry: Geometry, algorithm: str) -> Any:
    """corr2d on NCHW or NHWC tensors of one floating dtype by a rule, with gradients; a bias only reproducibly."""
    nhwc = geometry.data_format == "NHWC"
    if nhwc:
        x, k = channels_first(ops, x, k)
    rule = Rule("y", geometry._replace(data_format="NCHW"), algorithm=algorithm)
    y = ops.apply(rule, x, k) if b is None else ops.apply(rule, x, k, ops.reshape(b, (-1,)))
    return ops.transpose(y, (0, 2, 3, 1)) if nhwc else y


def channels_first(ops: Operations, x: Any, k: Any) -> tuple[Any, Any]:
    """NHWC and HWIO as NCHW and OIHW."""
    return ops.transpose(x, (0, 3, 1, 2)), ops.transpose(k, (3, 2, 0, 1))
