"""Rows of numbers as images, batch norm of rows, differences, and dropped channels: ported, run, written and saved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from chains import conv, dense, norm
from making import built, run
from sources import check, net

from convlab import compare, load, port, save
from convlab.errors import ModelError, ModelFileError
from convlab.models.adapters import read
from convlab.models.files.neutral import read_layers, write_layers
from convlab.models.layers.activations import Activation
from convlab.models.layers.flattening import Flatten, Unflatten
from convlab.models.layers.joining import Subtract
from convlab.models.layers.layer import Dropout
from convlab.models.layers.pooling import Pool
from convlab.models.layers.reading import INPUT

SIZE = (3, 2)
LAST = ("tensorflow", "jax", "jax.nnx")
BY_CHANNEL, BY_PIXEL = Unflatten(SIZE, "CHW"), Unflatten(SIZE, "HWC")
ROWS = np.random.default_rng(3).normal(size=(4, 5)).astype("float32")


@pytest.fixture
def other(framework, backends) -> str:
    """The framework after this one."""
    others = [name for name in backends if name != "numpy"]
    return others[(others.index(framework.partition(".")[0]) + 1) % len(others)]


def generator(unflatten):
    """Rows to images, as the generator of a DCGAN, arXiv:1511.06434, begins."""
    return [
        dense(4 * 6, 5),
        replace(norm(4 * 6), rank=0),
        Activation("relu"),
        unflatten,
        conv(3, 4, padding=1),
        Activation("tanh"),
    ]


def by_hand(layers, x):
    """What the generator computes, number by number where rows become images."""
    (fc, bn, _, unflatten, convolution, _), (rows, columns) = layers, SIZE
    x = x @ fc.kernel.T.astype(float) + fc.bias
    x = np.maximum((x - bn.mean) / np.sqrt(bn.variance + bn.epsilon) * bn.scale + bn.shift, 0)
    images = np.zeros((len(x), 4, rows, columns))
    for n, c, i, j in np.ndindex(images.shape):
        place = (c * rows + i) * columns + j if unflatten.order == "CHW" else (i * columns + j) * 4 + c
        images[n, c, i, j] = x[n, place]
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    result = np.zeros((len(x), 3, rows, columns)) + convolution.bias[:, None, None]
    for p, q in np.ndindex(3, 3):
        window = padded[:, :, p : p + rows, q : q + columns]
        result += np.einsum("nchw,oc->nohw", window, convolution.kernel[:, :, p, q].astype(float))
    return np.tanh(result)


@pytest.mark.parametrize("unflatten", [BY_CHANNEL, BY_PIXEL], ids=["CHW", "HWC"])
def test_a_generator_is_ported_and_saved(framework, other, unflatten, tmp_path) -> None:
    layers = generator(unflatten)
    model = built(framework, *layers)
    ported = port(model, to=other)
    assert ported.evidence.same
    assert not ported.untouched
    expected = by_hand(layers, ROWS)
    for name, each in ((framework, model), (other, ported.model)):
        assert np.abs(run(name, each, ROWS) - expected).max() < 1e-5
    save(ported, path := tmp_path / "neutral.safetensors")
    assert [type(each) for each in read_layers(path)] == [type(each) for each in layers]
    assert np.abs(run(other, load(path, backend=other), ROWS) - expected).max() < 1e-5
    check(other, ported, tmp_path, ROWS)


def test_the_order_of_the_numbers_is_kept_in_files(tmp_path) -> None:
    write_layers(generator(BY_PIXEL), path := tmp_path / "m.safetensors")
    assert (read_layers(path)[3].size, read_layers(path)[3].order) == (SIZE, "HWC")
    with pytest.raises(ModelFileError, match="25 numbers"):
        write_layers([dense(25, 5), Unflatten((7, 2))], tmp_path / "no.safetensors")


@pytest.mark.parametrize("over", ["channels", "images", "elements"])
def test_what_is_dropped_together(framework, over) -> None:
    dropout = Dropout(0.5, images=over == "images", channels=over == "channels")
    model = built(framework, conv(4, 3), dropout)
    (kept,) = (part.layer for part in read(model).parts if isinstance(part.layer, Dropout))
    assert (kept.rate, kept.channels, kept.images) == (0.5, over == "channels", over == "images")


def test_a_difference(framework, other, tmp_path) -> None:
    """A network that learns the noise, arXiv:1608.03981: the image less what the layers give."""
    noise, image = conv(3, 3, padding=1), np.random.default_rng(1).normal(size=(1, 3, 5, 6)).astype("float32")
    ported = port(net(framework, [("noise", noise, [INPUT]), ("clean", Subtract(), [INPUT, "noise"])]), to=other)
    assert ported.evidence.same
    expected = image - noise.reference(image.astype(float))
    assert np.abs(run(other, ported.model, image) - expected).max() < 1e-5
    check(other, ported, tmp_path, image)


def test_a_flattening_between_other_windows(framework, other) -> None:
    """A window as large as the image leaves one pixel, whose numbers have no order, at this size alone."""
    layers = [conv(4, 3), Pool("average", (5, 5), (5, 5)), Flatten("HWC" if framework in LAST else "CHW")]
    assert port(built(framework, *layers), to=other, input_size=7).evidence.same


def test_rows_are_given_as_inputs(framework, other) -> None:
    model = built(framework, *generator(BY_CHANNEL))
    ported = port(model, to=other, inputs=ROWS)
    assert ported.evidence.same
    assert compare(model, ported, [ROWS, 2 * ROWS]).same
    with pytest.raises(ModelError, match="can't be run on"):
        compare(built(framework, conv(3, 4)), built(framework, conv(3, 4)), ROWS)
