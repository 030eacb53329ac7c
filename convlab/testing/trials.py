"""The trials of `convlab parity`: what every backend is asked for, and what the answers are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..correlation.corr2d import conv2d, corr2d
from ..geometry.names import data_format
from ..learning.learn_kernel import learn_kernel
from ..truth.bounds import descent, error_bound, error_ratios, gradient_bounds, overflows
from ..truth.diagnosis import diagnose
from ..truth.oracle import computed_in, oracle, oracle_gradients, reproducible_gradients
from ..truth.precision import rounded
from .cases import KINDS, Case, fill, golden_cases, random_case

TIERS = ("exact", "bounded", "learned", "reproducible")
_GRADIENTS = ("gradient of X", "gradient of K", "gradient of bias")
_DTYPES = ("float32", "float64", "float16", "bfloat16")


class Truth(NamedTuple):
    """What a result must be: within `bound` of `value`, or with the very same bits if there is no bound.

    Where `overflow` holds, infinities and NaN are right as well.
    """

    value: np.ndarray
    bound: np.ndarray | None
    overflow: np.ndarray | bool = False


@dataclass(frozen=True)
class Trial:
    """One thing to compute: `task` on `arrays`, which hold values that `dtype` has.

    Attributes:
        name: unique; `convlab parity --only` takes it.
        tier: one of TIERS.
        task: "forward", "gradients" or "learn".
        options: corr2d's or learn_kernel's keyword arguments.
        function: "corr2d" or "conv2d".
        known: the result, where it is known independently of convlab.
    """

    name: str
    tier: str
    task: str
    dtype: str
    arrays: dict[str, np.ndarray]
    options: dict[str, Any] = field(default_factory=dict)
    function: str = "corr2d"
    known: np.ndarray | None = None

    @property
    def request(self) -> dict[str, Any]:
        """What a worker is asked for, beside the arrays."""
        return {"task": self.task, "dtype": self.dtype, "options": self.options, "function": self.function}

    @cached_property
    def truth(self) -> dict[str, Truth]:
        """For each result, what it must be; computed by NumPy alone."""
        with np.errstate(all="ignore"):
            if self.task == "learn":
                return self._learned()
            if self.options.get("reproducible"):
                return self._reproducible()
            return self._forward() if self.task == "forward" else self._slopes()

    def ruled_out(self, dtypes: Sequence[str], autograd: bool) -> str:
        """What a backend with these flags lacks for the trial; "" if nothing."""
        if "int" not in self.dtype and self.dtype not in dtypes:
            return f"no {self.dtype}"
        return "no autograd" if self.task == "gradients" and not autograd else ""

    @property
    def geometry(self) -> dict[str, Any]:
        """The options of corr2d but for `reproducible`."""
        return {name: value for name, value in self.options.items() if name != "reproducible"}

    def _forward(self) -> dict[str, Truth]:
        x, k, b = self.arrays["X"], self.arrays["K"], self.arrays.get("bias")
        if self.function == "conv2d":
            first = 0 if k.ndim == 2 or data_format(self.options.get("data_format")) == "NHWC" else 2
            k = np.flip(k, (first, first + 1))
        value = oracle(x, k, bias=b, **self.geometry) if self.known is None else self.known
        dtype = "int64" if "int" in self.dtype else self.dtype
        exact = self.tier == "exact"
        if exact:
            return {"result": Truth(np.asarray(value), np.zeros(np.shape(value)))}
        bound = error_bound(x, k, bias=b, dtype=dtype, **self.geometry)
        return {"result": Truth(value, bound, overflows(x, k, bias=b, dtype=dtype, **self.geometry))}

    def _slopes(self) -> dict[str, Truth]:
        x, k, dy = (self.arrays[name] for name in ("X", "K", "dY"))
        values = oracle_gradients(x, k, dy, **self.geometry)
        bounds = gradient_bounds(x, k, dy, self.dtype, **self.geometry)
        return {name: Truth(value, bound) for name, value, bound in zip(_GRADIENTS, values, bounds, strict=True)}

    def _reproducible(self) -> dict[str, Truth]:
        # NumPy has no bfloat16: it computes in float32, and the result is rounded once more.
        half = self.dtype == "bfloat16"
        arrays = {name: a.astype("float32" if half else self.dtype) for name, a in self.arrays.items()}
        x, k = arrays["X"], arrays["K"]
        if self.task == "forward":
            function: Callable[..., np.ndarray] = conv2d if self.function == "conv2d" else corr2d
            values = {"result": function(x, k, bias=arrays.get("bias"), **self.options)}
        else:
            slopes = reproducible_gradients(x, k, arrays["dY"], **self.geometry)
            values = dict(zip(_GRADIENTS, slopes, strict=True))
        if half:
            values = {name: rounded(value, "bfloat16").astype(np.float32) for name, value in values.items()}
        return {name: Truth(value, None) for name, value in values.items()}

    def _learned(self) -> dict[str, Truth]:
        x, y, init = (self.arrays[name].astype(self.dtype) for name in ("X", "Y", "init"))
        if self.options.get("reproducible"):
            learned = learn_kernel(x, y, init.shape, init=init, **self.options)
            return {"kernel": Truth(learned.kernel, None), "losses": Truth(np.array(learned.losses), None)}
        steps, lr = self.options["num_steps"], self.options["lr"]
        path = descent(x, y, init, lr=lr, num_steps=steps, dtype=self.dtype)
        bound = np.full(init.shape, path.kernel_bound)
        return {"kernel": Truth(path.kernel, bound), "losses": Truth(path.losses, path.loss_bounds)}

    def ratios(self, name: str, result: np.ndarray) -> np.ndarray:
        """Each element's error in bounds; without a bound, 0 where the bits are equal and infinity elsewhere."""
        value, bound, overflow = self.truth[name]
        if result.shape != value.shape:
            return np.full(value.shape or (1,), np.inf)
        if bound is not None:
            return error_ratios(result, value, bound, overflow)
        width = f"u{value.dtype.itemsize}"
        same = result.dtype == value.dtype
        differ = result.view(width) != value.view(width) if same else np.ones(value.shape, bool)
        return np.where(differ, np.inf, 0.0)

    def explain(self, name: str, result: np.ndarray, ratios: np.ndarray) -> str:
        """Where a result is wrong, and what it looks like."""
        value, bound, _ = self.truth[name]
        if result.shape != value.shape:
            return f"shape {result.shape} instead of {value.shape}"
        wrong, place = int((ratios > 1).sum()), np.unravel_index(int(ratios.argmax()), ratios.shape)
        at = ", ".join(map(str, place))
        message = (
            f"{wrong} of {ratios.size} elements; the worst, [{at}], is {result[place]!s} instead of {value[place]!s}"
        )
        if bound is None or self.task != "forward" or self.function != "corr2d":
            return message
        x, k, b = self.arrays["X"], self.arrays["K"], self.arrays.get("bias")
        return f"{message}. {diagnose(result, x, k, bias=b, dtype=self.dtype, **self.geometry)}"


def fixed_trials(case: Case | None, dtypes: tuple[str, ...] = _DTYPES) -> Iterator[Trial]:
    """The user's case, the golden ones, adversarial data in every tier and dtype, and learning."""
    if case is not None:
        yield from user_trials(case)
    for golden in golden_cases():
        for dtype in ("float32", "float64", "int32", "uint8"):
            if dtype == "uint8" and min(array.min() for array in golden.arrays) < 0:
                continue
            yield _forward(f"{golden.name} {dtype}", "exact", dtype, golden, golden.options, known=golden.Y)
    for dtype in dtypes:
        yield from _learning(dtype)
        for seed, kind in enumerate(KINDS):
            yield from _adversarial(f"{kind} {dtype}", seed, kind, dtype)


def random_trials(seed: int) -> Iterator[Trial]:
    """Trials of random geometry without end."""
    while True:
        case = random_case(seed, integers=True)
        yield _forward(f"random {seed} integers", "exact", "float32", case, case.options)
        for dtype in ("float32", "float64"):
            yield from _adversarial(f"random {seed} {dtype}", seed, KINDS[seed % 3], dtype)
        seed += 1


def user_trials(case: Case) -> Iterator[Trial]:
    """The user's file in every tier that its numbers allow, in the dtype that corr2d computes them in."""
    dtype = computed_in(None, *case.arrays)
    integers, dtype = dtype == "int64", "float32" if dtype == "int64" else dtype
    yield _forward(f"{case.name} {dtype}", "bounded", dtype, case, case.options)
    if integers:
        yield _forward(f"{case.name} int64", "exact", "int64", case, case.options)
    yield _forward(f"{case.name} {dtype} reproducible", "reproducible", dtype, case, case.options)


def _forward(
    name: str, tier: str, dtype: str, case: Case, options: dict[str, Any], known: np.ndarray | None = None
) -> Trial:
    arrays = {"X": case.X, "K": case.K} | ({} if case.bias is None else {"bias": case.bias})
    if "int" not in dtype:
        arrays = {key: _rounded(array, dtype) for key, array in arrays.items()}
    options = options | ({"reproducible": True} if tier == "reproducible" else {})
    return Trial(name, tier, "forward", dtype, arrays, options, case.function, known)


def _adversarial(name: str, seed: int, kind: str, dtype: str) -> Iterator[Trial]:
    """Trials forward and of gradients, bounded and reproducible; the bounded ones without underflow and infinities."""
    case, rng = random_case(seed), np.random.default_rng(seed)
    width = "float32" if dtype == "bfloat16" else dtype
    outputs = oracle(case.X, case.K, **case.options).shape
    channels = 1 if case.K.ndim == 2 else outputs[-1 if case.options["data_format"] == "NHWC" else -3]
    shapes = {"X": case.X.shape, "K": case.K.shape, "bias": (channels,), "dY": outputs}
    arrays = {key: _rounded(fill(kind, shape, width, rng), dtype) for key, shape in shapes.items()}
    forward = {key: array for key, array in arrays.items() if key != "dY"}
    for tier in ("bounded", "reproducible"):
        options = case.options | ({"reproducible": True} if tier == "reproducible" else {})
        label = f"{name} {tier}"
        if tier == "bounded" and kind in ("subnormal", "special"):
            continue
        yield Trial(f"{label} forward", tier, "forward", dtype, forward, options)
        yield Trial(f"{label} gradients", tier, "gradients", dtype, arrays, options)


def _learning(dtype: str) -> Iterator[Trial]:
    rng = np.random.default_rng(0)
    x, truth, init = (_rounded(rng.standard_normal(shape), dtype) for shape in ((8, 11), (2, 3), (2, 3)))
    arrays = {"X": x, "Y": _rounded(oracle(x, truth), dtype), "init": init}
    options = {"lr": 2.0**-9, "num_steps": 10}
    if dtype in ("float32", "float64"):
        yield Trial(f"learning {dtype} bounded", "learned", "learn", dtype, arrays, options)
    if dtype != "bfloat16":
        reproducible = options | {"reproducible": True}
        yield Trial(f"learning {dtype} reproducible", "reproducible", "learn", dtype, arrays, reproducible)


def _rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    """Values that dtype has, as an array that every NumPy knows."""
    with np.errstate(over="ignore"):
        return rounded(array, dtype).astype(np.float32) if dtype == "bfloat16" else array.astype(dtype)
