"""Attention of images that other layers give: built, read, written and saved, and read from PyTorch's code."""

from __future__ import annotations

import numpy as np
import pytest
from making import convolution, run
from sources import check, net

from convlab import load, port, save
from convlab.errors import ShapeError
from convlab.models.adapters import models_of, read
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


def words(torch):
    """Code with attention of pixels, by its source's name, with the layers that it takes."""
    nn, F = torch.nn, torch.nn.functional

    def conv(inputs, outputs):
        return nn.Conv2d(inputs, outputs, 1)

    def non_local(net, x):  # with `sub_sample`, arXiv:1711.07971
        n, smaller = x.size(0), F.max_pool2d(x, 2)
        value = net.g(smaller).view(n, 2, -1).permute(0, 2, 1)
        query = net.theta(x).view(n, 2, -1).permute(0, 2, 1)
        weights = F.softmax(torch.matmul(query, net.phi(smaller).view(n, 2, -1)), dim=-1)
        y = torch.matmul(weights, value).permute(0, 2, 1).contiguous()
        return net.out(y.view(n, 2, *x.size()[2:])) + x

    def adversarial(net, x):  # arXiv:1805.08318
        n, c, rows, columns = x.size()
        query = net.theta(x).view(n, -1, rows * columns).permute(0, 2, 1)
        weights = net.softmax(torch.bmm(query, net.phi(x).view(n, -1, rows * columns)))
        y = torch.bmm(net.g(x).view(n, -1, rows * columns), weights.permute(0, 2, 1))
        return net.gamma * y.view(n, c, rows, columns) + x

    def diffusion(net, x):  # with two heads, arXiv:2105.05233, whose channels stand head by head
        n, c, rows, columns = x.shape
        q, k, v = net.qkv(x).reshape(n * 2, c // 2 * 3, rows * columns).split(c // 2, dim=1)
        scale = (c // 2) ** -0.25
        weights = torch.softmax(torch.einsum("bct,bcs->bts", q * scale, k * scale), dim=-1)
        return x + net.out(torch.einsum("bts,bcs->bct", weights, v).reshape(n, -1, rows, columns))

    def fused(net, x):
        q, k, v = (each.flatten(2).transpose(1, 2) for each in net.qkv(x).chunk(3, dim=1))
        return net.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))

    pair = {"theta": conv(4, 2), "phi": conv(4, 2)}
    return {
        non_local: {**pair, "g": conv(4, 2), "out": conv(2, 4)},
        adversarial: {**pair, "g": conv(4, 4), "gamma": nn.Parameter(torch.rand(1)), "softmax": nn.Softmax(dim=-1)},
        diffusion: {"qkv": conv(4, 12), "out": conv(4, 4)},
        fused: {"qkv": conv(4, 12), "out": conv(4, 4)},
    }


def module(torch, code, layers):
    class Net(torch.nn.Module):
        def forward(self, x):
            return code(self, self.first(x))

    net = Net()
    net.first = torch.nn.Conv2d(4, 4, 1)
    for name, layer in layers.items():
        setattr(net, name, layer)
    return net.eval()


@pytest.mark.parametrize("which", range(4))
def test_code_of_any_words_is_read(which) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = module(torch, *[*words(torch).items()][which])
    with torch.no_grad():
        expected = model(torch.from_numpy(X)).numpy()
    ported = port(model, to="torch")
    assert ported.evidence.same
    assert not ported.untouched
    assert sum(row.kind == "dot_product_attention" for row in ported.evidence.rows) == 1
    np.testing.assert_allclose(run("torch", ported.model, X), expected, rtol=1e-4, atol=1e-5)
    assert {*ported.model.state_dict()} >= {*model.state_dict()} - {"gamma"}


@pytest.mark.parametrize("wrong", ["queries", "causal", "other values"])
def test_other_products_are_not_attention(wrong) -> None:
    torch = pytest.importorskip("torch")
    F = torch.nn.functional

    def code(net, x):
        q, k, v = (each.flatten(2).transpose(1, 2) for each in net.qkv(x).chunk(3, dim=1))
        if wrong == "causal":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            weights = (q @ k.transpose(1, 2)).softmax(1 if wrong == "queries" else -1)
            y = weights @ (v if wrong == "queries" else v * v)
        return y.transpose(1, 2).reshape(x.shape)

    model = module(torch, code, {"qkv": torch.nn.Conv2d(4, 12, 1)})
    assert not read(model).whole
