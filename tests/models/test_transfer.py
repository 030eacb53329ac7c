"""Bare weights, from each framework's own file into each other framework's model."""

from __future__ import annotations

import numpy as np
import pytest
from making import built, convolution, run

from convlab import port_weights, save
from convlab.errors import ModelError, PortError
from convlab.models.adapters import models_of
from convlab.models.layers.layer import BatchNorm
from convlab.testing import error_bound, worst_ratio
from convlab.truth.oracle import oracle


def layers(seed: int, padding=1):
    rng = np.random.default_rng(seed)
    norm = [rng.uniform(0.5, 2, 4).astype("float32") for _ in range(4)]
    conv = convolution(4, 3, (3, 3), padding=padding)
    conv.kernel[:] = rng.normal(size=conv.kernel.shape)
    return [conv, BatchNorm(*norm, epsilon=1e-3, momentum=0.9)]


def test_from_a_file_into_another_frameworks_model(giver, taker, tmp_path):
    conv, norm = layers(1)
    path = tmp_path / f"weights{models_of(giver).FILES[0]}"
    save(built(giver, conv, norm), path)
    mine, theirs = built(giver, *layers(2)), built(taker, *layers(3))
    weights = port_weights(path, mine, theirs)
    filled = models_of(taker).with_weights(theirs, weights)
    x = np.random.default_rng(4).normal(size=(2, 3, 6, 5)).astype("float32").astype(float)
    y = norm.reference(conv.reference(x))
    bound = norm.error(conv.reference(x), conv.error(x, 0 * x, "float32"), "float32")
    assert worst_ratio(run(taker, filled, x), y, bound) <= 1
    assert worst_ratio(run(taker, theirs, x), y, bound) > 1  # The target is left as it was.


def test_lone_layers_and_what_doesnt_fit(framework):
    conv = layers(1)[0]
    x = np.random.default_rng(4).normal(size=(2, 3, 6, 5)).astype("float32").astype(float)
    target = built(framework, layers(2)[0])
    filled = models_of(framework).with_weights(target, port_weights(None, built(framework, conv), target))
    options = {"bias": conv.bias, **conv.spec.geometry}
    bound = error_bound(x, conv.kernel, dtype="float32", **options)
    assert worst_ratio(run(framework, filled, x), oracle(x, conv.kernel, **options), bound) <= 1
    with pytest.raises(PortError, match=r"(?s)the weights fit.*padding"):
        port_weights(None, built(framework, conv), built(framework, convolution(4, 3, (3, 3), padding=0)))
    with pytest.raises(ModelError, match=r"got kernel of shape \(4, 3, 3, 3\).*expected \(5, 3, 3, 3\)"):
        port_weights(None, built(framework, conv), built(framework, convolution(5, 3, (3, 3), padding=1)))
    with pytest.raises(ModelError, match="have different structures"):
        port_weights(None, built(framework, *layers(1)), built(framework, conv))
