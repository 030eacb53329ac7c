"""Checks on single arguments: each returns the value in its plain type, or raises an error that names the argument."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Mapping
from typing import TypeVar

from ..errors import GeometryError
from .geometry import LONGEST, MOST_BITS, Pair

Name = TypeVar("Name", bound=str)


def integer(name: str, value: object, minimum: int) -> int:
    """`value` as an int of at least `minimum`, or a `GeometryError` that names the argument."""
    # The common case first: it takes a tenth of the time.
    if type(value) is int and LONGEST >= value >= minimum:
        return value
    number = whole_number(value)
    if number is None or number < minimum or number.bit_length() > MOST_BITS:
        kind = "a positive int" if minimum else "an int of at least 0"
        most = "" if number is None or number < minimum else f" of at most {MOST_BITS} bits"
        raise GeometryError(
            f"{name}: got {shown(value)}, expected {kind}{most}.",
            hint=f"give {value}, not {value!r}."
            if isinstance(value, str) and value.isdigit()
            else f"{name}={max(minimum, 0)} is the least that works.",
        )
    return number


def whole_number(value: object) -> int | None:
    """An integer of any kind as an int; None for anything else.

    >>> import numpy as np
    >>> whole_number(np.int64(-2)), whole_number(True), whole_number(1.0)
    (-2, None, None)
    """
    try:
        return None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def real(value: object) -> float:
    """A real number as a float; nan for anything else, also for what is too large for one.

    >>> real(3), real(10**400), real("3"), real(True)
    (3.0, nan, nan, nan)
    """
    try:
        return float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return math.nan


def shown(value: object) -> str:
    """A value in an error message, in at most some 200 characters.

    >>> shown(2.5), shown(10**5000)
    ('2.5', 'an integer of 16610 bits')
    """
    if type(value) is int and value.bit_length() > MOST_BITS:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, (list, tuple)) and len(value) > 20:
        return f"a {type(value).__name__} of {len(value)}"
    try:
        text = repr(value)
    except ValueError:
        # Python writes no integer of more than 4300 digits.
        return f"a {type(value).__name__} of long integers"
    return text if len(text) <= 200 else f"{text[:200]}..."


def pair(name: str, value: object, minimum: int) -> Pair:
    """An int, or a (rows, columns) pair of them, as a pair.

    >>> pair("stride", 2, 1), pair("stride", (1, 3), 1)
    ((2, 2), (1, 3))
    """
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise GeometryError(
                f"{name}: got {shown(value)}, expected an int or a pair of ints.",
                hint="give (rows, columns).",
            )
        return integer(name, value[0], minimum), integer(name, value[1], minimum)
    number = integer(name, value, minimum)
    return number, number


def boolean(name: str, value: object) -> bool:
    """`value` if it is True or False, or a `GeometryError` that names the argument."""
    if value is not True and value is not False:
        raise GeometryError(f"{name}: got {shown(value)}, expected True or False.", hint=f"{name}=True asks for it.")
    return value


def choice(
    name: str, value: object, allowed: tuple[Name, ...], aliases: Mapping[str, tuple[str, ...]] | None = None
) -> Name:
    """The one of `allowed` that a value names, or a `GeometryError` that lists them and names near ones.

    Args:
        name: the argument's name.
        value: what was given.
        allowed: convlab's names.
        aliases: by convlab's name, other names in lower case; names may then be in upper or lower case.

    >>> choice("padding_mode", "Mirror", ("zeros", "reflect"), {"reflect": ("mirror",)})
    'reflect'
    >>> choice("padding_mode", "simetric", ("zeros", "symmetric"))
    Traceback (most recent call last):
    convlab.errors.GeometryError: padding_mode: got 'simetric', ... Hint: did you mean 'symmetric'?
    """
    for own in allowed:
        # An array compares by element.
        if isinstance(value, str) and value == own:
            return own
    if isinstance(value, str) and aliases is not None:
        for own in allowed:
            if value.lower() == own.lower() or value.lower() in aliases.get(own, ()):
                return own
    hint = f"for example {name}={allowed[0]!r}."
    if isinstance(value, str):
        import difflib  # deferred: only errors need it

        names: dict[str, str] = {own.lower(): own for own in allowed}
        names |= {alias: alias for own in allowed for alias in (aliases or {}).get(own, ())}
        near = [names[close] for close in difflib.get_close_matches(value.lower(), names, 2)]
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else hint
    raise GeometryError(f"{name}: got {shown(value)}, expected one of {', '.join(allowed)}.", hint=hint)
