"""Bare weights, from each framework's own file into each other framework's model."""

from __future__ import annotations

import numpy as np
import pytest
from making import built, convolution, run

from convlab import compare, load, port, port_weights, save
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


def load_torch(model, weights, x):
    import torch

    model.load_state_dict(weights)
    return model(torch.from_numpy(x)).detach().numpy()


def load_jax(model, weights, x):
    module, _ = model.unbind()
    return np.moveaxis(np.asarray(module.apply(weights, np.moveaxis(x, 1, -1))), -1, 1)


def load_nnx(model, weights, x):
    from flax import nnx

    nnx.update(model, weights)
    return np.moveaxis(np.asarray(model(np.moveaxis(x, 1, -1))), -1, 1)


def load_tensorflow(model, weights, x):
    model.set_weights(list(weights.values()))
    return np.moveaxis(np.asarray(model(np.moveaxis(x, 1, -1))), -1, 1)


def load_mxnet(model, weights, x):
    import mxnet as mx

    for parameter, value in zip(model.collect_params().values(), weights.values(), strict=True):
        parameter.set_data(value)
    return model(mx.nd.array(x)).asnumpy()


# As the docstring of `port_weights` says it.
LOADERS = {
    "torch": load_torch,
    "jax": load_jax,
    "jax.nnx": load_nnx,
    "tensorflow": load_tensorflow,
    "mxnet": load_mxnet,
}


def test_what_comes_back_is_loaded_in_one_line(giver, taker):
    conv, norm = layers(1)
    weights = port_weights(None, built(giver, conv, norm), target := built(taker, *layers(3)))
    x = np.random.default_rng(4).normal(size=(2, 3, 6, 5)).astype("float32")
    y = norm.reference(conv.reference(x.astype(float)))
    assert LOADERS[taker](target, weights, x) == pytest.approx(y, rel=1e-4, abs=1e-4)


def test_the_chapters_layer_takes_its_weights():
    conv = layers(1)[0]
    target = built("numpy", layers(2)[0], style="convlab")
    weights = port_weights(None, built("numpy", conv, style="convlab"), target)
    vars(target).update(weights)
    x = np.random.default_rng(4).normal(size=(2, 3, 6, 5)).astype("float32")
    assert target(x) == pytest.approx(conv.reference(x.astype(float)), rel=1e-4, abs=1e-4)


def test_what_stands_for_a_model(giver, taker, tmp_path):
    conv, norm = layers(1)
    original = built(giver, conv, norm)
    ported = port(original, to=taker)
    assert compare(original, ported).same
    assert port(ported, to=giver).evidence.same
    save(ported, tmp_path / "a.safetensors")
    save(original, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert compare(original, load(tmp_path / "a.safetensors", backend=taker)).same
    weights = port_weights(None, ported, port(built(giver, *layers(2)), to=taker))
    path = tmp_path / f"weights{models_of(taker).FILES[0]}"
    save(ported, path)
    assert compare(load(path, into=ported), models_of(taker).with_weights(ported.model, weights)).same


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
