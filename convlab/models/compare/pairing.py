"""Which layers of two models belong together."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np

from ...errors import ModelError
from ..layers.flattening import ORDERS
from ..layers.layer import Dense, Layer
from ..layers.steps import Step

# The numbers that are looked at together.
_BLOCK = 2**20
Pairs = list[tuple[Step, Step]]


def paired(
    first: Sequence[Step], second: Sequence[Step], names: Mapping[str, str] | None, in_order: bool
) -> tuple[Pairs, str]:
    """The pairs of steps that belong together, and why there are no more of them; "" if all are paired.

    Steps of models that call them `in_order` are paired in that order. Other models list their layers in an order of
    their own: there equal names count first, then equal weights, and then the order among layers of a kind.
    """
    if names is not None:
        return _named(first, second, names), ""
    return _in_order(first, second) if in_order else _matched(first, second)


def _named(first: Sequence[Step], second: Sequence[Step], names: Mapping[str, str]) -> Pairs:
    if not names:
        raise ModelError("names: got no pair of layers, expected some.", hint="names={of_a: of_b}, or leave it out.")
    mine, theirs = ({step.path: step for step in steps} for steps in (first, second))
    for known, given in ((mine, names), (theirs, names.values())):
        for name in given:
            if name not in known:
                raise ModelError(f"names: got {name!r}, expected one of {', '.join(known)}.", hint="names={of_a: of_b}")
    return [(mine[one], theirs[two]) for one, two in names.items()]


def _in_order(first: Sequence[Step], second: Sequence[Step]) -> tuple[Pairs, str]:
    pairs: Pairs = []
    for one, two in zip(first, second, strict=False):
        if one.main.kind != two.main.kind:
            return pairs, f"where the first model has {_called(one)}, the second has {_called(two)}"
        pairs.append((one, two))
    if len(first) != len(second):
        which, longer = ("first", first) if len(first) > len(second) else ("second", second)
        return pairs, f"the {which} model goes on with {_called(longer[len(pairs)])}"
    return pairs, ""


def _matched(first: Sequence[Step], second: Sequence[Step]) -> tuple[Pairs, str]:
    partner: dict[int, Step] = {}
    for key in (_by_name, _by_weights, _by_kind):
        taken = set(map(id, partner.values()))
        _match(
            [step for step in first if id(step) not in partner],
            [step for step in second if id(step) not in taken],
            key,
            partner,
        )
    pairs = [(step, partner[id(step)]) for step in first if id(step) in partner]
    taken = set(map(id, partner.values()))
    for which, steps, used in (("first", first, set(partner)), ("second", second, taken)):
        for step in steps:
            if id(step) not in used:
                other = "second" if which == "first" else "first"
                return pairs, f"no layer of the {other} model belongs to {_called(step)} of the {which} one"
    return pairs, ""


def _match(
    first: Sequence[Step],
    second: Sequence[Step],
    key: Callable[[Sequence[Step]], list[Hashable]],
    partner: dict[int, Step],
) -> None:
    """Pair the steps whose keys occur once on each side."""
    mine, theirs = key(first), key(second)
    counts = Counter(mine), Counter(theirs)
    other = dict(zip(theirs, second, strict=True))
    for name, step in zip(mine, first, strict=True):
        if counts[0][name] == counts[1][name] == 1:
            partner[id(step)] = other[name]


def _by_name(steps: Sequence[Step]) -> list[Hashable]:
    """The path without what frameworks write between its parts, as in "block.0.conv1" and "block_0/conv1"."""
    return [(step.main.kind, *path_words(step)) for step in steps]


def path_words(step: Step) -> tuple[str, ...]:
    """The words and numbers of a step's path."""
    return tuple(re.findall(r"[a-z]+|[0-9]+", step.path.lower()))


def _by_weights(steps: Sequence[Step]) -> list[Hashable]:
    return [(step.main.kind, *(_bytes(getattr(step.main, name)) for name in step.main.arrays)) for step in steps]


def _bytes(array: np.ndarray | None) -> Hashable:
    return None if array is None else (array.shape, fingerprint(array))


def fingerprint(array: np.ndarray) -> bytes:
    """What arrays of the same numbers have in common, whatever their dtypes.

    >>> numbers = np.array([1.0, 2.0])
    >>> fingerprint(numbers.astype("float32")) == fingerprint(numbers) != fingerprint(numbers[::-1])
    True
    """
    numbers = hashlib.blake2b(digest_size=16)
    few = max(1, _BLOCK // max(1, array[:1].size))  # in float64 a whole dense layer may be large
    for start in range(0, len(array), few):
        numbers.update(np.ascontiguousarray(array[start : start + few], np.float64).data)
    return numbers.digest()


def _by_kind(steps: Sequence[Step]) -> list[Hashable]:
    """The number of steps of the same kind before each step."""
    counts: Counter[str] = Counter()
    keys: list[Hashable] = []
    for step in steps:
        keys.append((step.main.kind, counts[step.main.kind]))
        counts[step.main.kind] += 1
    return keys


def _called(step: Step) -> str:
    return f"{repr(step.path) if step.path else 'the layer'} ({step.main.kind})"


def fitting_layer(first: Step, second: Step, channels: int = 0) -> Layer:
    """The first step's layer, whose arrays must have the shapes of the second's.

    A dense layer on images of so many channels (0: it isn't known) that the second flattens in another order has its
    columns reordered.
    """
    a, b = first.main, second.main
    for name in a.arrays:
        arrays = [getattr(layer, name) for layer in (a, b)]
        shapes = [None if array is None else np.shape(array) for array in arrays]
        if shapes[0] != shapes[1]:
            raise ModelError(
                f"{second.path or 'the layer'}: got {name} of shape {shapes[0]} from {first.path or 'the layer'}, "
                f"expected {shapes[1]} (kernels as OIHW).",
                hint="names={source's: target's} says which layers belong together.",
            )
    orders = first.flattened, second.flattened
    if isinstance(a, Dense) and "none" not in orders and orders[0] != orders[1]:
        if channels and a.input_channels % channels == 0:
            return a.reordered(channels, orders[1])
        raise ModelError(
            f"{second.path}: its pixels are flattened {ORDERS[orders[1]]}, the source's {ORDERS[orders[0]]}.",
            hint="convlab.port(source, to=..., input_size=...) reorders the dense layer.",
        )
    return a
