"""The planner on cost tables made up here, and the file that holds this machine's."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest

import convlab
from convlab.algorithms.adjoint import adjoint
from convlab.contract.call import Variant
from convlab.contract.rule import Rule
from convlab.correlation import measure
from convlab.geometry.geometry import Geometry
from convlab.planning import choose, costs, on_need
from convlab.planning.caches import forget_costs
from convlab.planning.choose import Workload

VERSION = np.__version__
ALL = ("native", "taps", "phase", "fft", "separable")


@pytest.fixture
def table(monkeypatch):
    """Fill in a backend's constants, in seconds."""
    tables: dict[str, dict[str, tuple[float, float, float]]] = {}
    monkeypatch.setattr(costs, "table", lambda backend, version, may_measure=False: tables[backend])
    yield tables
    choose.cheapest.cache_clear()


@pytest.fixture
def home(monkeypatch, tmp_path):
    """A cache folder of the test's own."""
    monkeypatch.setattr(costs, "user_file", lambda: tmp_path / "convlab" / "costs.json")
    forget_costs()
    yield tmp_path / "convlab" / "costs.json"
    monkeypatch.undo()
    forget_costs()


def workload(part="y", size=100, k=5, outputs=1, inputs=1, dtype="float32", **geometry) -> Workload:
    return Workload(part, Geometry((k, k), **geometry), 1, outputs, inputs, (size, size), dtype)


def test_the_cost_is_linear_in_pixels_and_work(table) -> None:
    table["a"] = {"native y single": (1.0, 0.01, 0.0001), "taps y single": (0.0, 0.0, 0.001)}
    choice = choose.cheapest("a", "1", ("native", "taps"), "traced", workload())
    pixels = 96 * 96
    expected = {"native": 1 + 0.01 * pixels + 0.0001 * 25 * pixels, "taps": 0.025 * pixels}
    assert choice.costs == pytest.approx(expected)
    assert choice.variant == "native"
    assert choose.cheapest("a", "1", ("native", "taps"), "traced", workload(size=8)).variant == "taps"
    double = choose.cheapest("a", "1", ("native", "taps"), "traced", workload(dtype="float64"))
    assert double.costs["taps"] == pytest.approx(2 * choice.costs["taps"])


def test_what_is_not_known_is_left_to_the_framework(table) -> None:
    table["a"] = {}
    assert choose.cheapest("a", "1", ALL, "eager", workload()).variant == "native"
    table["b"] = {"native y single": (9.0, 0, 0), "taps y single": (1.0, 0, 0)}
    assert choose.cheapest("b", "1", ALL, "traced", workload()).variant == "taps"
    assert choose.cheapest("b", "1", ALL, "other", workload()).variant == "native"  # nobody has measured that processor
    assert choose.cheapest("b", "1", ("native",), "traced", workload()).variant == "native"
    assert choose.cheapest("b", "1", ALL, "traced", workload(dtype="complex64")).variant == "native"


def test_kernels_of_the_host_must_be_worth_loading(table) -> None:
    table["a"] = {"native y single": (29e-6, 0, 0), "host y single": (25e-6, 0, 0)}
    assert choose.cheapest("a", "1", ALL, "eager", workload()).variant == "native"
    table["b"] = {"native y single": (90e-6, 0, 0), "host y single": (25e-6, 0, 0)}
    assert choose.cheapest("b", "1", ALL, "eager", workload()).variant == "host"
    assert choose.cheapest("b", "1", ALL, "traced", workload()).variant == "native"
    assert choose.cheapest("b", "1", ALL, "eager", workload(size=20)).variant == "native"  # too small an image
    assert choose.cheapest("a", "1", ALL, "eager", workload(), "host").variant == "host"


def test_a_kernel_of_rank_one_may_be_separated(table) -> None:
    table["a"] = {"native y single": (1.0, 0, 0), "separable y single": (0.5, 0, 0)}
    choice = choose.cheapest("a", "1", ALL, "eager", workload())
    assert (choice.variant, choice.factored, choice.factored_cost) == ("native", "separable", 0.5)
    assert choose.cheapest("a", "1", ALL, "traced", workload()).factored is None  # whose kernel has no values yet
    assert choose.cheapest("a", "1", ALL, "eager", workload(part="k")).factored is None
    table["b"] = {"native y single": (1.0, 0, 0), "separable y single": (0.9, 0, 0)}
    assert choose.cheapest("b", "1", ALL, "eager", workload()).factored is None


def test_a_kernel_of_rank_one_is_separated_where_integers_rule_out_the_fft(table) -> None:
    seconds = {"fft": 0.1, "taps": 2.0, "native": 1.0, "separable": 0.5}
    table["numpy"] = {f"{name} y single": (cost, 0, 0) for name, cost in seconds.items()}
    x, ones = np.arange(10_000.0).reshape(100, 100) % 251, np.ones((11, 11))
    with_fractions = convlab.plan(x + 0.5, ones)
    whole = convlab.plan(x, ones)
    assert (with_fractions.algorithm, whole.algorithm) == ("fft", "separable")
    assert "integers" in whole.reason
    expected = np.lib.stride_tricks.sliding_window_view(x, (11, 11)).sum((2, 3))
    assert np.array_equal(convlab.corr2d(x, ones), expected)
    assert convlab.plan(x, np.arange(121.0).reshape(11, 11)).algorithm in ("native", "taps")


def test_between_many_channels_another_way_must_promise_more(table) -> None:
    table["a"] = {"native y dense": (1.0, 0, 0), "fft y dense": (0.8, 0, 0)}
    assert choose.cheapest("a", "1", ALL, "traced", workload(k=11, inputs=4, outputs=4)).variant == "native"
    table["b"] = {"native y dense": (1.0, 0, 0), "fft y dense": (0.6, 0, 0)}
    assert choose.cheapest("b", "1", ALL, "traced", workload(k=11, inputs=4, outputs=4)).variant == "fft"
    assert choose.cheapest("b", "1", ALL, "traced", workload(k=9, inputs=4, outputs=4)).variant == "native"


def test_of_equals_within_the_models_error_the_simplest_is_taken(table) -> None:
    others = {"native y single": (9.0, 0, 0), "fft@host y single": (1.0, 0, 0)}
    table["a"] = {"host y single": (1.05, 0, 0), **others}
    assert choose.cheapest("a", "1", ALL, "eager", workload(k=15)).variant == "host"
    table["b"] = {"host y single": (1.2, 0, 0), **others}
    assert choose.cheapest("b", "1", ALL, "eager", workload(k=15)).variant == "fft@host"


@pytest.mark.parametrize(
    ("way", "wrong", "why"),
    [
        ("fft", {"stride": (2, 1)}, "stride 1"),
        ("phase", {"dilation": (1, 2)}, "dilation 1"),
        ("phase", {"inputs": 2}, "one input and one output"),
        ("separable", {"k": 1}, "row or a column"),
        ("taps", {"part": "k"}, "gradient of K"),
        ("host", {"dtype": "complex64"}, "not for complex64"),
    ],
)
def test_why_a_way_cannot(way, wrong, why) -> None:
    assert choose.unfit(Variant(way), workload()) == ""
    assert why in choose.unfit(Variant(way), workload(**wrong))


def test_work_is_counted() -> None:
    layer = Workload("y", Geometry((3, 5), groups=2), 2, 6, 4, (10, 12), "float32")
    assert layer.pixels == 2 * 6 * 8 * 8
    assert choose.work(Variant("native"), layer) == layer.pixels * 4 * 15
    assert choose.work(Variant("separable"), workload(k=7)) == 94 * 94 * 14
    assert choose.work(Variant("phase"), workload(k=5)) == 96 * 96 * 64
    whole = workload(size=64, k=33)
    assert choose.work(Variant("fft"), whole) == pytest.approx(64 * 64 * math.log2(64 * 64))


@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), ((1, 2), (0, 3))])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
def test_the_gradient_of_x_is_planned_as_the_correlation_that_it_is(stride, padding) -> None:
    geometry = Geometry((3, 4), stride=stride, padding=padding)
    size = geometry.output_size((17, 19))
    flat = adjoint(geometry, (17, 19))
    rows, columns = flat.output_size(size)
    cropped = stride == (1, 1)
    needed = [n if cropped else -(-(n + sum(pads)) // s) for n, pads, s in zip((17, 19), padding, stride, strict=True)]
    assert [rows, columns] == needed
    derived = Workload.of(Rule("x", geometry, (17, 19), "auto"), (2, 1, *size), (1, 1, 3, 4), "float32").forward()
    assert (derived.outputs, derived.size) == (stride[0] * stride[1], size)


def test_constants_are_fitted(table) -> None:
    table["numpy"] = {"host y single": (2e-5, 3e-9, 4e-11)}
    known = table["numpy"]
    measurements = []
    for size, k in ((64, 3), (256, 3), (256, 7), (512, 15), (1024, 31)):
        each = workload(size=size, k=k)
        measurements.append(measure.Measurement(Variant.HOST, each, choose.predicted(known, Variant.HOST, each)))
    np.testing.assert_allclose(measure.fit(measurements), known["host y single"], rtol=1e-6)


def test_this_machines_table_is_written_and_read(home) -> None:
    version = convlab.backend("numpy").version
    written = costs.save_costs({"numpy": version}, {"numpy": {"host y single": (1e-6, 2e-9, 3e-12)}})
    assert written == home
    assert costs.table("numpy", VERSION)["host y single"] == pytest.approx((1e-6, 2e-9, 3e-12))
    costs.save_costs({"other": "1"}, {"other": {}})
    assert costs.table("numpy", VERSION)["host y single"] == pytest.approx((1e-6, 2e-9, 3e-12))
    assert [path.name for path in home.parent.iterdir()] == ["costs.json"]


def rewritten(home, change) -> None:
    costs.save_costs({"numpy": convlab.backend("numpy").version}, {"numpy": {"host y single": (1.0, 2.0, 3.0)}})
    content = json.loads(home.read_text())
    change(content)
    home.write_text(json.dumps(content))
    forget_costs()


CHANGES = {
    "format": lambda content: content.update(format=99),
    "convlab": lambda content: content.update(convlab="0.0.0"),
    "processor": lambda content: content.update(processor="another"),
    "damaged": lambda content: content["backends"]["numpy"].update({"1.0": {"host y single": [1, -2, 3]}}),
    "damaged ": lambda content: content["backends"]["numpy"].update({"1.0": {"host y single": [1, None, 3]}}),
    "damaged   ": lambda content: content["backends"]["numpy"].update({"1.0": {"host y single": [10**400, 1, 1]}}),
    "damaged  ": lambda content: content.update(backends=[1]),
}


@pytest.mark.parametrize("why", CHANGES)
def test_a_table_of_another_machine_or_version_is_ignored_with_a_warning(home, why) -> None:
    rewritten(home, CHANGES[why])
    with pytest.warns(RuntimeWarning, match=f"{why.strip()}.*Hint: run `convlab tune`"):
        constants = costs.table("numpy", VERSION)
    assert constants["host y single"][0] < 1e-3  # convlab's own
    with warnings.catch_warnings():  # it is said once
        warnings.simplefilter("error")
        assert costs.table("numpy", VERSION) == constants


def test_each_version_of_a_framework_has_a_table_of_its_own(home) -> None:
    """Environments share the file: one that isn't measured yet computes by convlab's table, without a word."""
    costs.save_costs({"numpy": "1.0"}, {"numpy": {"host y single": (1.0, 2.0, 3.0)}})
    assert costs.table("numpy", VERSION)["host y single"][0] < 1e-3
    costs.save_costs({"numpy": convlab.backend("numpy").version}, {"numpy": {"host y single": (4.0, 5.0, 6.0)}})
    assert costs.table("numpy", VERSION) == {"host y single": (4.0, 5.0, 6.0)}
    assert set(json.loads(home.read_text())["backends"]["numpy"]) == {"1.0", convlab.backend("numpy").version}


@pytest.fixture
def unknown(home, monkeypatch):
    """A processor of which convlab has no table, and how often it is measured."""
    monkeypatch.setattr(costs, "instruction_set", lambda: "other")
    calls = []

    def measured(backend: str) -> on_need.Table:
        calls.append(backend)
        assert costs.source(backend, VERSION).name.startswith("convlab's for AVX2")
        return {"native y single": (1.0, 2.0, 3.0)}

    monkeypatch.setattr(costs, "MEASURE", [measured])
    costs.processor.cache_clear()
    yield calls
    monkeypatch.undo()
    costs.processor.cache_clear()


def test_an_unknown_processor_is_measured_once(unknown, home) -> None:
    x = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    explanation = convlab.plan(x, x[:5, :5])
    assert (unknown, explanation.algorithm) == (["numpy"], "native")
    assert costs.table("numpy", VERSION) == {"native y single": (1.0, 2.0, 3.0)}
    assert json.loads(home.read_text())["processor"] == costs.processor()
    forget_costs()  # another process finds it in the file
    assert convlab.plan(x, x[:5, :5]).table == f"this machine's, {home}"
    assert unknown == ["numpy"]


def test_an_unknown_processor_is_not_measured_while_tracing(unknown) -> None:
    assert choose.cheapest("numpy", VERSION, ALL, "traced", workload()).costs
    assert choose.cheapest("numpy", VERSION, ALL, "eager", workload()).costs  # nor later: the bits would change
    assert unknown == []
    assert "this processor's isn't known" in costs.source("numpy", VERSION).name


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[]", b"[" * 100_000, b'{"format": NaN}'])
def test_what_is_no_table_at_all(home, content) -> None:
    home.parent.mkdir()
    home.write_bytes(content)
    with pytest.warns(RuntimeWarning, match="convlab ignores the table"):
        assert costs.table("numpy", VERSION)
    assert home.read_bytes() == content
    costs.save_costs({"numpy": convlab.backend("numpy").version}, {"numpy": {"host y single": (1.0, 2.0, 3.0)}})
    assert costs.table("numpy", VERSION) == {"host y single": (1.0, 2.0, 3.0)}


def test_the_table_that_ships_knows_every_backend() -> None:
    shipped = json.loads(costs._SHIPPED.read_text())
    assert set(shipped) == {"AVX-512", "AVX2"}
    for entry in shipped.values():
        assert set(entry["backends"]) == {"numpy", "torch", "mxnet", "jax", "tensorflow"}
        assert all(map(costs._is_entry, entry["backends"].values()))


def test_plan_tells_why() -> None:
    x, k = np.zeros((1024, 1024), np.float32), np.random.default_rng(0).standard_normal((7, 7)).astype(np.float32)
    explanation = convlab.plan(x, k)
    assert (explanation.backend, explanation.algorithm, explanation.gradients) == ("numpy", "host", {})
    assert explanation.seconds["host"] < explanation.seconds["native"]
    assert "host on numpy: predicted to be the fastest" in str(explanation)
    assert explanation.table in str(explanation).splitlines()[-1]
    assert convlab.plan(x, np.ones((13, 13), np.float32)).algorithm == "separable"
    assert convlab.plan(x, k, stride=2).refused["fft"] == "only for stride 1 and dilation 1"
    whole = convlab.plan(x, np.arange(961, dtype=np.float32).reshape(31, 31))
    assert (whole.algorithm, "integers" in whole.reason) == ("host", True)
    assert convlab.plan([[1, 2]], [[1]]).reason.startswith("integers are exact")
    assert convlab.plan(x, k, reproducible=True).algorithm == "reproducible"
    with pytest.raises(convlab.errors.ShapeError):
        convlab.plan(x, np.ones((2000, 1), np.float32))
