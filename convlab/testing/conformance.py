"""The suite that every backend passes, yours too.

It needs pytest and hypothesis; a test file is three lines:

    from convlab.testing.conformance import Conformance

    class TestMine(Conformance, backend="mine"):
        pass

What the adapter's flags rule out (`Adapter.dtypes`, `Adapter.autograd`) becomes a strict xfail with that reason, so
that a flag which understates fails too.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..contract.adapter import Adapter
from ..contract.call import Variant
from ..contract.operations import Operations
from ..contract.rule import Algorithm, Rule
from ..correlation.compute import apply
from ..correlation.transposed import conv_transpose2d
from ..errors import DTypeError, UnsupportedError
from ..geometry.geometry import Geometry
from ..lab import Backend, backend
from ..planning.choose import Choice, Workload, unavailable, unfit
from ..planning.execute import compute_chosen
from ..registry import adapter, owner, register
from ..truth.bounds import error_bound, worst_ratio
from ..truth.oracle import oracle
from ..truth.transposed import transposed_oracle
from .tasks import compute_task
from .trials import Trial, fixed_trials, random_trials


def _shifted(ops: Operations, x: Any) -> Any:
    """A tensor with zeros added to (2, 4, 4), moved one row up and two columns left by the shift's spectrum."""
    shift = ops.asarray(np.eye(16, dtype=np.float32)[6].reshape(1, 4, 4), "float32", x)
    product = ops.rfft2(x, (4, 4)) * ops.conj(ops.rfft2(shift, (4, 4)))
    return ops.floor(ops.irfft2(product, (4, 4)) + ops.number(0.5, x))


_X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
# Each operation, and the result that it must have for _X, computed by NumPy.
_OPERATIONS: dict[str, tuple[Any, np.ndarray]] = {
    "reshape": (lambda ops, x: ops.reshape(x, (4, -1)), _X.reshape(4, 6)),
    "transpose": (lambda ops, x: ops.transpose(x, (2, 0, 1)), _X.transpose(2, 0, 1)),
    "pad": (lambda ops, x: ops.pad(x, ((0, 0), (1, 0), (2, 3))), np.pad(_X, ((0, 0), (1, 0), (2, 3)))),
    "flip": (lambda ops, x: ops.flip(x, (0, 2)), _X[::-1, :, ::-1]),
    "take": (lambda ops, x: ops.take(x, [3, 0, 0], 2), _X[:, :, [3, 0, 0]]),
    "stack": (lambda ops, x: ops.stack([x, x * x], 1), np.stack([_X, _X * _X], 1)),
    "where": (lambda ops, x: ops.where(x < ops.number(5.0, x), ops.number(0.0, x), x), np.where(_X < 5, 0, _X)),
    "zeros": (lambda ops, x: ops.zeros((2, 1), x), np.zeros((2, 1), np.float32)),
    "part": (lambda ops, x: ops.part(x, 1, 2, 1), _X[:, 1:3]),
    "subtract_product": (lambda ops, x: ops.subtract_product(ops.zeros((2, 3, 4), x), x, x[:1, ...]), -_X * _X[:1]),
    "fold": (lambda ops, x: ops.fold(lambda total, i: total * 2 - i, x, 3), _X * 8 - 4),
    "cast": (lambda ops, x: ops.cast(x, "int64"), _X.astype(np.int64)),
    "slices": (lambda ops, x: abs(-x[1:, ::2, 1:4:2]), _X[1:, ::2, 1:4:2]),
    "compare": (lambda ops, x: ops.where(x != x[:, :1, :], x + x, x), np.where(_X[:, :1] == _X, _X, _X + _X)),
    "tiles": (
        lambda ops, x: ops.tiles(x[:, None, ...], (2, 2), (1, 2)),
        np.stack([[[[a[i : i + 2, j : j + 2] for j in (0, 2)] for i in (0, 1)]] for a in _X]),
    ),
    "memory": (lambda ops, x: ops.wait(ops.from_host(np.array(ops.as_host(x)), x)), _X),
    "choose": (lambda ops, x: ops.choose(True, lambda: x, lambda: -x), _X),
    "from_images": (lambda ops, x: ops.from_images(ops.to_images(x, "NHWC"), x, "NHWC"), _X),
}
# The operations that only some algorithms need, with the names of these algorithms.
_FURTHER: dict[str, tuple[tuple[str, ...], Any, np.ndarray]] = {
    "floor": (("fft",), lambda ops, x: ops.floor(x - ops.number(0.5, x)), _X - 1),
    "every": (
        ("fft", "phase"),
        lambda ops, x: ops.choose(ops.every(x < ops.number(24.0, x)), lambda: x, lambda: -x),
        _X,
    ),
    "not every": (
        ("fft", "phase"),
        lambda ops, x: ops.choose(ops.every(x < ops.number(23.0, x)), lambda: x, lambda: -x),
        -_X,
    ),
    "sum": (("fft", "autograd"), lambda ops, x: ops.sum(x, (0, 2)), _X.sum((0, 2))),
    "transforms": (("fft",), _shifted, np.roll(np.pad(_X, ((0, 0), (0, 1), (0, 0))), (-1, -2), (1, 2))),
}


class Conformance:
    """A subclass with `backend=`, the name of an installed backend or an `Adapter`, is that backend's test suite.

    Attributes:
        adapter: what is tested.
        examples: how many random cases; each is computed in some ten ways.
    """

    adapter: ClassVar[Adapter]
    examples: ClassVar[int] = 20

    def __init_subclass__(cls, backend: str | Adapter | Backend, **options: Any) -> None:
        super().__init_subclass__(**options)
        if isinstance(backend, Adapter):
            register(backend)
        name = backend if isinstance(backend, str) else backend.name
        cls.adapter = adapter(name)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Called by pytest: the trials, with what the flags rule out as strict xfails."""
        if "trial" in metafunc.fixturenames:
            trials = [pytest.param(each, id=each.name, marks=_marks(self.adapter, each)) for each in fixed_trials(None)]
            metafunc.parametrize("trial", trials)
        if "operation" in metafunc.fixturenames:
            further = [pytest.param(name, marks=_lacking(self.adapter, *each[0])) for name, each in _FURTHER.items()]
            metafunc.parametrize("operation", [*_OPERATIONS, *further])
        if "algorithm" in metafunc.fixturenames:
            every = ("native", "taps", "phase", "fft", "separable")
            metafunc.parametrize(
                "algorithm", [pytest.param(name, marks=_lacking(self.adapter, name)) for name in every]
            )

    @pytest.fixture
    def lab(self) -> Backend:
        """The backend; one whose framework doesn't load is an error."""
        return backend(self.adapter.name)

    def test_trial(self, lab: Backend, trial: Trial) -> None:
        """Golden, adversarial and learning trials, in every dtype and tier."""
        _check(lab, trial)

    def test_random_cases(self, lab: Backend) -> None:
        """Random geometry: integers exactly, other data within the bound, reproducible to the bit."""

        @settings(max_examples=self.examples, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.integers(0, 2**32 - 1))
        def check(seed: int) -> None:
            for trial in random_trials(seed):
                if not trial.name.startswith(f"random {seed} "):
                    return
                if not _marks(lab.adapter, trial):
                    _check(lab, trial)

        check()

    def test_transposed_convolution(self, lab: Backend) -> None:
        """`conv_transpose2d`: integers exactly, and `reproducible=True` with NumPy's bits."""
        rng = np.random.default_rng(0)
        shapes = (2, 4, 3, 5), (4, 2, 3, 2), (4,)
        cases: list[dict[str, Any]] = [
            {},
            {"stride": 2, "padding": "same"},
            {"stride": (2, 3), "padding": 1, "output_padding": (1, 2), "groups": 2},
        ]
        for options in cases:
            arrays = [rng.integers(-8, 9, shape).astype(np.float32) for shape in shapes]
            arrays[2] = arrays[2][: 2 * options.get("groups", 1)]
            y, k, bias = map(lab.asarray, arrays)
            expected = transposed_oracle(arrays[0], arrays[1], bias=arrays[2], **options)
            np.testing.assert_array_equal(lab.to_numpy(lab.conv_transpose2d(y, k, bias=bias, **options)), expected)
            arrays = [rng.standard_normal(array.shape).astype(np.float32) for array in arrays]
            y, k, bias = map(lab.asarray, arrays)
            bits = lab.to_numpy(lab.conv_transpose2d(y, k, bias=bias, **options, reproducible=True)).tobytes()
            y, k, bias = arrays
            assert bits == conv_transpose2d(y, k, bias=bias, **options, reproducible=True, backend="numpy").tobytes()

    def test_operation(self, lab: Backend, operation: str) -> None:
        """Each operation of the contract, on a small tensor."""
        function, expected = _OPERATIONS[operation] if operation in _OPERATIONS else _FURTHER[operation][1:]
        with lab.ops.scope("int64"):
            result = function(lab.ops, lab.asarray(_X))
            assert lab.ops.shape(result) == expected.shape
            assert lab.ops.dtype(result) == expected.dtype.name
            np.testing.assert_array_equal(lab.to_numpy(result), expected)

    def test_algorithm(self, lab: Backend, algorithm: Algorithm) -> None:
        """Each algorithm that the adapter names, on an image and a kernel of rank 1."""
        rng = np.random.default_rng(0)
        x, k = rng.standard_normal((2, 11, 13)), np.outer(rng.standard_normal(3), rng.standard_normal(4))
        x, k = x.astype(np.float32), k.astype(np.float32)
        workload = Workload("y", Geometry((3, 4)), 2, 1, 1, (11, 13), "float32")
        variant, rule = Variant(algorithm), Rule("y", Geometry((3, 4)), algorithm=algorithm)
        assert unavailable(variant, lab.adapter.algorithms, "eager") == unfit(variant, workload) == ""
        y = lab.to_numpy(
            compute_chosen(lab.ops, rule, lab.asarray(x[:, None]), lab.asarray(k[None, None]), Choice(variant, {}, {}))
        )[:, 0]
        bound = error_bound(x, k, algorithm="fft" if algorithm == "fft" else "direct")
        assert worst_ratio(y, oracle(x, k), 3 * bound) <= 1

    def test_tensors_are_found_by_type(self, lab: Backend) -> None:
        """A tensor leads to its backend, goes in and comes out as that framework's own, on its device."""
        x = lab.asarray([[1.0, 2.0, 4.0]], "float32")
        assert owner(x) == lab.name
        y = lab.corr2d(x, [[-1.0, 1.0]])
        assert type(y) is type(x)
        assert lab.ops.device(y) == lab.ops.device(x)
        # The tensors of a backend that wraps others are computed when they are asked for.
        assert lab.ops.is_concrete(y) or lab.adapter.wraps
        assert lab.to_numpy(y).tolist() == [[1.0, 2.0]]

    def test_rules_are_applied(self, lab: Backend) -> None:
        """`apply` computes a rule; its gradients are among the trials."""
        x, k = lab.asarray(np.ones((1, 1, 3, 3), np.float32)), lab.asarray(np.ones((1, 1, 2, 2), np.float32))
        assert lab.to_numpy(apply(lab.ops, Rule("y", Geometry((2, 2))), x, k)).tolist() == [[[[4, 4], [4, 4]]]]

    def test_every_method_has_the_contracts_signature(self, lab: Backend) -> None:
        """The same parameters in the same order, by the same names, with the same defaults."""
        for name, method in inspect.getmembers(Operations, inspect.isfunction):
            expected, actual = (inspect.signature(each).parameters for each in (method, getattr(type(lab.ops), name)))
            assert list(actual) == list(expected), name
            for key, parameter in expected.items():
                assert (actual[key].kind, actual[key].default) == (parameter.kind, parameter.default), (name, key)

    def test_the_adapter_says_what_is_so(self, lab: Backend) -> None:
        """Names, versions and devices; the native layer and the training loop are there."""
        assert lab.ops.version.split(".")[0].isdigit()
        assert lab.ops.devices()
        assert isinstance(lab.ops, Operations)
        assert tuple(map(int, self.adapter.minimum.split("."))) <= tuple(map(int, lab.ops.version.split(".")[:2]))
        assert callable(lab.Conv2D(3, out_channels=2, in_channels=1, seed=0))
        assert callable(lab.training.Descent)
        kernel, bias = lab.training.draw((2, 1, 3, 3), 1, True, self.adapter.dtypes[0])
        assert (kernel.shape, bias.shape) == ((2, 1, 3, 3), (2,))


def _lacking(adapter: Adapter, *algorithms: str) -> list[pytest.MarkDecorator]:
    # Learning needs some operations too, where there is autograd.
    abilities = {*adapter.algorithms, "autograd"} if adapter.autograd else {*adapter.algorithms}
    if abilities.intersection(algorithms):
        return []
    reason = f"the adapter {adapter.name!r} doesn't name {' or '.join(algorithms)}"
    return [pytest.mark.xfail(reason=reason, raises=(AssertionError, UnsupportedError), strict=True)]


def _marks(adapter: Adapter, trial: Trial) -> list[pytest.MarkDecorator]:
    lacking = trial.ruled_out(adapter.dtypes, adapter.autograd)
    reason = f"the adapter {adapter.name!r} says that it has {lacking}"
    return [pytest.mark.xfail(reason=reason, raises=(DTypeError, UnsupportedError), strict=True)] if lacking else []


def _check(lab: Backend, trial: Trial) -> None:
    results = compute_task(lab, trial.request, trial.arrays)
    for name in trial.truth:
        ratios = trial.ratios(name, results[name])
        assert (ratios <= 1).all(), f"{trial.name}, {name}: {trial.explain(name, results[name], ratios)}"
