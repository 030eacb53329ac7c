"""Attention of images that other layers give: built, read, written and saved, and read from PyTorch's code."""

from __future__ import annotations

import numpy as np
import pytest
from making import convolution, run
from sources import check, net

from convlab import load, port, save
from convlab.errors import ShapeError
from convlab.models.adapters import models_of
from convlab.models.layers.dot_product import DotProductAttention
from convlab.models.layers.joining import Add
from convlab.models.layers.pooling import Pool
from convlab.models.layers.reading import INPUT
from convlab.models.layers.shapes import Known, known_after

X = np.random.default_rng(0).normal(size=(2, 4, 6, 4)).astype("float32")
LAYER = DotProductAttention(2, 0.6)
# A non-local block, arXiv:1711.07971, with two heads, whose keys and values are of a smaller image.
GRAPH = [
    ("query", convolution(6, 4, (1, 1)), [INPUT]),
    ("smaller", Pool("max", (2, 2), (2, 2)), [INPUT]),
    ("key", convolution(6, 4, (1, 1), bias=False), ["smaller"]),
    ("value", convolution(4, 4, (1, 1)), ["smaller"]),
    ("attention", LAYER, ["query", "key", "value"]),
    ("sum", Add(), ["attention", INPUT]),
]


def by_hand(q, k, v, heads=2, scale=0.6):
    """Image by image, head by head and pixel by pixel."""
    result = np.zeros((len(q), v.shape[1], *q.shape[2:]))
    for n in range(len(q)):
        for head in range(heads):
            queries, keys, values = (
                np.split(each[n].astype(float), heads)[head].reshape(-1, each[0, 0].size) for each in (q, k, v)
            )
            for pixel in range(queries.shape[1]):
                scores = np.exp(scale * queries[:, pixel] @ keys)
                channels = slice(head * len(values), (head + 1) * len(values))
                result[n, channels].reshape(len(values), -1)[:, pixel] = values @ scores / scores.sum()
    return result


def images():
    rng = np.random.default_rng(1)
    return [rng.normal(size=size).astype("float32") for size in ((2, 6, 3, 4), (2, 6, 2, 5), (2, 4, 2, 5))]


def test_it_is_what_is_written_out_by_hand() -> None:
    q, k, v = images()
    np.testing.assert_allclose(LAYER.reference(q, k, v), by_hand(q, k, v), rtol=1e-12)
    rng = np.random.default_rng(2)
    for size in (1e-6, 1e-2, 0.3):
        moved = [each + size * rng.normal(size=each.shape) for each in (q, k, v)]
        off = [np.abs(one - other) for one, other in zip(moved, (q, k, v), strict=True)]
        error = LAYER.error([q, k, v], off, "float64")
        assert (np.abs(by_hand(*moved) - by_hand(q, k, v)) <= error).all()
        assert np.isfinite(error).all()


def test_each_framework_computes_it(framework) -> None:
    models = models_of(framework)
    q, k, v = images()
    result = models.run(models.build(LAYER, "builtin"), (q, k, v), "float32")
    error = LAYER.error([q, k, v], [np.zeros(each.shape) for each in (q, k, v)], "float32")
    assert result.shape == error.shape
    assert (np.abs(result - by_hand(q, k, v)) <= error).all()


def test_a_block_is_ported_written_and_saved(framework, backends, tmp_path) -> None:
    others = [name for name in backends if name != "numpy"]
    taker = others[(others.index(framework.partition(".")[0]) + 1) % len(others)]
    model = net(framework, GRAPH)
    ported = port(model, to=taker, inputs=X)
    assert ported.evidence.same
    assert not ported.untouched
    expected = run(framework, model, X)
    np.testing.assert_allclose(run(taker, ported.model, X), expected, rtol=1e-4, atol=1e-5)
    save(ported, path := tmp_path / "m.safetensors")
    np.testing.assert_allclose(run(framework, load(path, backend=framework), X), expected, rtol=1e-4, atol=1e-5)
    check(taker, ported, tmp_path, X)


def test_what_doesnt_go_together_is_refused() -> None:
    size = (3, 4)
    assert known_after(LAYER, [Known(6, size), Known(6, (2, 2)), Known(4, (2, 2))]) == Known(4, size)
    with pytest.raises(ShapeError, match="keys of 2x2 pixels and values of 3x4"):
        known_after(LAYER, [Known(6, size), Known(6, (2, 2)), Known(4, size)])
    with pytest.raises(ShapeError, match="queries of 6 channels, keys of 4"):
        known_after(LAYER, [Known(6, size), Known(4, size), Known(4, size)])
