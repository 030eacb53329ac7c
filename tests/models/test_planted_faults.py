"""`compare` finds and names the mistakes that `benchmarks/faults.py` plants into models, one of each kind."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from convlab import compare

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


def test_copies_that_are_cut_and_listed_in_another_way_are_the_same(framework):
    for seed in range(4):
        pair = clean(np.random.default_rng(seed), (framework, framework))
        comparison = compare(pair.a, pair.b)
        assert comparison.same is True, f"{pair.about}\n{comparison}"
