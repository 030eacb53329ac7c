"""The notebooks as plain scripts: what their cells claim, they assert. `nox -s notebooks` runs them as notebooks."""

from __future__ import annotations

import runpy
from pathlib import Path

import matplotlib
import pytest

from convlab import Backend

NOTEBOOKS = Path(__file__).parents[1] / "docs" / "notebooks"


@pytest.fixture(autouse=True)
def without_windows() -> None:
    matplotlib.use("Agg")
    yield
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize("name", ["chapter", "blur_of_your_camera"])
def test_a_text_for_every_framework(name: str, lab: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVLAB_BACKEND", lab.name)
    assert runpy.run_path(str(NOTEBOOKS / f"{name}.py"))["FRAMEWORK"] == lab.name


def test_a_mistake_in_porting(backends: list[str]) -> None:
    if {"torch", "tensorflow"} <= set(backends):
        runpy.run_path(str(NOTEBOOKS / "why_models_differ.py"))
