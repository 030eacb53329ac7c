"""What numba lacks for functions that C calls: memory at an address, atomic sums, calls by address, symbols.

A job (`convlab.compiled.stages`) is an array of addresses and counters. One of its addresses is that of a stage, which
is a header of numbers, the lengths of some arrays of int64, and the arrays one after the other.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .vectors import Array, kernel

if TYPE_CHECKING:  # numba's type hints are incomplete, and differ between its versions
    numba: Any
    ir: Any
    cgutils: Any

    from llvmlite.ir import Value
else:
    import numba
    from llvmlite import ir
    from numba.core import cgutils

_INT, _BYTES = ir.IntType(64), ir.IntType(8).as_pointer()


class _Code(NamedTuple):
    """Where instructions are written: numba's context and an LLVM builder."""

    context: Any
    builder: Any


def _instruction(result: Any) -> Callable[[Callable[..., Any]], Any]:
    """Make functions that write instructions, `emit(code, *values)`, functions that kernels call.

    Their arguments there are int64 or tuples of int64.
    """

    def intrinsic(emit: Callable[..., Any]) -> Any:
        def typed(_: Any, *kinds: Any) -> tuple[Any, Any]:
            wide = (kind if isinstance(kind, numba.types.BaseTuple) else numba.types.int64 for kind in kinds)
            return result(*wide), generate

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return emit(_Code(context, builder), *values)

        # numba needs the number of parameters.
        typed.__signature__ = inspect.signature(emit)  # type: ignore[attr-defined]
        return numba.extending.intrinsic(typed)

    return intrinsic


@_instruction(numba.types.voidptr)
def pointer(code: _Code, address: Value) -> Value:
    """The address as a pointer, for `numba.carray`."""
    return code.builder.inttoptr(address, _BYTES)


@_instruction(numba.types.int64)
def fetch_add(code: _Code, address: Value, number: Value) -> Value:
    """Add a number to the int64 at an address, atomically; the value before."""
    place = code.builder.inttoptr(address, _INT.as_pointer())
    return code.builder.atomic_rmw("add", place, number, "seq_cst")


@_instruction(numba.types.int64)
def call(code: _Code, function: Value, arguments: Value) -> Value:
    """Call the C function at an address with a tuple of int64, or of addresses; its result as an int64."""
    numbers = cgutils.unpack_tuple(code.builder, arguments)
    kind = ir.FunctionType(_INT, [_INT] * len(numbers))
    return code.builder.call(code.builder.inttoptr(function, kind.as_pointer()), numbers)


@_instruction(numba.types.int64)
def allocate(code: _Code, size: Value) -> Value:
    """The address of so many new bytes."""
    return code.builder.ptrtoint(code.context.nrt.allocate(code.builder, size), _INT)


@_instruction(numba.types.void)
def release(code: _Code, address: Value) -> Value:
    """Give back what `allocate` gave."""
    code.context.nrt.free(code.builder, code.builder.inttoptr(address, _BYTES))
    return code.context.get_dummy_value()


def symbol(name: str) -> Any:
    """A function of kernels: the address that `llvmlite.binding.add_symbol` has given to a name.

    Code on disk looks it up when it is loaded, so that no process finds another's addresses in it.
    """

    @_instruction(numba.types.int64)
    def address(code: _Code) -> Value:
        module = code.builder.module
        place = module.globals.get(name) or cgutils.add_global_variable(module, ir.IntType(8), name)
        return code.builder.ptrtoint(place, _INT)

    return address


# The entries of a job: how many threads still know it, the next chunk of work, the chunks done, and those whose result
# isn't what the stage promises; the addresses of the function, of up to three inputs, of the result, of memory for what
# is computed in between, and of the stage.
USERS, NEXT, DONE, UNSOUND, FUNCTION, A, B, C, Y, SPACE, STAGE, JOB = range(12)
# The header of a stage: which function; pieces of work; how many make a chunk; how many float64 of the space to clear
# first; how far away the next stage is after a sound and an unsound result; how many arrays there are.
KIND, ITEMS, CHUNK, CLEAR, SOUND, OTHERWISE, ARRAYS, HEADER = range(8)


@kernel
def integers(address: int, count: int) -> Array:
    """The int64 numbers at an address."""
    numbers: Array = numba.carray(pointer(address), (count,), np.int64)
    return numbers


@kernel
def stage_array(job: int, index: int) -> Array:
    """The stage's array of this index."""
    address = integers(job, JOB)[STAGE]
    count = integers(address, HEADER)[ARRAYS]
    lengths = integers(address + 8 * HEADER, count)
    return integers(address + 8 * (HEADER + count + lengths[:index].sum()), lengths[index])


@kernel
def tensor(job: int, which: int, index: int, like: Array) -> Array:
    """The job's array `which`, `A` to `SPACE`, of rank 4 and like's dtype; the stage's array `index` is its shape."""
    place, shape = pointer(integers(job, JOB)[which]), stage_array(job, index)
    array: Array = numba.carray(place, (shape[0], shape[1], shape[2], shape[3]), like.dtype)
    return array


@kernel
def sums(job: int, index: int) -> Array:
    """The job's space as float64 of rank 5; the stage's array `index` is its shape."""
    place, shape = pointer(integers(job, JOB)[SPACE]), stage_array(job, index)
    array: Array = numba.carray(place, (shape[0], shape[1], shape[2], shape[3], shape[4]), np.float64)
    return array


@kernel
def doubles(job: int, index: int) -> Array:
    """The stage's array `index`, which holds float64."""
    words = stage_array(job, index)
    array: Array = numba.carray(pointer(words.ctypes.data), (words.size,), np.float64)
    return array


@kernel
def floats(job: int, index: int, like: Array) -> Array:
    """The stage's array `index`, which holds floats of like's dtype."""
    words = stage_array(job, index)
    array: Array = numba.carray(pointer(words.ctypes.data), (8 * words.size // like.itemsize,), like.dtype)
    return array
