"""Tests run once for each backend of the session: all that are installed, or those named by --backends.

A backend that a session names and that doesn't load fails its tests; nothing is skipped.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()  # not the user's own table of this machine's speed
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parent.parent / ".numba"))  # compiled once, not in each run

settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
settings.load_profile("default")

NNX_WITH = {"jax", "torch"}
FRAMEWORKS = ("torch", "mxnet", "jax", "tensorflow", "dask")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backends", help="comma-separated; default: numpy and every framework that is installed")


def selected(config: pytest.Config) -> list[str]:
    named = config.getoption("--backends")
    if named:
        return named.split(",")
    return ["numpy", *(name for name in FRAMEWORKS if importlib.util.find_spec(name))]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A framework's own tests and its adapter's doctests belong to the sessions that select it."""
    # These have sessions of their own, which name them.
    if collection_path.name in ("toy", "browser", "explorer", "gpu"):
        return not any(Path(each).absolute() == collection_path for each in config.args)
    for name in FRAMEWORKS:
        mine = collection_path.name.startswith((f"test_{name}", f"convlab_{name}"))
        if mine and name not in selected(config):
            return True
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The conformance classes of other backends belong to other sessions."""
    others = {f"Test{name.title()}" for name in ("numpy", *FRAMEWORKS) if name not in selected(config)}
    items[:] = [item for item in items if getattr(getattr(item, "cls", None), "__name__", "") not in others]


def with_models(config: pytest.Config) -> list[str]:
    """The session's backends that have layers and models of their own, Flax's two kinds apart."""
    from convlab import adapters

    names = [name for name in selected(config) if adapters()[name].models]
    return [*names, *(["jax.nnx"] if "jax" in names else [])]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = with_models(metafunc.config)
    whole = [name for name in names if name != "numpy"]  # which has convolutions alone
    for one, other, among in (("source", "target", names), ("giver", "taker", whole)):
        if other in metafunc.fixturenames:  # every ordered pair; nnx, which shares linen's code, with two others
            pairs = [pair for pair in itertools.product(among, among) if "jax.nnx" not in pair or set(pair) & NNX_WITH]
            metafunc.parametrize((one, other), pairs)
        elif one in metafunc.fixturenames:
            metafunc.parametrize(one, among)
    for each, among in (("convolving", names), ("framework", whole)):
        if each in metafunc.fixturenames:
            metafunc.parametrize(each, among)
    if "lab" in metafunc.fixturenames and not hasattr(metafunc.cls, "adapter"):  # which has one of its own
        metafunc.parametrize("lab", selected(metafunc.config), indirect=True)


@pytest.fixture
def lab(request: pytest.FixtureRequest):
    import convlab

    return convlab.backend(request.param)


@pytest.fixture
def backends(request: pytest.FixtureRequest) -> list[str]:
    return selected(request.config)


@pytest.fixture(params=["operations", *(["kernels"] if importlib.util.find_spec("numba") else [])])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each of the two ways to compute `reproducible=True` on a CPU, however small; where numba is, both."""
    from convlab.correlation import on_host

    monkeypatch.setattr(on_host, "numba_installed", lambda: request.param == "kernels")
    monkeypatch.setattr(on_host, "WORTH_LOADING", 0)
    _forget_programs()
    yield str(request.param)
    _forget_programs()


def _forget_programs() -> None:
    """Plan calls anew, and let JAX, if it is there, compile anew: both keep the way that they were made for."""
    from convlab.correlation.repeated import forget_calls

    forget_calls()
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
