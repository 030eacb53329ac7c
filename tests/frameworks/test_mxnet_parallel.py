"""convlab on two contexts of one process: gluon's trainer adds up what is one context's gradient."""

from __future__ import annotations

import sys

import parallel
import pytest
from parallel import LEARNING_RATE, STEPS, problem

from convlab import mxnet as lab


@pytest.fixture
def contexts(tmp_path, monkeypatch):
    """The example of docs/how-to/train-on-devices.md, as a module."""
    parallel.example("contexts.py", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import contexts

    yield contexts
    contexts.mx.npx.reset_np()
    del sys.modules["contexts"]


@pytest.mark.parametrize("hybridized", [False, True])
@pytest.mark.parametrize("reproducible", [False, True])
@pytest.mark.parametrize("name", ["chapter", "NCHW", "NHWC"])
def test_gradients_and_steps_are_one_contexts(contexts, name, reproducible, hybridized) -> None:
    for kind, counts in STEPS.items():
        for steps in counts:
            given = problem(name, kind)
            layer = lab.Conv2D(given.size, padding="same", reproducible=reproducible, **given.options)
            layer.initialize(ctx=contexts.contexts)
            layer.weight.set_data(lab.asarray(given.weight))
            layer.bias.set_data(lab.asarray(given.bias))
            if hybridized:
                layer.hybridize()
            contexts.train(layer, lab.asarray(given.images), lab.asarray(given.targets), steps, LEARNING_RATE)
            replicas = []
            for i in (0, 1):
                weight, bias = (each.list_data()[i].asnumpy() for each in (layer.weight, layer.bias))
                # The trainer leaves the sum of the replicas' gradients, and halves it in its update.
                gradients = [each.list_grad()[i].asnumpy() / 2 for each in (layer.weight, layer.bias)]
                replicas.append(parallel.saved("", weight, bias, gradients))
            arrays = {key.removeprefix(": "): value for key, value in replicas[0].items()}
            parallel.check(given, steps, arrays, exact=kind == "integers")
            for key, value in replicas[0].items():
                assert value.tobytes() == replicas[1][key].tobytes()


def test_the_documents_example(tmp_path) -> None:
    for line in parallel.run(parallel.example("contexts.py", tmp_path), tmp_path).splitlines():
        first, second = line.strip("[]").split(", ")
        assert first == second  # both contexts' parameters
