"""Attention of all pixels and of windows, and what makes pixels tokens: built, read, run, written and saved."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from making import convolution, kernel, run
from sources import check, net

from convlab import compare, load, port, save
from convlab.errors import ModelError, ModelFileError, ShapeError, UnsupportedError
from convlab.models.adapters import models_of
from convlab.models.files.neutral import read_layers, write_layers
from convlab.models.layers.attention import Attention, ClassToken, FirstPixel, PositionEmbedding
from convlab.models.layers.joining import Add, Concatenate
from convlab.models.layers.layer import Dense
from convlab.models.layers.norms import LayerNorm
from convlab.models.layers.pixels import Subsample
from convlab.models.layers.reading import INPUT
from convlab.models.layers.windows import WindowAttention
from convlab.truth.bounds import worst_ratio

CHANNELS, HEADS = 8, 2
ARRAYS = kernel((24, 8), 1), kernel((8, 8), 2)
BIASES = kernel((24,), 3), kernel((8,), 4)
WINDOW = {"table": kernel((15, 2), 5), "window": (2, 3)}
LAYERS = {
    "all": Attention(*ARRAYS, HEADS, *BIASES),
    "all, unbiased": Attention(*ARRAYS, 4),
    "wide": Attention(kernel((60, 8), 1), kernel((8, 20), 2), HEADS, kernel((60,), 3), kernel((8,), 4)),
    "of two sizes": Attention(kernel((20, 8), 1), kernel((8, 12), 2), HEADS),
    "windows": WindowAttention(*ARRAYS, HEADS, *BIASES, **WINDOW),
    "shifted": WindowAttention(*ARRAYS, HEADS, *BIASES, **WINDOW, shift=(1, 1)),
    "one way": WindowAttention(*ARRAYS, HEADS, **{**WINDOW, "window": (2, 3)}, shift=(0, 2)),
    "cosine": WindowAttention(*ARRAYS, HEADS, *BIASES, **WINDOW, shift=(1, 1), scale=np.float32([10, -3])),
    "cosine, unbiased": WindowAttention(*ARRAYS, HEADS, **WINDOW, scale=np.float32([2, 20])),
    "grid": WindowAttention(*ARRAYS, HEADS, *BIASES, **WINDOW, grid=True),
    "token": ClassToken(kernel((8,), 6)),
    "positions": PositionEmbedding(kernel((8, 4, 5), 7)),
    "row of positions": PositionEmbedding(kernel((8, 20, 1), 7)),
    "first": FirstPixel(),
    "some": Subsample((1, 0), (2, 3)),
}
X = np.random.default_rng(5).normal(size=(2, 8, 4, 5)).astype("float32")


def attended(layer, pixels, added=None):
    """What the pixels (n, channels) of one image or window become, one pixel and one head at a time."""
    w, v = layer.kernel.astype(float), layer.out_kernel.astype(float)
    b, c = (0.0 if each is None else each.astype(float) for each in (layer.bias, layer.out_bias))
    rows = pixels @ w.T + b
    size = v.shape[1] // layer.heads  # of a value; those of the queries and the keys share what is left
    keys, joined = (len(w) - v.shape[1]) // 2, np.zeros((len(pixels), v.shape[1]))
    key_size = keys // layer.heads
    for head in range(layer.heads):
        query, key = (rows[:, i * keys + head * key_size :][:, :key_size] for i in range(2))
        value = rows[:, 2 * keys + head * size :][:, :size]
        for pixel in range(len(pixels)):
            scores = key @ query[pixel] / np.sqrt(key_size)
            if getattr(layer, "scale", None) is not None:
                lengths = np.linalg.norm(key, axis=1) * np.linalg.norm(query[pixel])
                scores = float(layer.scale[head]) * (key @ query[pixel]) / np.maximum(lengths, 1e-30)
            scores = scores + (0 if added is None else added[head, pixel])
            weights = np.exp(scores - scores.max())
            joined[pixel, head * size : (head + 1) * size] = weights @ value / weights.sum()
    return joined @ v.T + c


def in_windows(layer, image):
    """The same in each window of one image (channels, rows, columns), written with sets of places."""
    (rows, columns), (h, w) = image.shape[1:], layer.window
    tall, wide = -(-rows // h) * h, -(-columns // w) * w
    down, across = (0 if k >= n else s for n, k, s in zip((tall, wide), layer.window, layer.shift, strict=True))
    result = np.zeros(image.shape)
    for top, left in np.ndindex(tall // h, wide // w):
        inside = [((top * h + i + down), (left * w + j + across), i, j) for i, j in np.ndindex(h, w)]
        if layer.grid:
            inside = [(top + i * (tall // h), left + j * (wide // w), i, j) for i, j in np.ndindex(h, w)]
        pixels = np.zeros((h * w, CHANNELS))
        for n, (y, x, _, _) in enumerate(inside):
            if y % tall < rows and x % wide < columns:
                pixels[n] = image[:, y % tall, x % wide]
        added = np.zeros((layer.heads, h * w, h * w))
        for n, (y, x, i, j) in enumerate(inside):
            for m, (v, u, k, p) in enumerate(inside):
                added[:, n, m] = layer.table[(i - k + h - 1) * (2 * w - 1) + j - p + w - 1]
                # Places that wrap around aren't neighbours of those that don't.
                added[:, n, m] -= 100.0 * ((y >= tall) != (v >= tall) or (x >= wide) != (u >= wide))
        for n, (y, x, _, _) in enumerate(inside):
            if y % tall < rows and x % wide < columns:
                result[:, y % tall, x % wide] = attended(layer, pixels, added)[n]
    return result


def by_hand(layer, x):
    """What a layer computes, written anew."""
    x = x.astype(float)
    if isinstance(layer, WindowAttention):
        return np.array([in_windows(layer, image) for image in x])
    if isinstance(layer, Attention):
        rows = [attended(layer, image.reshape(CHANNELS, -1).T) for image in x]
        return np.array([each.T.reshape(x.shape[1:]) for each in rows])
    if isinstance(layer, ClassToken):
        column = x.reshape(len(x), CHANNELS, -1)
        token = np.repeat(layer.token.astype(float)[None, :, None], len(x), 0)
        return np.concatenate([token, column], 2)[..., None]
    if isinstance(layer, PositionEmbedding):
        return x + layer.embedding.astype(float).reshape(x.shape[1:])
    return x[:, :, 0, 0] if isinstance(layer, FirstPixel) else x[:, :, 1::2, ::3]


def by_differences(function, x, dy):
    """The gradient of sum(dy * function(x)) by central differences."""
    x, slopes, step = np.asarray(x, float), np.zeros(x.shape), 1e-5
    for place in np.ndindex(x.shape):
        ends = []
        for sign in (step, -step):
            moved = x.copy()
            moved[place] += sign
            ends.append((dy * function(moved)).sum())
        slopes[place] = (ends[0] - ends[1]) / (2 * step)
    return slopes


@pytest.mark.parametrize("name", LAYERS)
def test_references_by_hand(name) -> None:
    layer = LAYERS[name]
    expected, result = by_hand(layer, X), layer.reference(X.astype(float))
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-13)
    assert expected.ndim == 2 or layer.output_size((4, 5)) == expected.shape[2:]


@pytest.mark.parametrize("name", LAYERS)
def test_built_run_and_read(framework, name) -> None:
    layer, models = LAYERS[name], models_of(framework)
    if name == "of two sizes" and framework.startswith("jax"):
        with pytest.raises(UnsupportedError, match="values of as many channels as its keys, this one 6 and 2"):
            models.build(layer, "builtin")
        return
    natives = models.build(layer, "builtin")
    result = models.run(natives, X, "float32")
    error = layer.error(X.astype(float), np.zeros(X.shape), "float32")
    assert (np.abs(result - by_hand(layer, X)) <= error).all()
    assert error.max() < 1e-3
    (part,) = models.read(natives[0]).parts
    for each in fields(layer):
        np.testing.assert_array_equal(getattr(part.layer, each.name), getattr(layer, each.name))


@pytest.mark.parametrize("name", ["all", "wide", "shifted", "cosine", "cosine, unbiased"])
def test_an_input_that_is_off_stays_within_the_error(name) -> None:
    layer, rng = LAYERS[name], np.random.default_rng(1)
    x = X.astype(float)
    for size in (1e-6, 1e-2, 0.3):
        off = size * rng.random(x.shape)
        moved = layer.reference(x + off * rng.choice([-1.0, 1.0], x.shape))
        assert (np.abs(moved - layer.reference(x)) <= layer.error(x, off, "float64")).all()


LEARNED = [name for name in LAYERS if name not in ("one way", "cosine", "grid", "first", "some")]


@pytest.mark.parametrize("name", LEARNED)
def test_true_gradients_are_slopes(name) -> None:
    layer, rng = LAYERS[name], np.random.default_rng(2)
    x = X.astype(float)
    dy = rng.normal(size=layer.reference(x).shape)
    true, bounds = layer.gradients(x, dy, "float64")
    for each, slopes in true.items():
        if each == "X":
            expected = by_differences(layer.reference, x, dy)
        else:
            expected = by_differences(
                lambda array, name=each: replace(layer, **{name: array}).reference(x), getattr(layer, each), dy
            )
        np.testing.assert_allclose(slopes, expected, rtol=1e-6, atol=1e-7)
        assert bounds[each].shape == slopes.shape
        assert bounds[each].max() < 1e-9


# What frameworks' own attention of float64 holds in float32.
NARROW = {
    ("jax.nnx", "all"): "nnx computes scores and weights in float32",
    ("jax.nnx", "wide"): "nnx computes scores and weights in float32",
    ("jax.nnx", "all, unbiased"): "nnx computes scores and weights in float32",
    ("tensorflow", "wide"): "Keras holds 1 / sqrt(channels of a head) in float32",
    ("tensorflow", "all, unbiased"): "Keras holds 1 / sqrt(channels of a head) in float32",
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["all", "all, unbiased", "wide", "shifted", "cosine, unbiased", "token", "positions"])
def test_gradients_within_their_bounds(framework, name, dtype, request) -> None:
    if dtype == "float64" and (framework, name) in NARROW:
        request.applymarker(pytest.mark.xfail(strict=True, reason=NARROW[framework, name]))
    layer, rng, models = LAYERS[name], np.random.default_rng(2), models_of(framework)
    arrays = {each: getattr(layer, each) for each in layer.arrays if getattr(layer, each) is not None}
    layer = replace(layer, dtype=dtype, **{each: array.astype(dtype) for each, array in arrays.items()})
    x = X.astype(dtype)
    dy = rng.normal(size=layer.reference(x.astype(float)).shape).astype(dtype)
    slopes = models.gradients(models.build(layer, "builtin"), x, dy, dtype)
    true, bounds = layer.gradients(x.astype(float), dy.astype(float), dtype)
    for each, bound in bounds.items():
        assert worst_ratio(slopes[each], true[each], bound) <= 1


NORM = LayerNorm(*(np.linspace(0.5, 1.5, 8, dtype="float32") for _ in range(2)), 1e-6)
PATCHES = convolution(8, 3, (4, 4), stride=(4, 4))
HEAD = Dense(kernel((5, 8)), kernel((5,)))
# A vision transformer of one block, and windows of which every other one is shifted.
TRANSFORMER = [
    ("patches", PATCHES, [INPUT]),
    ("class_token", LAYERS["token"], ["patches"]),
    ("positions", PositionEmbedding(kernel((8, 9, 1), 7)), ["class_token"]),
    ("norm1", NORM, ["positions"]),
    ("attention", replace(LAYERS["wide"], rate=0.25), ["norm1"]),
    ("add1", Add(), ["positions", "attention"]),
    ("norm2", NORM, ["add1"]),
    ("mlp", convolution(8, 8, (1, 1)), ["norm2"]),
    ("add2", Add(), ["add1", "mlp"]),
    ("first", FirstPixel(), ["add2"]),
    ("head", HEAD, ["first"]),
]
SWIN = [
    ("patches", PATCHES, [INPUT]),
    ("attention1", LAYERS["windows"], ["patches"]),
    ("attention2", LAYERS["shifted"], ["attention1"]),
    ("attention3", LAYERS["cosine"], ["attention2"]),
    ("attention4", LAYERS["grid"], ["attention3"]),
    ("even", Subsample((0, 0), (2, 2)), ["attention4"]),
    ("odd", Subsample((1, 1), (2, 2)), ["attention4"]),
    ("merged", Concatenate(), ["even", "odd"]),
    ("reduction", convolution(8, 16, (1, 1)), ["merged"]),
]
IMAGES = np.random.default_rng(6).normal(size=(2, 3, 16, 8)).astype("float32")


def carried(graph, x):
    """What the layers of a graph give by their definition, which the tests above hold to sums by hand."""
    values = {INPUT: x.astype(float)}
    for name, layer, inputs in graph:
        values[name] = layer.reference(*(values[value] for value in inputs))
    return values[graph[-1][0]]


@pytest.mark.parametrize("graph", [TRANSFORMER, SWIN], ids=["transformer", "swin"])
def test_models_are_ported_written_and_saved(framework, backends, graph, tmp_path) -> None:
    others = [name for name in backends if name != "numpy"]
    giver, taker = framework, others[(others.index(framework.partition(".")[0]) + 1) % len(others)]
    model, expected = net(giver, graph), carried(graph, IMAGES)
    ported = port(model, to=taker, input_size=(16, 8))
    assert ported.evidence.same
    assert not ported.untouched
    assert np.abs(run(taker, ported.model, IMAGES) - expected).max() < 1e-4 * np.abs(expected).max()
    save(model, a := tmp_path / "a.safetensors")
    save(ported, b := tmp_path / "b.safetensors")
    assert a.read_bytes() == b.read_bytes()
    loaded = load(a, backend=taker)
    assert np.abs(run(taker, loaded, IMAGES) - expected).max() < 1e-4 * np.abs(expected).max()
    check(taker, ported, tmp_path, IMAGES)


def compiled(name, model, x):
    """The result of a model that its framework has compiled."""
    if name == "torch":
        import torch

        with torch.no_grad():
            return torch.compile(model, backend="eager")(torch.from_numpy(x)).numpy()
    if name == "mxnet":
        import mxnet

        model.hybridize()
        return model(mxnet.nd.array(x)).asnumpy()
    x = x.transpose(0, 2, 3, 1)
    if name == "tensorflow":
        return model.predict(x, verbose=0)
    if name == "jax.nnx":
        from flax import nnx

        return np.asarray(nnx.jit(lambda model, x: model(x))(model, x))
    import jax

    module, variables = model.unbind()
    return np.asarray(jax.jit(module.apply)(variables, x))


@pytest.mark.parametrize("graph", [TRANSFORMER, SWIN], ids=["transformer", "swin"])
def test_what_is_ported_is_compiled(framework, graph) -> None:
    expected = carried(graph, IMAGES)
    ported = port(net(framework, graph), to=framework, input_size=(16, 8)).model
    result = compiled(framework, ported, IMAGES)
    first = framework in ("torch", "mxnet") or expected.ndim == 2
    assert np.abs((result if first else result.transpose(0, 3, 1, 2)) - expected).max() < 1e-5


def test_what_differs_in_attention_is_found(framework) -> None:
    changed = [
        (name, replace(layer, heads=4) if name == "attention" else layer, each) for name, layer, each in TRANSFORMER
    ]
    report = compare(net(framework, TRANSFORMER), net(framework, changed), inputs=IMAGES)
    assert [row.a.replace("/", ".") for row in report.rows if row.diverges] == ["attention"]
    assert "eads is 2 in the first, 4 in the second" in str(report)


def test_images_of_another_size_than_the_positions(framework) -> None:
    model = net(framework, TRANSFORMER)
    with pytest.raises(ModelError, match="got images of 17x1 pixels, expected 9x1"):
        port(model, to=framework, input_size=(16, 16))
    with pytest.raises(ShapeError, match="13x1"):
        PositionEmbedding(kernel((8, 13, 1))).output_size((17, 1))


def test_files(tmp_path) -> None:
    names = (
        "all",
        "all, unbiased",
        "wide",
        "of two sizes",
        "shifted",
        "cosine",
        "cosine, unbiased",
        "grid",
        "some",
        "token",
        "first",
    )
    layers = [LAYERS[name] for name in names]
    write_layers(layers, path := tmp_path / "m.safetensors")
    for before, after in zip(layers, read_layers(path), strict=True):
        assert type(before) is type(after)
        for each in fields(before):
            np.testing.assert_array_equal(getattr(after, each.name), getattr(before, each.name))


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (replace(LAYERS["all"], heads=3), "rows of the queries, the keys and the values of its 3 heads"),
        (replace(LAYERS["all"], kernel=kernel((18, 8)), bias=None), "the values of its 2 heads"),
        (replace(LAYERS["all"], out_kernel=kernel((8, 3))), "the values of its 2 heads"),
        (replace(LAYERS["all"], out_kernel=kernel((6, 8))), "out_kernel: got 6x8 of F32, expected 8x8"),
        (replace(LAYERS["windows"], kernel=kernel((22, 8)), bias=None), "the values of its 2 heads"),
        (replace(LAYERS["windows"], window=(3, 3)), "table: got 15x2 of F32, expected 25x2"),
        (replace(LAYERS["cosine"], scale=np.float32([1, 2, 3])), "scale: got 3 of F32, expected 2"),
        (replace(LAYERS["windows"], shift=(-1, 0)), "shift: got .*expected two integers from 0"),
    ],
)
def test_a_file_of_layers_that_dont_compute_isnt_written(layer, words, tmp_path) -> None:
    with pytest.raises(ModelFileError, match=words):
        write_layers([layer], tmp_path / "m.safetensors")
    assert not [*tmp_path.iterdir()]
