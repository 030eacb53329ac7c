"""What numba lacks for functions that C calls: memory at an address, atomic sums, calls by address, symbols.

A job (`convlab.compiled.stages`) is an array of addresses and counters. One of its addresses is that of a stage, which
is a header of numbers, the lengths of some arrays of int64, and the arrays one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .vectors import Array, kernel

if TYPE_CHECKING:  # numba's type hints are incomplete, and differ between its versions
    numba: Any
    ir: Any
    cgutils: Any
else:
    import numba
    from llvmlite import ir
    from numba.core import cgutils

_INT, _BYTES = ir.IntType(64), ir.IntType(8).as_pointer()


def c_function(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Make Python functions C functions of a numba signature, which never take the interpreter's lock.

    Their code is kept on disk if possible. They mustn't raise errors.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        try:
            return numba.cfunc(signature, cache=True, error_model="numpy")(function)
        except RuntimeError:
            # There is no place to write to.
            return numba.cfunc(signature, error_model="numpy")(function)

    return compiled


def _of_integers(emit: Callable[..., Any], result: Any) -> Any:
    """The signature and code of an intrinsic whose arguments are all int64, or tuples of int64."""

    def typed(_: Any, *kinds: Any) -> tuple[Any, Any]:
        return result(*(kind if isinstance(kind, numba.types.BaseTuple) else numba.types.int64 for kind in kinds)), emit

    return typed


@numba.extending.intrinsic
def pointer(typing: Any, address: Any) -> tuple[Any, Any]:
    """The address as a pointer, for `numba.carray`."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], _BYTES)

    return _of_integers(emit, numba.types.voidptr)(typing, address)


@numba.extending.intrinsic
def fetch_add(typing: Any, address: Any, number: Any) -> tuple[Any, Any]:
    """Add a number to the int64 at an address, atomically; the value before."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = builder.inttoptr(values[0], _INT.as_pointer())
        return builder.atomic_rmw("add", place, values[1], "seq_cst")

    return _of_integers(emit, numba.types.int64)(typing, address, number)


@numba.extending.intrinsic
def call(typing: Any, function: Any, arguments: Any) -> tuple[Any, Any]:
    """Call the C function at an address with a tuple of int64, or of addresses; its result as an int64."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        numbers = cgutils.unpack_tuple(builder, values[1])
        kind = ir.FunctionType(_INT, [_INT] * len(numbers))
        return builder.call(builder.inttoptr(values[0], kind.as_pointer()), numbers)

    return _of_integers(emit, numba.types.int64)(typing, function, arguments)


@numba.extending.intrinsic
def allocate(typing: Any, size: Any) -> tuple[Any, Any]:
    """The address of so many new bytes."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.ptrtoint(context.nrt.allocate(builder, values[0]), _INT)

    return _of_integers(emit, numba.types.int64)(typing, size)


@numba.extending.intrinsic
def release(typing: Any, address: Any) -> tuple[Any, Any]:
    """Give back what `allocate` gave."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        context.nrt.free(builder, builder.inttoptr(values[0], _BYTES))
        return context.get_dummy_value()

    return _of_integers(emit, numba.types.void)(typing, address)


@numba.extending.intrinsic
def symbol(typing: Any, name: Any) -> tuple[Any, Any]:
    """The address that `llvmlite.binding.add_symbol` has given to a literal name.

    Code on disk looks names up when it is loaded, so that no process finds another's addresses in it.
    """

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        name, module = signature.args[0].literal_value, builder.module
        place = module.globals.get(name) or cgutils.add_global_variable(module, ir.IntType(8), name)
        return builder.ptrtoint(place, _INT)

    if not isinstance(name, numba.types.StringLiteral):
        raise numba.errors.RequireLiteralValue("symbol: got a value, expected a literal name.")
    return numba.types.int64(name), emit


# The entries of a job: how many threads still know it, the next chunk of work, the chunks done, and those whose result
# isn't what the stage promises; the addresses of the function, of two inputs, of the result, of memory for what is
# computed in between, and of the stage.
USERS, NEXT, DONE, UNSOUND, FUNCTION, A, B, Y, SPACE, STAGE, JOB = range(11)
# The header of a stage: which function; pieces of work; how many make a chunk; how many float64 of the space to clear
# first; how far away the next stage is after a sound and an unsound result; how many arrays there are.
KIND, ITEMS, CHUNK, CLEAR, SOUND, OTHERWISE, ARRAYS, HEADER = range(8)


@kernel
def integers(address: int, count: int) -> Array:
    """The int64 numbers at an address."""
    return numba.carray(pointer(address), (count,), np.int64)


@kernel
def table(job: int, index: int) -> Array:
    """The stage's array of this index."""
    address = integers(job, JOB)[STAGE]
    count = integers(address, HEADER)[ARRAYS]
    lengths = integers(address + 8 * HEADER, count)
    return integers(address + 8 * (HEADER + count + lengths[:index].sum()), lengths[index])


@kernel
def tensor(job: int, which: int, index: int, like: Array) -> Array:
    """The job's array `which`, `A` to `SPACE`, of rank 4 and like's dtype; the stage's array `index` is its shape."""
    place, shape = pointer(integers(job, JOB)[which]), table(job, index)
    return numba.carray(place, (shape[0], shape[1], shape[2], shape[3]), like.dtype)


@kernel
def sums(job: int, index: int) -> Array:
    """The job's space as float64 of rank 5; the stage's array `index` is its shape."""
    place, shape = pointer(integers(job, JOB)[SPACE]), table(job, index)
    return numba.carray(place, (shape[0], shape[1], shape[2], shape[3], shape[4]), np.float64)


@kernel
def floats(job: int, index: int, like: Array) -> Array:
    """The stage's array `index`, which holds floats of like's dtype."""
    words = table(job, index)
    return numba.carray(pointer(words.ctypes.data), (8 * words.size // like.itemsize,), like.dtype)
