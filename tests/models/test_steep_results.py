"""A model whose softmax stands behind large scores: its whole result is held to what rounding may do to the scores."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest

from convlab.models.compare import results
from convlab.models.compare.results import apart_in_tolerances
from convlab.models.compare.sides import Side
from convlab.models.layers.activations import Softmax
from convlab.models.layers.layer import Dense
from convlab.models.layers.outputs import Outputs
from convlab.models.layers.reading import INPUT, Model, Part
from convlab.models.layers.steps import last_functions, steps

# Roundings of scores so large change their shares more than roundings of the image do.
KERNEL = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
SCORES, SHARES = Dense(KERNEL, np.full(4, 2000, "float32")), Softmax()
X = np.random.default_rng(1).normal(size=(2, 6))


class Runs:
    """An adapter whose whole model computes the layers, with scores that are off by a relative amount."""

    def __init__(self, off):
        self.off = off

    def run(self, natives, x, dtype):
        if natives != ["whole"]:
            values = x if isinstance(x, tuple) else (x,)
            first, *others = natives
            y = first.reference(*values) if not isinstance(first, Outputs) else values
            return y if isinstance(y, tuple) else reduce(lambda z, layer: layer.reference(z), others, y).astype(dtype)
        scores = SCORES.reference(x) * (1 + self.off * np.array([1, -1, 1, -1]))
        return SHARES.reference(scores).astype(dtype)


def side(off):
    parts = [Part("a", SCORES, SCORES, "", (INPUT,), "a"), Part("b", SHARES, SHARES, "", ("a",), "b")]
    model = Model("numpy", parts, True, "whole")
    return Side(Runs(off), model, steps(model))


@pytest.mark.parametrize("seed", range(4))
def test_roundings_of_the_scores_are_agreement(seed):
    rounded = side(2.0**-23)
    assert apart_in_tolerances(rounded, {INPUT: X}, "float32", seed) <= 1
    x = results._varied({INPUT: X}, "float32", np.random.default_rng(seed))
    both = (each.results(x, "float32")[0] for each in (rounded.in_parts(), rounded))
    assert results._ratio(*both, len(X), "float32")[0] > 1  # the shares alone tell of a fault


@pytest.mark.parametrize("off", [2e-5, 0.1])
def test_other_scores_are_not(off):
    assert apart_in_tolerances(side(off), {INPUT: X}, "float32", 0) > 1


def test_the_functions_at_the_end():
    model = side(0.0).model
    before, last = last_functions(steps(model), "b")
    assert before == "a"
    assert [step.main for step in last] == [SHARES]
    assert last_functions(steps(model), "a") == ("a", [])


def test_a_share_of_0_may_become_any_other():
    """In float64, too, it is 0 where scores lie far apart; if these may be off by as much, each may be the greatest."""
    scores = np.array([[0.0, 2e5, -1e5]])
    assert Softmax().reference(scores).tolist() == [[0, 1, 0]]
    assert (Softmax().error(scores, np.full_like(scores, 3e5), "float32") >= 1).all()
    assert Softmax().error(scores, np.full_like(scores, 1.0), "float32")[0, 0] < 1e-30
