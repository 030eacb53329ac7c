"""Dtypes by their NumPy names, and the one promotion table that every backend follows.

| among X, K and bias | result |
|---|---|
| only integers and booleans | int64, exact |
| floating dtypes, with or without integers | the widest floating dtype; float16 with bfloat16 gives float32 |
| complex with any of them | complex of that width (complex64 at least) |

Lists and Python numbers are weak, and so are NumPy arrays beside another framework's tensor: their kind
(integer, floating, complex) counts and their width doesn't. A weak floating value beside integers alone
gives float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .errors import DTypeError

INTEGERS = frozenset(["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
FLOATS = ("float16", "bfloat16", "float32", "float64")
COMPLEX = ("complex64", "complex128")
# The bits of the significand, with the hidden one: the unit roundoff is 2**-bits.
SIGNIFICAND = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}
# With `reproducible=True`, numbers nearer to zero than these count as zero; so do products of two float64 numbers that
# are nearer than `LEAST_PRODUCT`.
LEAST = {"float32": 2.0**-126, "float64": 2.0**-1000}
LEAST_PRODUCT = 2.0**-960


def dtype_name(dtype: Any) -> str:
    """The NumPy name of a framework's dtype, a NumPy dtype, a scalar type or a name.

    >>> dtype_name(np.float32), dtype_name(np.dtype("int8")), dtype_name("bfloat16")
    ('float32', 'int8', 'bfloat16')
    """
    if not isinstance(dtype, str):
        name = getattr(dtype, "name", None)
        if isinstance(name, str):
            return name
        if isinstance(dtype, type):
            return np.dtype(dtype).name
    return str(dtype).rpartition(".")[2]


def itemsize(dtype: str | None) -> int:
    """The bytes of a number of a dtype; if it isn't known, those of float16.

    >>> itemsize("float32"), itemsize("complex128"), itemsize("bool")
    (4, 16, 1)
    """
    digits = "".join(filter(str.isdigit, dtype or "float16"))
    return int(digits) // 8 if digits else 1


def promote(strong: Iterable[str], weak: Iterable[str] = ()) -> str:
    """The result's dtype for arguments of these dtypes (the table at the top of this module).

    >>> promote(["float32", "float64"]), promote(["float16", "bfloat16"]), promote(["uint8", "int32"])
    ('float64', 'float32', 'int64')
    >>> promote(["float32"], weak=["float64"]), promote(["uint8"], weak=["float64"])
    ('float32', 'float32')
    """
    strong, weak = set(strong), set(weak)
    if not (strong | weak) - INTEGERS:
        return "int64"
    widths = {_width(name) for name in strong - INTEGERS} or {"float32"}
    width = "float32" if widths == {"float16", "bfloat16"} else max(widths, key=FLOATS.index)
    if (strong | weak) & set(COMPLEX):
        return "complex128" if width == "float64" else "complex64"
    return width


def _width(name: str) -> str:
    """The dtype of a number's real part."""
    return {"complex64": "float32", "complex128": "float64"}.get(name, name)


def check_numeric(name: str, dtype: str) -> None:
    """Raise `DTypeError` unless `dtype` is one that convlab computes with.

    >>> check_numeric("X", "object")
    Traceback (most recent call last):
    convlab.errors.DTypeError: X: got dtype object, expected a number dtype. Hint: ...
    """
    if dtype not in INTEGERS and dtype not in FLOATS and dtype not in COMPLEX:
        raise DTypeError(
            f"{name}: got dtype {dtype}, expected a number dtype.",
            hint=f"convert it to one of {', '.join(FLOATS)}, or to integers, first.",
        )
