"""Which algorithm computes a correlation fastest here: a cost model with three constants for each variant.

A variant (`convlab.contract.call.Variant`) is an algorithm or its compiled form. It takes

    fixed + per_pixel * (numbers in the result) + per_work * work

seconds, where work is the number of products, or for the FFT its points times log2(points). `convlab.planning.costs`
has the constants. Nothing here looks at values, so that traced functions are planned like any other.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from ..algorithms import fourier
from ..algorithms.adjoint import adjoint
from ..algorithms.phase import PHASES
from ..compiled import tiling
from ..contract.call import Variant
from ..contract.operations import TRACED, Mode
from ..contract.rule import Part, Rule, RuleAlgorithm
from ..dtypes import FLOATS
from ..geometry.geometry import Geometry, Pair
from .caches import cleared_with_costs

if TYPE_CHECKING:
    from .on_need import Table

ChannelKind = Literal["single", "depthwise", "dense"]

# The variants that each of corr2d's algorithms stands for; "auto" stands for all.
VARIANTS: dict[str, tuple[Variant, ...]] = {
    "native": (Variant.NATIVE,),
    "taps": (Variant.TAPS,),
    "phase": (Variant.PHASE,),
    "fft": (Variant.FFT_ON_HOST, Variant.FFT),
    "separable": (Variant.SEPARABLE_ON_HOST, Variant.SEPARABLE),
    "host": (Variant.HOST,),
    "direct": (Variant.HOST, Variant.TAPS, Variant.NATIVE),
}
_EVERY = tuple(dict.fromkeys(variant for variants in VARIANTS.values() for variant in variants))
# Another variant is chosen only if its predicted time is below this share of native's. Between many channels the model
# is coarse, and the frameworks are good.
_MARGIN: dict[ChannelKind, float] = {"single": 1.0, "depthwise": 0.25, "dense": 0.7}
# From the simplest on: of variants whose predicted times differ by less than the model's error, the first is taken.
_SIMPLEST = (
    Variant.NATIVE,
    Variant.HOST,
    Variant.TAPS,
    Variant.PHASE,
    Variant.SEPARABLE_ON_HOST,
    Variant.SEPARABLE,
    Variant.FFT_ON_HOST,
    Variant.FFT,
)
_ERROR = 1.1
# For kernels of at most so many elements, sums of products win; between many channels, the framework's own.
_SMALL_KERNEL = 100
# The pixels of a row that the compiled kernels compute at once.
_VECTOR = 16
# Loading the compiled kernels takes 0.5 s once. Use them only if they save `_WORTH_LOADING` seconds a call and the
# result has at least `_FEW_PIXELS` numbers, or sums up `_FEW_PRODUCTS`.
_WORTH_LOADING, _FEW_PIXELS, _FEW_PRODUCTS = 5e-6, 400, 40_000
# How many times longer SciPy's transforms take than the compiled ones, which kernels above 256 don't fit.
_UNCOMPILED = 3
# The most pairs of channels whose spectra are multiplied one after another.
_MOST_PAIRS = 64


class Workload(NamedTuple):
    """A correlation, or one of its gradients, without its values: all that its cost depends on.

    Attributes:
        part: what is computed, as in `convlab.contract.rule.Rule`.
        geometry: where the kernel meets the image.
        batch: the number of images.
        outputs: the output channels.
        inputs: the input channels of each group.
        size: the image's rows and columns.
        dtype: the dtype of the tensors.
    """

    part: Part
    geometry: Geometry
    batch: int
    outputs: int
    inputs: int
    size: Pair
    dtype: str

    @classmethod
    def of(cls, rule: Rule, first: Sequence[int], second: Sequence[int], dtype: str) -> Workload:
        """A rule's workload for inputs of two shapes."""
        geometry = rule.geometry
        if rule.part == "y":
            return cls("y", geometry, first[0], second[0], second[1], (first[2], first[3]), dtype)
        if rule.part == "x":
            return cls("x", geometry, first[0], second[0], second[1], rule.size, dtype)
        return cls("k", geometry, first[0], second[1], first[1] // geometry.groups, (first[2], first[3]), dtype)

    def forward(self) -> Workload:
        """The correlation that the gradient of X is; any other workload as it is."""
        if self.part != "x":
            return self
        geometry, groups = self.geometry, self.geometry.groups
        rows, columns = geometry.output_size(self.size)
        phases = math.prod(geometry.stride)
        return Workload(
            part="y",
            geometry=adjoint(geometry, self.size),
            batch=self.batch,
            outputs=self.inputs * groups * phases,
            inputs=self.outputs // groups,
            size=(rows, columns),
            dtype=self.dtype,
        )

    @property
    def kind(self) -> ChannelKind:
        """The pattern of channels: "single" for one in and out, "depthwise" for a group for each, else "dense"."""
        if self.inputs > 1 or self.outputs > self.geometry.groups:
            return "dense"
        return "single" if self.geometry.groups == 1 else "depthwise"

    @property
    def pixels(self) -> int:
        """The numbers in the correlation's result."""
        return self.batch * self.outputs * math.prod(self.geometry.output_size(self.size))

    @property
    def products(self) -> int:
        """The products that are added up."""
        return self.pixels * self.inputs * math.prod(self.geometry.kernel_size)

    @property
    def padded(self) -> Pair:
        """The image's rows and columns with its padding."""
        rows, columns = (n + sum(pads) for n, pads in zip(self.size, self.geometry.padding, strict=True))
        return rows, columns


class Choice(NamedTuple):
    """How a workload is computed.

    Attributes:
        variant: the fastest variant; None if there is none.
        costs: predicted seconds of each variant that was considered.
        refused: why each other variant wasn't considered.
        factored: the variant that is faster for a kernel of rank 1, if there is one.
        factored_cost: its predicted seconds.
        separable: predicted seconds of each variant for kernels of rank 1.
    """

    variant: Variant
    costs: dict[Variant, float]
    refused: dict[Variant, str]
    factored: Variant | None = None
    factored_cost: float = math.inf
    separable: Mapping[Variant, float] = MappingProxyType({})

    def instead_of(self, variant: Variant, seconds: float) -> Choice:
        """The choice of another variant, which takes so many seconds, or of a separable one that is faster."""
        best = _faster(self.separable, seconds)
        cost = math.inf if best is None else self.separable[best]
        return self._replace(variant=variant, factored=best, factored_cost=cost)


@functools.lru_cache(4096)
def cheapest(
    backend: str,
    version: str,
    algorithms: tuple[str, ...],
    mode: Mode,
    workload: Workload,
    algorithm: RuleAlgorithm = "auto",
) -> Choice:
    """The choice for a workload on a backend that has these algorithms; `algorithm` is what the user asked for."""
    seconds, refused = _considered(backend, version, algorithms, mode, workload, algorithm)
    factored = {variant: cost for variant, cost in seconds.items() if variant.algorithm == "separable"}
    if algorithm != "separable":
        seconds = {variant: cost for variant, cost in seconds.items() if variant not in factored}
    if not seconds:
        return Choice(None, seconds, refused)  # type: ignore[arg-type]
    variant = _best(seconds, workload.kind)
    large_enough = workload.pixels >= _FEW_PIXELS or workload.products >= _FEW_PRODUCTS
    if algorithm == "auto" and variant.on_host:
        elsewhere = {other: cost for other, cost in seconds.items() if not other.on_host}
        other = min(elsewhere, key=elsewhere.__getitem__)
        spared = elsewhere[other] - seconds[variant]
        # What the compiled FFT computes takes long enough.
        if not large_enough or (variant is Variant.HOST and spared < _WORTH_LOADING):
            variant = other
    separable = {
        other: cost for other, cost in factored.items() if algorithm == "auto" and (large_enough or not other.on_host)
    }
    choice = Choice(variant, seconds, refused, separable=separable)
    return choice.instead_of(variant, seconds[variant])


def _faster(separable: Mapping[Variant, float], seconds: float) -> Variant | None:
    """The fastest of the variants for kernels of rank 1, if it saves enough of so many seconds."""
    best = min(separable, key=separable.__getitem__, default=None)
    return best if best and separable[best] < min(0.8 * seconds, seconds - _WORTH_LOADING) else None


def _best(seconds: dict[Variant, float], kind: ChannelKind) -> Variant:
    """The simplest of the variants whose predicted time is the least within the model's error."""
    margin = {variant: 1.0 if variant is Variant.NATIVE else _MARGIN[kind] for variant in seconds}
    times = {variant: cost / margin[variant] for variant, cost in seconds.items()}
    least = min(times.values())
    return next(variant for variant in _SIMPLEST if variant in times and times[variant] <= _ERROR * least)


def _considered(
    backend: str, version: str, algorithms: tuple[str, ...], mode: Mode, workload: Workload, algorithm: RuleAlgorithm
) -> tuple[dict[Variant, float], dict[Variant, str]]:
    """The predicted seconds of each variant that can be taken, and why each other can't."""
    from .costs import table  # deferred: importing it takes a while

    constants = table(backend, version, may_measure=mode == "eager")
    seconds, refused = {}, {}
    for variant in VARIANTS.get(algorithm, _EVERY):
        why = unavailable(variant, algorithms, mode) or unfit(variant, workload)
        if not why and variant is not Variant.NATIVE and algorithm == "auto":
            why = _not_worth_a_look(variant, workload, mode)
        if not why and variant is Variant.FFT_ON_HOST and mode == "embedded":
            why = "" if tiling.fits_tiles(workload.geometry.kernel_size) else "a program can call the tiles' code only"
        if variant is Variant.NATIVE and algorithm == "direct" and mode == "other" and workload.part != "k":
            why = "on another processor than the CPU it may take Winograd's algorithm or the FFT"
        if why:
            refused[variant] = why
        else:
            seconds[variant] = predicted(constants, variant, workload)
    return seconds, refused


def _not_worth_a_look(variant: Variant, workload: Workload, mode: Mode) -> str:
    """Why a variant other than the native one isn't considered, unless it is asked for."""
    if mode == "other":
        return "nothing has been measured on this processor"
    small = math.prod(workload.geometry.kernel_size) <= _SMALL_KERNEL
    if workload.kind == "dense" and small:
        return "the framework's own convolution is the fastest for many channels and a small kernel"
    return "the kernel is small, and sums of products are more accurate" if variant.algorithm == "fft" and small else ""


def predicted(table: Table, variant: Variant, workload: Workload) -> float:
    """The predicted seconds; infinite for a variant that hasn't been measured."""
    if variant is not Variant.NATIVE:
        workload = workload.forward()
    constants = table.get(f"{variant} {workload.part} {workload.kind}")
    if constants is None:
        return math.inf if variant is not Variant.NATIVE else 1e6
    fixed, per_pixel, per_work = constants
    wide = 2.0 if workload.dtype == "float64" else 1.0
    return fixed + wide * (per_pixel * workload.pixels + per_work * work(variant, workload))


def work(variant: Variant, workload: Workload) -> float:
    """The work of a variant: the number of products, or points times log2(points)."""
    if variant is Variant.FFT_ON_HOST and tiling.fits_tiles(workload.geometry.kernel_size):
        size = workload.geometry.output_size(workload.size)
        # Each pair of channels has transforms of its own.
        per_pair = tiling.tile(workload.batch, size, workload.geometry.kernel_size)[1]
        return per_pair * workload.inputs * workload.outputs
    if variant.algorithm == "fft":
        points = fourier.fft_tiling(workload.padded, workload.geometry.kernel_size)[1]
        points *= _UNCOMPILED if variant.on_host else 1
        return points * workload.batch * (workload.outputs + workload.inputs * workload.geometry.groups) / 2
    if variant is Variant.PHASE:
        (h, w), (down, right) = workload.geometry.kernel_size, PHASES
        return workload.pixels * (h + down - 1) * (w + right - 1)
    if variant.algorithm == "separable":
        return workload.pixels * sum(workload.geometry.kernel_size)
    if variant is Variant.HOST:
        columns = workload.geometry.output_size(workload.size)[1]
        filled = -(-columns // _VECTOR) * _VECTOR / max(columns, 1)
        # With a stride, fewer rows are computed at once.
        return workload.products * filled * (1 if workload.geometry.stride == (1, 1) else 3)
    return workload.products


def unfit(variant: Variant, workload: Workload) -> str:
    """Why a variant can't compute a workload; "" if it can."""
    if variant is Variant.NATIVE:
        return ""
    if workload.dtype not in FLOATS:
        return f"not for {workload.dtype}"
    workload = workload.forward()
    geometry = workload.geometry
    if variant.algorithm in ("taps", "phase", "separable") and workload.part == "k":
        return "it has no gradient of K of its own"
    if variant.algorithm in ("phase", "separable") and workload.kind == "dense":
        return "only for one input and one output channel in each group"
    dense = geometry.stride == (1, 1) and geometry.dilation == (1, 1)
    if variant is Variant.PHASE and (not dense or geometry.groups > 1):
        return "only for stride 1, dilation 1 and one group"
    if variant.algorithm == "separable":
        return _unfit_separable(workload)
    if variant.algorithm == "fft":
        return _unfit_fft(variant, workload) if dense else "only for stride 1 and dilation 1"
    return ""


def _unfit_separable(workload: Workload) -> str:
    if workload.outputs > 1:
        return "only for one kernel"
    return "the kernel is a row or a column already" if 1 in workload.geometry.kernel_size else ""


def _unfit_fft(variant: Variant, workload: Workload) -> str:
    if variant.on_host and tiling.fits_tiles(workload.geometry.kernel_size):
        return ""
    groups = workload.geometry.groups if workload.part == "k" else 1
    pairs = workload.inputs * (workload.outputs // groups if workload.part == "k" else 1)
    return "too many pairs of channels" if pairs > _MOST_PAIRS else ""


def unavailable(variant: Variant, algorithms: tuple[str, ...], mode: Mode) -> str:
    """Why a backend of these algorithms can't take a variant in a mode; "" if it can."""
    if variant.on_host:
        if mode not in ("eager", "embedded"):
            return "only for tensors on a CPU, eager or in a program that can call it"
        if mode == "embedded" and variant is Variant.SEPARABLE_ON_HOST:
            return "only for kernels with values"
        return "" if tiling.numba_installed() else "numba isn't installed: pip install numba"
    if variant is Variant.SEPARABLE and mode in TRACED:
        return "only for kernels with values"
    return "" if variant in algorithms else "this backend has no operations for it"


cleared_with_costs(cheapest.cache_clear)
