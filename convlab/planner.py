"""Which algorithm computes a correlation fastest here: a cost model with three constants for each way to compute it.

A way is an algorithm, or "algorithm@host" for its compiled form on the memory of CPU tensors (`convlab.host`). It takes

    fixed + per_pixel * (numbers in the result) + per_work * work

where work is the number of products, and for the FFT its points times log2(points). `convlab.wisdom` has the constants.
Nothing here looks at values, so that traced functions are planned like any other.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from . import fourier, host
from .adjoint import adjoint
from .algorithms import PHASES
from .dtypes import FLOATS
from .geometry import Geometry, Pair

if TYPE_CHECKING:
    from .rules import Rule
    from .wisdom import Wisdom

# The ways that each of corr2d's algorithms stands for; "auto" stands for all.
WAYS = {
    "native": ("native",),
    "taps": ("taps",),
    "phase": ("phase",),
    "matmul": ("matmul",),
    "fft": ("fft@host", "fft"),
    "separable": ("separable@host", "separable"),
    "host": ("host",),
    "direct": ("host", "taps", "matmul", "native"),
}
ON_HOST = ("host", "fft@host", "separable@host")
# Between many channels the model is coarse, and the frameworks are good: another way must promise to be much faster.
_MARGIN = {"single": 1.0, "depthwise": 0.25, "dense": 0.7}
_SMALL_KERNEL = 100  # elements up to which sums of products win: the frameworks' own for layers of many channels
_VECTOR = 16  # pixels of a row that the host's kernels compute at once
# The host's kernels take half a second to load, once: they must save so many seconds a call, of so many numbers.
_WORTH_LOADING, _FEW_PIXELS = 20e-6, 400
_MOST_PATCHES, _MOST_WINDOWS = 2**27, 32  # numbers that im2col may write, and operations that it may take
_MOST_PAIRS = 64  # of channels whose spectra are multiplied one after another


class Problem(NamedTuple):
    """A correlation, or one of its gradients, without its values: all that its cost depends on.

    `part` is "y", "x" or "k" as in `convlab.rules.Rule`; `inputs` are the input channels of each group, `size` the
    image's rows and columns.
    """

    part: str
    geometry: Geometry
    batch: int
    outputs: int
    inputs: int
    size: Pair
    dtype: str

    @classmethod
    def of(cls, rule: Rule, first: Sequence[int], second: Sequence[int], dtype: str) -> Problem:
        """A rule's problem for inputs of two shapes."""
        geometry = rule.geometry
        if rule.part == "y":
            return cls("y", geometry, first[0], second[0], second[1], (first[2], first[3]), dtype)
        if rule.part == "x":
            return cls("x", geometry, first[0], second[0], second[1], rule.size, dtype)
        return cls("k", geometry, first[0], second[1], first[1] // geometry.groups, (first[2], first[3]), dtype)

    def forward(self) -> Problem:
        """The correlation that the gradient of X is; any other problem as it is."""
        if self.part != "x":
            return self
        geometry, groups = self.geometry, self.geometry.groups
        rows, columns = geometry.output_size(self.size)
        phases = math.prod(geometry.stride)
        return Problem(
            *("y", adjoint(geometry, self.size), self.batch, self.inputs * groups * phases, self.outputs // groups),
            *((rows, columns), self.dtype),
        )

    @property
    def kind(self) -> str:
        """ "single" for one channel in and out, "depthwise" for as many groups as channels, else "dense"."""
        if self.inputs > 1 or self.outputs > self.geometry.groups:
            return "dense"
        return "single" if self.geometry.groups == 1 else "depthwise"

    @property
    def pixels(self) -> int:
        """Numbers in the correlation's result."""
        return self.batch * self.outputs * math.prod(self.geometry.output_size(self.size))

    @property
    def products(self) -> int:
        """Numbers multiplied."""
        return self.pixels * self.inputs * math.prod(self.geometry.kernel_size)

    @property
    def padded(self) -> Pair:
        """The image's rows and columns with its padding."""
        rows, columns = (n + sum(pads) for n, pads in zip(self.size, self.geometry.padding, strict=True))
        return rows, columns


class Plan(NamedTuple):
    """How a problem is computed.

    Attributes:
        way: the fastest way.
        costs: predicted seconds for each way that was considered.
        refused: why each other way wasn't.
        factored: the way that is faster for a kernel of rank 1, or "".
        factored_cost: its predicted seconds.
    """

    way: str
    costs: dict[str, float]
    refused: dict[str, str]
    factored: str = ""
    factored_cost: float = math.inf


@functools.lru_cache(4096)
def plan(backend: str, algorithms: tuple[str, ...], mode: str, problem: Problem, algorithm: str = "auto") -> Plan:
    """The plan for a problem: `mode` is "eager" or "traced", or "other" for processors that nobody has measured."""
    from .wisdom import wisdom  # which takes a while to import

    known = wisdom(backend)
    wanted = WAYS.get(algorithm) or tuple(dict.fromkeys(way for ways in WAYS.values() for way in ways))
    costs, refused = {}, {}
    for way in wanted:
        why = unavailable(way, algorithms, mode) or unfit(way, problem)
        if not why and algorithm == "auto" and way != "native":
            why = _not_worth_a_look(way, problem, mode)
        if way == "native" and algorithm == "direct" and mode == "other" and problem.part != "k":
            why = "off the CPU it may take Winograd's algorithm or the FFT"
        if why:
            refused[way] = why
        else:
            costs[way] = cost(known, way, problem)
    factored = {way: seconds for way, seconds in costs.items() if way.startswith("separable")}
    if algorithm != "separable":
        costs = {way: seconds for way, seconds in costs.items() if way not in factored}
    if not costs:
        return Plan("", costs, refused)
    way = min(costs, key=lambda way: costs[way] / (1.0 if way == "native" else _MARGIN[problem.kind]))
    elsewhere = {each: seconds for each, seconds in costs.items() if each not in ON_HOST}
    if algorithm == "auto" and way in ON_HOST:
        other = min(elsewhere, key=elsewhere.__getitem__)
        if problem.pixels < _FEW_PIXELS or elsewhere[other] - costs[way] < _WORTH_LOADING:
            way = other
    most = min(0.8 * costs[way], costs[way] - _WORTH_LOADING) if algorithm == "auto" else 0.0
    enough = problem.pixels >= _FEW_PIXELS
    better = [each for each, seconds in factored.items() if seconds < most and (enough or each not in ON_HOST)]
    best = min(better, key=factored.__getitem__, default="")
    return Plan(way, costs, refused, best, factored.get(best, math.inf))


def _not_worth_a_look(way: str, problem: Problem, mode: str) -> str:
    """Why a way other than the native one isn't considered, unless it is asked for."""
    if mode == "other":
        return "nothing has been measured on this processor"
    small = math.prod(problem.geometry.kernel_size) <= _SMALL_KERNEL
    if problem.kind == "dense" and small:
        return "the framework's own is the best for many channels and a small kernel"
    return "the kernel is small, and sums of products are more accurate" if way in ("fft", "fft@host") and small else ""


def cost(known: Wisdom, way: str, problem: Problem) -> float:
    """Predicted seconds; infinite where nothing is known of it."""
    if way != "native":
        problem = problem.forward()
    constants = known.get(f"{way} {problem.part} {problem.kind}")
    if constants is None:
        return math.inf if way != "native" else 1e6
    fixed, per_pixel, per_work = constants
    wide = 2.0 if problem.dtype == "float64" else 1.0
    return fixed + wide * (per_pixel * problem.pixels + per_work * work(way, problem))


def work(way: str, problem: Problem) -> float:
    """What a way does most: products, or points times log2(points)."""
    if way == "fft@host":
        size = problem.geometry.output_size(problem.size)
        one = host.tile(problem.batch, size, problem.geometry.kernel_size)[1]
        return one * problem.inputs * problem.outputs  # it transforms anew for each pair of channels
    if way == "fft":
        points = fourier.tiling(problem.padded, problem.geometry.kernel_size)[1]
        return points * problem.batch * (problem.outputs + problem.inputs * problem.geometry.groups) / 2
    if way == "phase":
        (h, w), (down, right) = problem.geometry.kernel_size, PHASES
        return problem.pixels * (h + down - 1) * (w + right - 1)
    if way.startswith("separable"):
        return problem.pixels * sum(problem.geometry.kernel_size)
    if way == "host":
        columns = problem.geometry.output_size(problem.size)[1]
        filled = -(-columns // _VECTOR) * _VECTOR / max(columns, 1)
        return problem.products * filled * (1 if problem.geometry.stride == (1, 1) else 3)  # fewer rows at once
    return problem.products


def unfit(way: str, problem: Problem) -> str:
    """Why a way can't compute a problem; "" if it can."""
    if problem.dtype not in FLOATS and way != "native":
        return f"not for {problem.dtype}"
    if way == "native":
        return ""
    problem = problem.forward()
    geometry, single = problem.geometry, problem.kind != "dense"
    dense = geometry.stride == (1, 1) and geometry.dilation == (1, 1)
    if way in ("taps", "phase", "separable", "separable@host") and problem.part == "k":
        return "has no gradient of K of its own"
    if way in ("phase", "separable", "separable@host") and not single:
        return "only for one input and one output channel in each group"
    if way.startswith("separable") and problem.outputs > 1:
        return "only for one kernel"
    if way == "phase" and (not dense or geometry.groups > 1):
        return "only for stride 1, dilation 1 and one group"
    if way in ("fft", "fft@host") and not dense:
        return "only for stride 1 and dilation 1"
    if way == "fft@host" and not host.fits_fft(geometry):
        return "only for kernels that leave room in a tile of its cache"
    pairs = problem.inputs * problem.outputs // geometry.groups if problem.part == "k" else problem.inputs
    if way == "fft" and pairs > _MOST_PAIRS:
        return "too many pairs of channels"
    if way.startswith("separable") and 1 in geometry.kernel_size:
        return "the kernel is a row or a column already"
    patches = problem.products // problem.outputs if problem.outputs else 0
    if way == "matmul" and (patches > _MOST_PATCHES or math.prod(geometry.kernel_size) > _MOST_WINDOWS):
        return "im2col would take too much memory, or a program too long to compile"
    return ""


def unavailable(way: str, algorithms: tuple[str, ...], mode: str) -> str:
    """Why a way can't be taken in a mode (see `plan`) by a backend of these algorithms; "" if it can."""
    if way in ON_HOST:
        if mode != "eager":
            return "only for eager tensors on a CPU"
        return "" if host.available() else "numba isn't installed: pip install 'convlab[fast]'"
    if way == "separable" and mode == "traced":
        return "only for kernels with values"
    return "" if way in algorithms else "this backend has no operations for it"
