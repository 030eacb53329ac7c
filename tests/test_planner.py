"""The planner on cost tables made up here, and the file that holds this machine's."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest

import convlab
from convlab import planner, tune, wisdom
from convlab.adjoint import adjoint
from convlab.geometry import Geometry
from convlab.planner import Problem, plan
from convlab.rules import Rule

ALL = ("native", "taps", "phase", "matmul", "fft", "separable")


@pytest.fixture
def table(monkeypatch):
    """Fill in a backend's constants, in seconds."""
    tables: dict[str, dict[str, tuple[float, float, float]]] = {}
    monkeypatch.setattr(wisdom, "wisdom", lambda backend: tables[backend])
    yield tables
    plan.cache_clear()


@pytest.fixture
def home(monkeypatch, tmp_path):
    """A cache folder of the test's own."""
    monkeypatch.setattr(wisdom, "user_file", lambda: tmp_path / "convlab" / "wisdom.json")
    wisdom.forget()
    yield tmp_path / "convlab" / "wisdom.json"
    monkeypatch.undo()
    wisdom.forget()


def problem(part="y", size=100, k=5, outputs=1, inputs=1, dtype="float32", **geometry) -> Problem:
    return Problem(part, Geometry((k, k), **geometry), 1, outputs, inputs, (size, size), dtype)


def test_the_cost_is_linear_in_pixels_and_work(table) -> None:
    table["a"] = {"native y single": (1.0, 0.01, 0.0001), "taps y single": (0.0, 0.0, 0.001)}
    made = plan("a", ("native", "taps"), "traced", problem())
    pixels = 96 * 96
    expected = {"native": 1 + 0.01 * pixels + 0.0001 * 25 * pixels, "taps": 0.025 * pixels}
    assert made.costs == pytest.approx(expected)
    assert made.way == "native"
    assert plan("a", ("native", "taps"), "traced", problem(size=8)).way == "taps"
    double = plan("a", ("native", "taps"), "traced", problem(dtype="float64"))
    assert double.costs["taps"] == pytest.approx(2 * made.costs["taps"])


def test_what_is_not_known_is_left_to_the_framework(table) -> None:
    table["a"] = {}
    assert plan("a", ALL, "eager", problem()).way == "native"
    table["b"] = {"native y single": (9.0, 0, 0), "taps y single": (1.0, 0, 0)}
    assert plan("b", ALL, "traced", problem()).way == "taps"
    assert plan("b", ALL, "other", problem()).way == "native"  # nobody has measured that processor
    assert plan("b", ("native",), "traced", problem()).way == "native"
    assert plan("b", ALL, "traced", problem(dtype="complex64")).way == "native"


def test_kernels_of_the_host_must_be_worth_loading(table) -> None:
    table["a"] = {"native y single": (40e-6, 0, 0), "host y single": (25e-6, 0, 0)}
    assert plan("a", ALL, "eager", problem()).way == "native"
    table["b"] = {"native y single": (90e-6, 0, 0), "host y single": (25e-6, 0, 0)}
    assert plan("b", ALL, "eager", problem()).way == "host"
    assert plan("b", ALL, "traced", problem()).way == "native"
    assert plan("b", ALL, "eager", problem(size=20)).way == "native"  # too small an image
    assert plan("a", ALL, "eager", problem(), "host").way == "host"


def test_a_kernel_of_rank_one_may_be_separated(table) -> None:
    table["a"] = {"native y single": (1.0, 0, 0), "separable y single": (0.5, 0, 0)}
    made = plan("a", ALL, "eager", problem())
    assert (made.way, made.factored, made.factored_cost) == ("native", "separable", 0.5)
    assert plan("a", ALL, "traced", problem()).factored == ""  # whose kernel has no values yet
    assert plan("a", ALL, "eager", problem(part="k")).factored == ""
    table["b"] = {"native y single": (1.0, 0, 0), "separable y single": (0.9, 0, 0)}
    assert plan("b", ALL, "eager", problem()).factored == ""


def test_between_many_channels_another_way_must_promise_more(table) -> None:
    table["a"] = {"native y dense": (1.0, 0, 0), "fft y dense": (0.8, 0, 0)}
    assert plan("a", ALL, "traced", problem(k=11, inputs=4, outputs=4)).way == "native"
    table["b"] = {"native y dense": (1.0, 0, 0), "fft y dense": (0.6, 0, 0)}
    assert plan("b", ALL, "traced", problem(k=11, inputs=4, outputs=4)).way == "fft"
    assert plan("b", ALL, "traced", problem(k=9, inputs=4, outputs=4)).way == "native"


@pytest.mark.parametrize(
    ("way", "wrong", "why"),
    [
        ("fft", {"stride": (2, 1)}, "stride 1"),
        ("phase", {"dilation": (1, 2)}, "dilation 1"),
        ("phase", {"inputs": 2}, "one input and one output"),
        ("separable", {"k": 1}, "row or a column"),
        ("taps", {"part": "k"}, "gradient of K"),
        ("matmul", {"k": 40}, "memory"),
        ("host", {"dtype": "complex64"}, "not for complex64"),
    ],
)
def test_why_a_way_cannot(way, wrong, why) -> None:
    assert planner.unfit(way, problem()) == ""
    assert why in planner.unfit(way, problem(**wrong))


def test_work_is_counted() -> None:
    layer = Problem("y", Geometry((3, 5), groups=2), 2, 6, 4, (10, 12), "float32")
    assert layer.pixels == 2 * 6 * 8 * 8
    assert planner.work("native", layer) == layer.pixels * 4 * 15
    assert planner.work("separable", problem(k=7)) == 94 * 94 * 14
    assert planner.work("phase", problem(k=5)) == 96 * 96 * 64
    whole = problem(size=64, k=33)
    assert planner.work("fft", whole) == pytest.approx(64 * 64 * math.log2(64 * 64))


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
    derived = Problem.of(Rule("x", geometry, (17, 19), "auto"), (2, 1, *size), (1, 1, 3, 4), "float32").forward()
    assert (derived.outputs, derived.size) == (stride[0] * stride[1], size)


def test_constants_are_fitted(table) -> None:
    table["numpy"] = {"host y single": (2e-5, 3e-9, 4e-11)}
    known = table["numpy"]
    found = []
    for size, k in ((64, 3), (256, 3), (256, 7), (512, 15), (1024, 31)):
        each = problem(size=size, k=k)
        found.append(tune.Measurement("host", each, planner.cost(known, "host", each)))
    np.testing.assert_allclose(tune.fit(found), known["host y single"], rtol=1e-6)


def test_this_machines_table_is_written_and_read(home) -> None:
    version = convlab.backend("numpy").version
    written = wisdom.save({"numpy": version}, {"numpy": {"host y single": (1e-6, 2e-9, 3e-12)}})
    assert written == home
    assert wisdom.wisdom("numpy")["host y single"] == pytest.approx((1e-6, 2e-9, 3e-12))
    wisdom.save({"other": "1"}, {"other": {}})
    assert wisdom.wisdom("numpy")["host y single"] == pytest.approx((1e-6, 2e-9, 3e-12))
    assert [path.name for path in home.parent.iterdir()] == ["wisdom.json"]


def rewritten(home, change) -> None:
    wisdom.save({"numpy": convlab.backend("numpy").version}, {"numpy": {"host y single": (1.0, 2.0, 3.0)}})
    content = json.loads(home.read_text())
    change(content)
    home.write_text(json.dumps(content))
    wisdom.forget()


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
        found = wisdom.wisdom("numpy")
    assert found["host y single"][0] < 1e-3  # convlab's own
    with warnings.catch_warnings():  # it is said once
        warnings.simplefilter("error")
        assert wisdom.wisdom("numpy") == found


def test_each_version_of_a_framework_has_a_table_of_its_own(home) -> None:
    """Environments share the file: one that isn't measured yet computes by convlab's table, without a word."""
    wisdom.save({"numpy": "1.0"}, {"numpy": {"host y single": (1.0, 2.0, 3.0)}})
    assert wisdom.wisdom("numpy")["host y single"][0] < 1e-3
    wisdom.save({"numpy": convlab.backend("numpy").version}, {"numpy": {"host y single": (4.0, 5.0, 6.0)}})
    assert wisdom.wisdom("numpy") == {"host y single": (4.0, 5.0, 6.0)}
    assert set(json.loads(home.read_text())["backends"]["numpy"]) == {"1.0", convlab.backend("numpy").version}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[]", b"[" * 100_000, b'{"format": NaN}'])
def test_what_is_no_table_at_all(home, content) -> None:
    home.parent.mkdir()
    home.write_bytes(content)
    with pytest.warns(RuntimeWarning, match="convlab ignores the table"):
        assert wisdom.wisdom("numpy")
    assert home.read_bytes() == content
    wisdom.save({"numpy": convlab.backend("numpy").version}, {"numpy": {"host y single": (1.0, 2.0, 3.0)}})
    assert wisdom.wisdom("numpy") == {"host y single": (1.0, 2.0, 3.0)}


def test_the_table_that_ships_knows_every_backend() -> None:
    shipped = json.loads(wisdom._SHIPPED.read_text())["backends"]
    assert set(shipped) == {"numpy", "torch", "mxnet", "jax", "tensorflow"}
    assert all(map(wisdom._is_entry, shipped.values()))


def test_plan_tells_why() -> None:
    x, k = np.zeros((1024, 1024), np.float32), np.random.default_rng(0).standard_normal((7, 7)).astype(np.float32)
    found = convlab.plan(x, k)
    assert (found.backend, found.algorithm, found.gradients) == ("numpy", "host", {})
    assert found.seconds["host"] < found.seconds["native"]
    assert "host on numpy: predicted to be the fastest" in str(found)
    assert convlab.plan(x, np.ones((13, 13), np.float32)).algorithm == "separable"
    assert convlab.plan(x, k, stride=2).refused["fft"] == "only for stride 1 and dilation 1"
    whole = convlab.plan(x, np.arange(961, dtype=np.float32).reshape(31, 31))
    assert (whole.algorithm, "integers" in whole.reason) == ("host", True)
    assert convlab.plan([[1, 2]], [[1]]).reason.startswith("integers are exact")
    assert convlab.plan(x, k, reproducible=True).algorithm == "reproducible"
    with pytest.raises(convlab.errors.ShapeError):
        convlab.plan(x, np.ones((2000, 1), np.float32))
