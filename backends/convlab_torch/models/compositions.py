"""PyTorch's functions that are several simpler ones: powers, variances, a logarithm of sums."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.fx
import torch.nn.functional as F

from .across_channels import anchors
from .rewriting import Call, arguments_of

# An integer power up to this one is a product; a larger one would be a long one.
_MOST_FACTORS = 8
Composed = torch.fx.Node | None


def _powered(node: torch.fx.Node, call: Call) -> Composed:
    given = arguments_of(node, "input", "exponent")
    return _power(given["input"], given.get("exponent"), call)


def _power(x: Any, exponent: Any, call: Call) -> Composed:
    """A power with a number that isn't 2, by products, roots and reciprocals, or exp(exponent * log(x))."""
    if isinstance(exponent, torch.fx.Node) and _is_positive(x):
        return call(torch.exp, call(operator.mul, call(torch.log, x), exponent))
    if not isinstance(x, torch.fx.Node) or not isinstance(exponent, (int, float)) or exponent in (0, 1, 2):
        return None
    if exponent < 0:
        power = x if exponent == -1 else call(operator.mul, x, x) if exponent == -2 else _power(x, -exponent, call)
        return None if power is None else call(torch.reciprocal, power)
    if exponent == 0.5:
        return call(torch.sqrt, x)
    if exponent != int(exponent):
        return call(torch.exp, call(operator.mul, call(torch.log, x), float(exponent)))
    if exponent > _MOST_FACTORS:
        return None
    product = x
    for _ in range(int(exponent) - 1):
        product = call(operator.mul, product, x)
    return product


def _is_positive(x: Any) -> bool:
    """Whether a node's numbers are surely above 0: behind a limit or an exponential, and their means."""
    if not isinstance(x, torch.fx.Node):
        return False
    if x.target in (torch.exp, "exp"):
        return True
    if x.target in (torch.clamp, "clamp", torch.clamp_min, "clamp_min"):
        least = arguments_of(x, "input", "min").get("min")
        return isinstance(least, (int, float)) and least > 0
    return x.target in (torch.mean, "mean", F.avg_pool2d, F.adaptive_avg_pool2d) and _is_positive(x.args[0])


def _quotient(node: torch.fx.Node, call: Call) -> Composed:
    """A number by a tensor."""
    number, *others = node.args
    if not isinstance(number, (int, float)) or len(others) != 1 or node.kwargs:
        return None
    inverse = call(torch.reciprocal, others[0])
    return inverse if number == 1 else call(operator.mul, inverse, number)


def _spread(roots: bool, with_mean: bool = False) -> Callable[[torch.fx.Node, Call], Any]:
    """The variance along axes, or its root; `with_mean` for both it and the mean."""

    def composed(node: torch.fx.Node, call: Call) -> Any:
        given = arguments_of(node, "input", "dim", "unbiased", "keepdim")
        if isinstance(given.get("dim"), bool):  # var(unbiased) of all axes
            return None
        keepdim, dim, x = bool(given.get("keepdim", False)), given.get("dim"), given["input"]
        less = given.get("correction", given.get("unbiased", True))
        if dim is None or not isinstance(less, (bool, int)) or given.keys() - _OF_SPREAD:
            return None
        centred = call(operator.sub, x, call(torch.mean, x, dim, True))
        squares = call(operator.mul, centred, centred)
        if not less:
            variance = call(torch.mean, squares, dim, keepdim)
        else:
            # How many numbers there are depends on the image's size, so that it is computed, as a sum of ones.
            ones = call(operator.add, call(operator.mul, x, 0.0), 1.0)
            count = call(operator.sub, call(torch.sum, ones, dim, keepdim), float(less))
            variance = call(operator.truediv, call(torch.sum, squares, dim, keepdim), count)
        result = call(torch.sqrt, variance) if roots else variance
        return (result, call(torch.mean, x, dim, keepdim)) if with_mean else result

    return composed


_OF_SPREAD = {"input", "dim", "unbiased", "correction", "keepdim"}


def _log_of_sums(node: torch.fx.Node, call: Call) -> Composed:
    given = arguments_of(node, "input", "dim", "keepdim")
    x, dim, keepdim = given["input"], given.get("dim"), bool(given.get("keepdim", False))
    greatest = call(torch.amax, x, dim, True)
    total = call(torch.sum, call(torch.exp, call(operator.sub, x, greatest)), dim, keepdim)
    added = greatest if keepdim else call(torch.amax, x, dim, False)
    return call(operator.add, call(torch.log, total), added)


def _cosine(node: torch.fx.Node, call: Call) -> Composed:
    """The cosine of the angle between the vectors along an axis, which is taken away."""
    given = {"dim": 1, "eps": 1e-8, **arguments_of(node, "x1", "x2", "dim", "eps")}
    dim, lengths = given["dim"], []
    for x in (given["x1"], given["x2"]):
        root = call(torch.sqrt, call(torch.sum, call(operator.mul, x, x), dim, True))
        lengths.append(call(torch.clamp_min, root, given["eps"]))
    product = call(torch.sum, call(operator.mul, given["x1"], given["x2"]), dim, True)
    return call(torch.squeeze, call(operator.truediv, product, call(operator.mul, *lengths)), dim)


def _selected(node: torch.fx.Node, call: Call) -> Composed:
    """`torch.where` of whether x is above 0: a ReLU, also a leaky one."""
    above, x, below = node.args if len(node.args) == 3 else (None, None, None)
    if not isinstance(above, torch.fx.Node) or above.target not in _ABOVE or above.args != (x, 0) or above.kwargs:
        return None
    if below == 0 or (isinstance(below, torch.fx.Node) and below.target is torch.zeros_like):
        return call(F.relu, x)
    if isinstance(below, torch.fx.Node) and below.target in (operator.mul, torch.mul, "mul") and x in below.args:
        slope = below.args[1 - below.args.index(x)]
        return call(F.leaky_relu, x, slope) if isinstance(slope, (int, float)) else None
    return None


_ABOVE = (operator.gt, operator.ge, torch.gt, torch.ge, "gt", "ge")


# What a comparison says of the greater of two: whether a mask is true above a number, or below it.
_COMPARED = {"gt": True, "ge": True, "lt": False, "le": False}
_SAME_NUMBERS = ("float", "to", "type", "type_as")


def _compared(mask: Any) -> tuple[Any, float, bool] | None:
    """The tensor and the number that a mask compares, and whether it is true above; None for another mask."""
    while isinstance(mask, torch.fx.Node) and mask.target in _SAME_NUMBERS:
        mask = mask.args[0]
    name = getattr(mask.target, "__name__", mask.target) if isinstance(mask, torch.fx.Node) else ""
    if name not in _COMPARED or mask.kwargs or len(mask.args) != 2 or not isinstance(mask.args[1], (int, float)):
        return None
    return mask.args[0], float(mask.args[1]), _COMPARED[name]


def _above(x: Any, number: float, call: Call) -> torch.fx.Node:
    return call(F.threshold, x, number, 0.0) if number else call(F.relu, x)


def _masked(node: torch.fx.Node, call: Call) -> Composed:
    """A tensor times whether it is above a number, or below 0."""
    for x, mask in (node.args, node.args[::-1]) if len(node.args) == 2 and not node.kwargs else ():
        compared = _compared(mask)
        if compared is None or compared[0] is not x:
            continue
        if compared[2]:
            return _above(x, compared[1], call) if compared[1] >= 0 else None
        return call(torch.clamp_max, x, 0.0) if compared[1] == 0 else None
    return None


def _filled(node: torch.fx.Node, call: Call) -> Composed:
    """A tensor with a number in the place of those below a number, or above it."""
    given: Any = arguments_of(node, "input", "mask", "value")
    x, value, compared = given["input"], given.get("value"), _compared(given.get("mask"))
    if compared is None or compared[0] is not x or not isinstance(value, (int, float)):
        return None
    _, number, above = compared
    if value == number:
        return call(torch.clamp_max if above else torch.clamp_min, x, number)
    return _above(x, number, call) if value == 0 and not above else None


def _between(node: torch.fx.Node, call: Call) -> Composed:
    """`torch.lerp`, a weighed mean of two."""
    given = arguments_of(node, "input", "end", "weight")
    difference = call(operator.sub, given["end"], given["input"])
    return call(operator.add, given["input"], call(operator.mul, difference, given["weight"]))


def _repeated(node: torch.fx.Node, call: Call) -> Composed:
    """Channels that are repeated; `expand` of a single one."""
    x, *given = node.args
    times = given[0] if len(given) == 1 and isinstance(given[0], (tuple, list)) else given
    others = (times[0], *times[2:]) if len(times) > 2 else ()
    count = times[1] if others else None
    same = -1 if node.target == "expand" else 1
    if node.kwargs or any(each != same for each in others) or not isinstance(count, int) or count < 2:
        return None
    return call(torch.cat, [x] * count, 1) if others else None


def _narrowed(node: torch.fx.Node, call: Call) -> Composed:
    """Some of the channels that follow one another."""
    given = arguments_of(node, "input", "dim", "start", "length")
    start, length = given.get("start"), given.get("length")
    if given.get("dim") != 1 or not isinstance(start, int) or not isinstance(length, int) or start < 0:
        return None
    return call(operator.getitem, given["input"], (slice(None), slice(start, start + length)))


def _picked(node: torch.fx.Node, call: Call) -> Composed:
    """Channels by their numbers, `x[:, [2, 1, 0]]`: one behind the other."""
    x, index = node.args
    axes = index if isinstance(index, tuple) and len(index) > 1 else (None, None)
    numbers: Any = axes[1]
    plain = isinstance(numbers, list) and all(type(each) is int and each >= 0 for each in numbers)
    if not plain or not 1 < len(numbers) <= _MOST_PICKED or any(each != slice(None) for each in (axes[0], *axes[2:])):
        return None
    return call(torch.cat, [call(operator.getitem, x, (slice(None), slice(n, n + 1))) for n in numbers], 1)


def _side_by_side(node: torch.fx.Node, call: Call) -> Composed:
    """Equal parts of the channels as pixels side by side, `x.unflatten(1, (3, -1)).movedim(1, -1).flatten(-2)`."""
    moved: Any = node.args[0]
    parts: Any = moved.args[0] if getattr(moved, "target", None) in ("movedim", torch.movedim) else None
    if node.args[1:] != (-2,) or getattr(parts, "target", None) != "unflatten" or moved.args[1:] != (1, -1):
        return None
    image, axis, sizes = parts.args
    of_channels = axis == 1 and len(sizes) == 2 and isinstance(sizes[0], int) and sizes[1] == -1
    return call(anchors, image, sizes[0]) if of_channels else None


# More channels than that would be many slices.
_MOST_PICKED = 16

# The function that puts simpler calls in the place of one; None, or what is for both results of a function.
COMPOSITIONS: dict[Any, Callable[[torch.fx.Node, Call], Any]] = {
    **dict.fromkeys((operator.pow, torch.pow, "pow"), _powered),
    **dict.fromkeys((torch.rsqrt, "rsqrt"), lambda node, call: _power(node.args[0], -0.5, call)),
    **dict.fromkeys((operator.truediv, torch.div, torch.true_divide), _quotient),
    **dict.fromkeys((torch.var, "var"), _spread(roots=False)),
    **dict.fromkeys((torch.std, "std"), _spread(roots=True)),
    torch.var_mean: _spread(roots=False, with_mean=True),
    torch.std_mean: _spread(roots=True, with_mean=True),
    **dict.fromkeys((torch.logsumexp, "logsumexp"), _log_of_sums),
    F.cosine_similarity: _cosine,
    torch.cosine_similarity: _cosine,
    **dict.fromkeys((torch.where, "where"), _selected),
    operator.getitem: _picked,
    **dict.fromkeys((operator.mul, torch.mul, torch.multiply, "mul"), _masked),
    **dict.fromkeys((torch.masked_fill, "masked_fill"), _filled),
    **dict.fromkeys((torch.lerp, "lerp"), _between),
    **dict.fromkeys(("repeat", "expand"), _repeated),
    **dict.fromkeys((torch.narrow, "narrow"), _narrowed),
    **dict.fromkeys((torch.flatten, "flatten"), _side_by_side),
}
