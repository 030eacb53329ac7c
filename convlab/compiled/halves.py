"""float16 widened to float32 and back by vector instructions, which NumPy has not on every processor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .vectors import REGISTER, Array, Emitter, inlined, kernel

if TYPE_CHECKING:
    ir: Any

    from llvmlite.ir import Value
else:
    from llvmlite import ir

_LANES = REGISTER // 4


def _conversion(lanes: int) -> Any:
    """The numba function that converts so many numbers from one array to the other: uint16 memory holds float16."""

    def emit(e: Emitter, source: Value, target: Value, at: Value) -> None:
        half, single = (ir.VectorType(kind, lanes) for kind in (ir.HalfType(), ir.FloatType()))
        widens = isinstance(source.type.pointee, ir.IntType)
        before, after = (half, single) if widens else (single, half)
        places = [
            e.builder.bitcast(e.builder.gep(array, [at]), kind.as_pointer())
            for array, kind in ((source, before), (target, after))
        ]
        convert = e.builder.fpext if widens else e.builder.fptrunc
        numbers = convert(e.builder.load(places[0], align=2 if widens else 4), after)
        e.builder.store(numbers, places[1], align=4 if widens else 2)

    return inlined(emit)


_convert, _convert_one = _conversion(_LANES), _conversion(1)


@kernel
def _convert_all(source: Array, target: Array) -> None:
    whole = len(source) // _LANES * _LANES
    for at in range(0, whole, _LANES):
        _convert(source, target, at)
    for at in range(whole, len(source)):
        _convert_one(source, target, at)


def widened(x: np.ndarray) -> np.ndarray:
    """A C-contiguous float16 array in float32."""
    wide = np.empty(x.shape, np.float32)
    _convert_all(x.reshape(-1).view(np.uint16), wide.reshape(-1))
    return wide


def narrow_into(x: np.ndarray, out: np.ndarray) -> None:
    """Write a C-contiguous float32 array, rounded to float16, to a C-contiguous array of that dtype."""
    _convert_all(x.reshape(-1), out.reshape(-1).view(np.uint16))
