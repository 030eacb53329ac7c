"""Vectors of a full register for numba, which has none: a small emitter of LLVM's vector instructions.

LLVM's own vectoriser doesn't always find the blocks of accumulators that keep all multipliers busy, nor use 512-bit
registers on every processor that has them; written out, both are certain.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .disk_cache import kept
from .instructions import instruction_set

if TYPE_CHECKING:  # numba's type hints are incomplete, and differ between its versions
    numba: Any
    cgutils: Any
    ir: Any

    from llvmlite.ir import Value
else:
    import numba
    from llvmlite import ir
    from numba.core import cgutils

Array = np.ndarray
Function = TypeVar("Function", bound=Callable[..., Any])

_AVX512 = instruction_set() == "AVX-512"
# The bytes of a vector: one register of AVX-512 or of AVX, or two of NEON.
REGISTER = 64 if _AVX512 else 32
# The rows and columns of a block of sums, each of them a vector. AVX-512 has 32 registers, which hold 16 sums and their
# operands; AVX has 16, for 9 sums.
BLOCK = (4, 4) if _AVX512 else (3, 3)

_INT, _SHORT = ir.IntType(64), ir.IntType(32)
# a * b + c may become one instruction; nothing is reordered.
_FLAGS = ("contract",)


def kernel(function: Function) -> Function:
    """Compile a function once per dtype, keep the code on disk if possible, and let other threads run beside it."""
    compiled = numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})(function)
    return kept(function, compiled)  # type: ignore[no-any-return]


def inlined(emit: Callable[..., None]) -> Any:
    """Make a function that writes instructions, `emit(emitter, *arguments)`, a function that kernels call.

    Its arguments there are arrays, which arrive as the pointers to their data, integers, and tuples, which arrive as
    their lengths: an `int` that is known while the instructions are written.
    """

    def typed(context: Any, *kinds: Any) -> tuple[Any, Any]:
        kept = (kind if _is_array(kind) or _is_tuple(kind) else numba.types.int64 for kind in kinds)
        return numba.types.void(*kept), generate

    def argument(context: Any, builder: Any, kind: Any, value: Any) -> Any:
        if _is_tuple(kind):
            return kind.count
        return context.make_array(kind)(context, builder, value).data if _is_array(kind) else value

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        arguments = [
            argument(context, builder, kind, value) for kind, value in zip(signature.args, values, strict=True)
        ]
        emit(Emitter(builder, arguments[0].type.pointee), *arguments)
        return context.get_dummy_value()

    # numba needs the number of parameters.
    typed.__signature__ = inspect.signature(emit)  # type: ignore[attr-defined]
    return numba.extending.intrinsic(typed)


def _is_array(kind: Any) -> bool:
    return isinstance(kind, numba.types.Array)


def _is_tuple(kind: Any) -> bool:
    return isinstance(kind, numba.types.BaseTuple)


class Emitter:
    """Writes instructions on vectors of `lanes` elements, at the place where an LLVM builder stands."""

    def __init__(self, builder: Value, element: Value) -> None:
        self.builder, self.element = builder, element
        self.size = 8 if isinstance(element, ir.DoubleType) else 4
        self.lanes = REGISTER // self.size
        self.vector = ir.VectorType(element, self.lanes)
        self.zero = ir.Constant(self.vector, None)

    def index(self, *terms: Value) -> Value:
        """The sum of integers, Python's or LLVM's."""
        total = ir.Constant(_INT, sum(term for term in terms if isinstance(term, int)))
        for term in terms:
            total = total if isinstance(term, int) else self.builder.add(total, term)
        return total

    def times(self, a: Value, b: Value) -> Value:
        """The product of two integers, Python's or LLVM's."""
        return self.builder.mul(self.index(a), self.index(b))

    def quotient(self, a: Value, b: Value) -> Value:
        """The quotient of two integers, rounded towards zero."""
        return self.builder.sdiv(self.index(a), self.index(b))

    def number(self, pointer: Value, index: Value) -> Value:
        """The array's element, as it is."""
        return self.builder.load(self.builder.gep(pointer, [index]))

    def splat(self, scalar: Value) -> Value:
        """A vector of one value, LLVM's or Python's, in all lanes."""
        if isinstance(scalar, float):
            return ir.Constant(self.vector, [float(scalar)] * self.lanes)
        undefined = ir.Constant(ir.VectorType(scalar.type, self.lanes), ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(_SHORT, 0))
        zeros = ir.Constant(ir.VectorType(_SHORT, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """These lanes of two vectors, b's numbered after a's."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_SHORT, self.lanes), list(lanes)))

    def mask(self, count: Value) -> Value:
        """Which lanes are among the first `count`."""
        lanes = ir.Constant(ir.VectorType(_SHORT, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", lanes, self.splat(self.builder.trunc(count, _SHORT)))

    def load(self, pointer: Value, index: Value, mask: Value = None) -> Value:
        """The vector from an index on; with a mask only the lanes in it, zeros in the others."""
        place = self._place(pointer, index)
        if mask is None:
            return self.builder.load(place, align=self.size)
        return self.masked("load", self.vector, self.vector, place, self._align(), mask, self.zero)

    def store(self, value: Value, pointer: Value, index: Value, mask: Value = None) -> None:
        """Store a vector from an index on; with a mask only the lanes in it."""
        place = self._place(pointer, index)
        if mask is None:
            self.builder.store(value, place, align=self.size)
        else:
            self.masked("store", self.vector, ir.VoidType(), value, place, self._align(), mask)

    def add(self, a: Value, b: Value) -> Value:
        """The sum a + b."""
        return self.builder.fadd(a, b, flags=_FLAGS)

    def subtract(self, a: Value, b: Value) -> Value:
        """The difference a - b."""
        return self.builder.fsub(a, b, flags=_FLAGS)

    def multiply(self, a: Value, b: Value) -> Value:
        """The product a * b, which may become one instruction with an addition after it."""
        return self.builder.fmul(a, b, flags=_FLAGS)

    def variable(self, value: Value) -> Value:
        """A variable, which LLVM will keep in a register."""
        return cgutils.alloca_once_value(self.builder, value)

    def accumulate(self, variable: Value, a: Value, b: Value) -> None:
        """Add a * b to a variable."""
        self.builder.store(self.add(self.builder.load(variable), self.multiply(a, b)), variable)

    @contextmanager
    def loop(self, count: Value, start: Value = 0, step: int = 1) -> Iterator[Value]:
        """The block runs for start, start + step, ... below count."""
        bounds = self.index(start), self.index(count), self.index(step)
        with cgutils.for_range_slice(self.builder, *bounds, intp=_INT, inc=True) as (index, _):
            yield index

    def ranges(self, low: Value, high: Value, size: int, body: Callable[[range], None]) -> None:
        """Run body(range(low, high + 1)), written out for each range within range(size)."""
        after = self.builder.append_basic_block("after")
        choice = self.builder.switch(self.index(self.times(low, size), high), after)
        for first in range(size):
            for last in range(first, size):
                block = self.builder.append_basic_block("range")
                choice.add_case(ir.Constant(_INT, first * size + last), block)
                self.builder.position_at_end(block)
                body(range(first, last + 1))
                self.builder.branch(after)
        self.builder.position_at_end(after)

    def less(self, a: Value, b: Value) -> Value:
        """Whether a < b, for integers."""
        return self.builder.icmp_signed("<", self.index(a), self.index(b))

    def least(self, a: Value, b: Value) -> Value:
        """The smaller integer."""
        return self.builder.select(self.less(a, b), self.index(a), self.index(b))

    def largest(self, a: Value, b: Value) -> Value:
        """The larger integer."""
        return self.builder.select(self.less(a, b), self.index(b), self.index(a))

    def sum(self, vector: Value) -> Value:
        """The lanes' sum in float64."""
        wide = vector
        if self.size == 4:
            wide = self.builder.fpext(vector, ir.VectorType(ir.DoubleType(), self.lanes))
        kind = ir.FunctionType(ir.DoubleType(), [ir.DoubleType(), wide.type])
        name = f"llvm.vector.reduce.fadd.v{self.lanes}f64"
        reduce = cgutils.get_or_insert_function(self.builder.module, kind, name)
        # "reassoc" allows to add pairwise instead of lane after lane.
        return self.builder.call(reduce, [ir.Constant(ir.DoubleType(), -0.0), wide], fastmath=["reassoc"])

    def _place(self, pointer: Value, index: Value) -> Value:
        return self.builder.bitcast(self.builder.gep(pointer, [index]), self.vector.as_pointer())

    def _align(self) -> Value:
        return ir.Constant(_SHORT, self.size)

    def masked(self, name: str, vector: Value, result: Value, *arguments: Value) -> Value:
        """LLVM's masked "load" or "store" of a vector of float32 or float64, which may not be this emitter's."""
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        bits = 64 if isinstance(vector.element, ir.DoubleType) else 32
        name = f"llvm.masked.{name}.v{self.lanes}f{bits}.p0"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), arguments)


@inlined
def move(e: Emitter, source: Value, at: Value, target: Value, to: Value) -> None:
    """Copy one vector."""
    e.store(e.load(source, at), target, to)


def transposed_square(e: Emitter, rows: Sequence[Value]) -> Sequence[Value]:
    """The columns of a square of vectors."""
    columns, apart = list(rows), e.lanes // 2
    while apart:
        # Swap the off-diagonal quarters of squares of vectors, which halve with each turn.
        for i in range(e.lanes):
            if not i & apart:
                a, b = columns[i], columns[i + apart]
                upper = [lane + e.lanes - apart if lane & apart else lane for lane in range(e.lanes)]
                lower = [lane + e.lanes if lane & apart else lane + apart for lane in range(e.lanes)]
                columns[i], columns[i + apart] = e.shuffle(a, b, upper), e.shuffle(a, b, lower)
        apart //= 2
    return columns
