"""Correlations as stages, for native code that calls the compiled kernels without Python, such as XLA's programs.

A stage is a C function, `int64_t stage(T *like, int64_t *job, int64_t start, int64_t stop)`, that computes some of its
pieces of work, and an array of int64 which says all that it needs to know of the shapes (`convlab.compiled.pointers`).
A program is its stages in one array: how many there are, where each begins, and then the stages; the first comes first.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..dtypes import LEAST
from ..geometry.geometry import Geometry
from . import direct, fft, in_order_gradient, in_order_result, reproducible
from .disk_cache import c_function
from .kernels import KernelAlgorithm, band_layout
from .pointers import JOB, KIND, SPACE, A, B, Y, integers, pointer, stage_array

if TYPE_CHECKING:  # numba's type hints are incomplete
    numba: Any
else:
    import numba

# The numbers in a row of an image that are looked at together.
_BLOCK = 512


class Program(NamedTuple):
    """What computes a result.

    Attributes:
        numbers: the stages, as the module says.
        kinds: their functions, as indices of `FUNCTIONS`.
        space: the bytes that they need for what they compute in between.
    """

    numbers: np.ndarray
    kinds: tuple[int, ...]
    space: int


class _Stage(NamedTuple):
    """A stage; `sound` and `otherwise` are how far away the next one is after a sound and an unsound result."""

    function: Callable[..., int]
    arrays: Sequence[Any]
    items: int = 1
    chunk: int = 1
    clear: int = 0
    sound: int = 1
    otherwise: int = 1

    def numbers(self) -> np.ndarray:
        """The stage in int64."""
        arrays = [_words(array) for array in self.arrays]
        header = FUNCTIONS.index(self.function), *self[2:], len(arrays)
        lengths = [len(array) for array in arrays]
        return np.concatenate([np.array(header), np.array(lengths), *arrays]).astype(np.int64)


def correlation_program(
    x: Sequence[int], k: Sequence[int], geometry: Geometry, dtype: str, algorithm: KernelAlgorithm, exact: bool
) -> Program:
    """`kernels.correlate` for inputs of two shapes, whose result isn't empty.

    If `exact`, "fft" is passed over where X and K hold integers only.
    """
    wide = np.dtype(dtype)
    layout = band_layout(tuple(x), tuple(k), geometry, wide.itemsize)
    plan, *extents = layout.arguments
    bands = _Stage(
        direct.CORRELATE_STAGES[extents[0], extents[1]], (x, k, layout.shape, plan), layout.items, layout.chunk
    )
    if algorithm == "direct":
        return _program([bands], 0)
    tiles, kernels = fft.tile_layout(tuple(x), tuple(k), geometry, wide.char), k[0] * k[1]
    spectra = 1, kernels, 2, tiles.size**2
    stages = [
        _Stage(
            fft.spectra_stage,
            ((1, kernels, *k[2:]), spectra, *tiles.k, tiles.table),
            kernels,
            fft.tiles_per_chunk(tiles, 1),
        ),
        _Stage(
            fft.pairs_stage,
            (x, spectra, layout.shape, *tiles.x, tiles.table),
            tiles.pairs * geometry.groups,
            fft.tiles_per_chunk(tiles, kernels // geometry.groups),
            sound=2,
        ),
        bands,
    ]
    return _program([*_unless_integral(x, k, exact), *stages], math.prod(spectra) * wide.itemsize)


def gradient_program(
    x: Sequence[int], dy: Sequence[int], geometry: Geometry, dtype: str, algorithm: KernelAlgorithm, exact: bool
) -> Program:
    """`kernels.kernel_gradient` for inputs of two shapes, neither of them empty; `exact` as in `correlation`."""
    wide, shape = np.dtype(dtype), (dy[1], x[1] // geometry.groups, *geometry.kernel_size)
    layout, numbers = band_layout(tuple(x), shape, geometry, wide.itemsize, "gradient"), math.prod(shape)
    items, sums = layout.parts * x[1], layout.parts * numbers
    chunk = items if layout.chunk >= layout.items else max(1, items // 32)
    stages = [
        _Stage(direct.gradient_stage, (x, dy, (layout.parts, *shape), layout.arguments[0]), items, chunk, sums),
        _Stage(_total_stage, [(layout.parts, numbers)]),
    ]
    if algorithm == "fft":
        tiles, kernels = fft.tile_layout(tuple(x), shape, geometry, wide.char), shape[0] * shape[1]
        parts = fft.gradient_parts(tiles, kernels)
        sums = max(sums, parts * numbers)
        arrays = x, dy, (parts, *shape), *tiles.x, *tiles.dy, tiles.table
        chunk = fft.tiles_per_chunk(tiles, tiles.pairs // parts)
        stages = [
            *_unless_integral(x, dy, exact),
            _Stage(fft.gradient_pairs_stage, arrays, parts * kernels, chunk, parts * numbers),
            _Stage(_total_stage, [(parts, numbers)], sound=3),
            *stages,
        ]
    return _program(stages, 8 * sums)


def correlation_in_order_program(
    x: Sequence[int], k: Sequence[int], geometry: Geometry, dtype: str, phases: int, unrounded: bool
) -> Program:
    """`reproducible.correlate_in_order` for inputs of two shapes and a bias of float64, whose result isn't empty.

    If `unrounded`, the result is float64, without a limit.
    """
    plan = reproducible.correlation_plan(tuple(x), tuple(k), geometry, phases)
    groups, blocks, *block = plan.packed
    limits, shape = np.array([0.0 if unrounded else LEAST[dtype], LEAST[dtype]]), (x[0], k[0])
    pack = _Stage(
        in_order_result.pack_stage,
        (k, plan.packed, limits, [phases]),
        groups * blocks,
        reproducible.at_once(math.prod(block)),
    )
    result = _Stage(
        in_order_result.unrounded_result_stage if unrounded else in_order_result.result_stage,
        (
            x,
            plan.packed,
            (*shape, *geometry.output_size((x[2], x[3]))),
            limits,
            [phases],
            *plan.maps,
            plan.places,
            plan.layout,
        ),
        plan.items,
        plan.chunk,
    )
    return _program([pack, result], 8 * math.prod(plan.packed) + groups * blocks * k[2] * k[3])


def gradient_in_order_program(
    x: Sequence[int], dy: Sequence[int], geometry: Geometry, dtype: str, helpers: int
) -> Program:
    """`reproducible.gradient_in_order` for inputs of two shapes, neither of them empty."""
    shape = dy[1], x[1] // geometry.groups, *geometry.kernel_size
    plan, limits = reproducible.gradient_plan(tuple(x), shape, geometry, helpers), np.array([LEAST[dtype]] * 2)
    arrays = x, dy, shape, limits, *plan.maps, plan.layout, [plan.packed[-1]]
    return _program([_Stage(in_order_gradient.gradient_in_order_stage, arrays, plan.items, plan.chunk)], 0)


def plane_sums_program(x: Sequence[int]) -> Program:
    """`reproducible.plane_sums_in_order` for an input of a shape that isn't empty."""
    chunk = reproducible.at_once(x[2] * x[3])
    return _program([_Stage(in_order_gradient.plane_sums_stage, [x], x[0] * x[1], chunk)], 0)


def address(kind: int, dtype: str) -> int:
    """Where the function `FUNCTIONS[kind]` for a dtype begins; it is compiled when it is first asked for."""
    return int(_compiled(kind, dtype).address)


@functools.cache
def _compiled(kind: int, dtype: str) -> Any:
    wide = numba.types.int64
    return c_function(wide(numba.types.CPointer(numba.from_dtype(np.dtype(dtype))), wide, wide, wide))(FUNCTIONS[kind])


def _unless_integral(a: Sequence[int], b: Sequence[int], exact: bool) -> list[_Stage]:
    """The stage before two that aren't exact."""
    return [_Stage(_integral_stage, ([math.prod(a)], [math.prod(b)]), otherwise=3)] if exact else []


def _program(stages: list[_Stage], space: int) -> Program:
    parts = [stage.numbers() for stage in stages]
    starts = 1 + len(parts) + np.cumsum([0, *map(len, parts[:-1])])
    numbers = np.concatenate([[len(parts)], starts, *parts]).astype(np.int64)
    return Program(numbers, tuple(int(part[KIND]) for part in parts), space)


def _words(array: Any) -> np.ndarray:
    """An array of integers as int64; of floats, their bytes as int64."""
    words: np.ndarray = np.asarray(array)
    return words.view(np.int64) if words.dtype.kind == "f" else words.astype(np.int64)


def _integral_stage(first: Any, job: int, start: int, stop: int) -> int:
    """1 if both inputs hold integers only."""
    like = numba.carray(first, (1,))
    for which in (B, A):
        count = stage_array(job, 0 if which == A else 1)[0]
        values = numba.carray(pointer(integers(job, JOB)[which]), (count,), like.dtype)
        for at in range(0, count, _BLOCK):
            block = values[at : at + _BLOCK]
            if (np.floor(block) != block).any():
                return 0
    return 1


def _total_stage(first: Any, job: int, start: int, stop: int) -> int:
    """Add up the parts of a gradient's sums in y; 1 unless they are finite."""
    like = numba.carray(first, (1,))
    shape, addresses = stage_array(job, 0), integers(job, JOB)
    parts, count, unsound = shape[0], shape[1], 0
    totals = numba.carray(pointer(addresses[SPACE]), (parts, count), np.float64)
    y = numba.carray(pointer(addresses[Y]), (count,), like.dtype)
    for i in range(count):
        total = totals[0, i]
        for part in range(1, parts):
            total += totals[part, i]
        y[i] = total
        unsound |= not np.isfinite(total)
    return int(unsound)


FUNCTIONS: tuple[Callable[..., int], ...] = (
    *direct.CORRELATE_STAGES.values(),
    direct.gradient_stage,
    fft.spectra_stage,
    fft.pairs_stage,
    fft.gradient_pairs_stage,
    in_order_result.pack_stage,
    in_order_result.result_stage,
    in_order_result.unrounded_result_stage,
    in_order_gradient.gradient_in_order_stage,
    in_order_gradient.plane_sums_stage,
    _integral_stage,
    _total_stage,
)
