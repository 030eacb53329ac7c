"""`compare` finds and names the mistakes that `benchmarks/faults.py` plants into models, one of each kind."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from convlab import compare
from convlab.models.compare.suspects import LayerCase, layer_cause
from convlab.models.layers.layer import BatchNorm

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from faults import clean, outcomes, plant
from planted import FAULTS

# In frameworks that take their time only some kinds of faults are tried.
EVERY = {"torch": 1}
SHAPES = ("missing activation", "normalised inputs", "swapped inputs", "dropped branch", "epsilon", "permuted outputs")


def missed(framework, count):
    """The reports in which not all of so many faults in a model are named."""
    kinds = [kind for kind, fault in FAULTS.items() if framework in (fault.backends or (framework,))]
    reports = {}
    for number, kind in enumerate(kinds[:: EVERY.get(framework, 11) if count == 1 else 11]):
        pair = plant(np.random.default_rng(number), kind, SHAPES, count, (framework, framework))
        results, report = outcomes(pair)
        assert len(results) == count
        if not all(outcome.found and outcome.named for outcome in results):
            reports[kind] = report
    return reports


def test_each_kind_of_fault_is_found_and_named(framework):
    assert missed(framework, 1) == {}


def test_two_faults_in_a_model_are_both_named(framework):
    assert missed(framework, 2) == {}


def test_pools_and_flattened_rows_of_frameworks_that_write_them_in_another_way(giver, taker):
    """Keras pads before a pool, and flattens pixel by pixel: the names of the faults are the same."""
    for number, kind in enumerate(("ceil_mode", "negated weights")):
        results, report = outcomes(plant(np.random.default_rng(number), kind, SHAPES, 1, (giver, taker)))
        assert [(outcome.found, outcome.named) for outcome in results] == [(True, True)], report


def test_statistics_of_another_momentum_in_few_bits():
    """A variance of nearly 1 has lost bits of what it is away from 1."""
    norm = BatchNorm(*np.float32([[0.25, -0.5], [1.0001, 0.9998], [1, 1], [0, 0]]), 1e-5, 0.9)
    other = replace(norm, mean=norm.mean * np.float32(0.01), variance=1 + (norm.variance - 1) * np.float32(0.01))
    images = np.random.default_rng(0).standard_normal((3, 2, 2, 4, 4))
    assert layer_cause(LayerCase(norm, other, *images)).startswith("statistics of another momentum: ")
    changed = replace(other, variance=other.variance + np.float32(1e-4))
    assert layer_cause(LayerCase(norm, changed, *images)) == ""


def test_copies_that_are_cut_and_listed_in_another_way_are_the_same(framework):
    for seed in range(4):
        pair = clean(np.random.default_rng(seed), (framework, framework))
        comparison = compare(pair.a, pair.b)
        assert comparison.same is True, f"{pair.about}\n{comparison}"
