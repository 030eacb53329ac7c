"""Models saved and read again: the same bytes from every framework, the same bits in every dtype."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from chains import CHAINS, CONVOLUTIONS, classifier, conv, dense, norm

from convlab.atomic import whole
from convlab.errors import ConvlabError, ModelFileError, UnsupportedError
from convlab.models.adapters import models_of
from convlab.models.files import neutral
from convlab.models.files.canonical import canonical
from convlab.models.files.save_load import load, save
from convlab.models.layers.activations import Activation
from convlab.models.layers.flattening import Flatten
from convlab.models.layers.layer import Convolution, Layer, Pad
from convlab.models.layers.pooling import GlobalPool, Pool
from convlab.models.layers.reading import parts_of
from convlab.testing import worst_ratio


def written(layers: list[Layer], path: Path) -> bytes:
    neutral.write_layers(layers, path)
    return path.read_bytes()


@pytest.mark.parametrize("chain", CHAINS)
def test_every_framework_saves_the_same_bytes(framework, chain, tmp_path):
    there, here = tmp_path / "there.safetensors", tmp_path / "here.safetensors"
    expected = written(CHAINS[chain], there)
    save(load(there, backend=framework), here)
    assert here.read_bytes() == expected


@pytest.mark.parametrize("chain", CONVOLUTIONS)
def test_a_lone_convolution_comes_back_alone(convolving, chain, tmp_path):
    there, here = tmp_path / "there.safetensors", tmp_path / "here.safetensors"
    expected = written(CHAINS[chain], there)
    layer = load(there, backend=convolving, layers="convlab")
    assert type(layer).__name__ == "Conv2D"
    save(layer, here)
    assert here.read_bytes() == expected


def test_convlabs_own_layers_save_the_same_bytes(framework, tmp_path):
    there, here = tmp_path / "there.safetensors", tmp_path / "here.safetensors"
    layers = [conv(4, 2, (3, 2), padding="same_lower", stride=2), conv(4, 4, padding=2, padding_mode="reflect")]
    expected = written(layers, there)
    save(load(there, backend=framework, layers="convlab"), here)
    assert here.read_bytes() == expected


@pytest.fixture
def wide(framework):
    """JAX makes float32 of float64 unless it is told otherwise."""
    if not framework.startswith("jax"):
        yield
        return
    import jax

    with jax.enable_x64(True):
        yield


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_weights_keep_their_bits(framework, dtype, tmp_path):
    path = tmp_path / "model.safetensors"
    layer = conv(2, 3, (2, 2), dtype=dtype)
    layer.kernel.flat[:5] = 0.0, -0.0, np.inf, -np.inf, 2.0**-14
    expected = written([layer], path)
    if framework == "mxnet" and dtype in ("float16", "bfloat16"):
        with pytest.raises(ConvlabError):
            load(path, backend=framework)
        return
    save(load(path, backend=framework), path)
    assert path.read_bytes() == expected
    (again,) = neutral.read_layers(path)
    assert again.spec.dtype == dtype
    assert again.kernel.dtype == layer.kernel.dtype
    assert again.kernel.tobytes() == layer.kernel.tobytes()
    assert again.bias.tobytes() == layer.bias.tobytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_file_keeps_nan_as_it_is(dtype, tmp_path):
    layer = conv(2, 3, dtype=dtype)
    layer.kernel.flat[:2] = np.nan, -np.nan
    neutral.write_layers([layer], tmp_path / "model.safetensors")
    (again,) = neutral.read_layers(tmp_path / "model.safetensors")
    assert again.kernel.tobytes() == layer.kernel.tobytes()


def test_the_bytes_are_those_of_safetensors_own_writer(tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import save as by_safetensors

    data = written([conv(4, 3), norm(4, "float64"), conv(2, 4, dtype="float16")], tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert by_safetensors(tensors, file.metadata()) == data


def test_what_the_file_says(tmp_path):
    written([conv(4, 2, padding=1)], tmp_path / "model.safetensors")
    from safetensors import safe_open

    with safe_open(tmp_path / "model.safetensors", "np") as file:
        assert [*file.keys()] == ["layer.bias", "layer.kernel"]
        about = json.loads(file.metadata()["convlab"])
    assert about == {
        "format": "convlab.model",
        "version": 1,
        "layers": [
            {
                "path": "layer",
                "kind": "conv2d",
                "kernel_size": [3, 3],
                "stride": [1, 1],
                "padding": [[1, 1], [1, 1]],
                "padding_mode": "zeros",
                "dilation": [1, 1],
                "groups": 1,
            }
        ],
    }


def test_a_loaded_model_computes_what_the_layers_say(framework, tmp_path):
    path = tmp_path / "model.safetensors"
    neutral.write_layers(classifier(), path)
    x = np.random.default_rng(0).integers(-8, 9, (2, 3, 9, 10)) / 4.0
    result = models_of(framework).run([load(path, backend=framework)], x, "float32")
    off = np.zeros_like(x)
    for layer in classifier():
        off, x = layer.error(x, off, "float32"), layer.reference(x)
    assert worst_ratio(result, x, off) <= 1


def test_a_framework_that_lacks_a_padding_says_what_helps(framework, tmp_path):
    path = tmp_path / "model.safetensors"
    neutral.write_layers([conv(4, 2, padding="same_lower", stride=2)], path)
    with pytest.raises(UnsupportedError, match=r"(?i)(input_size|same_lower)"):
        load(path, backend=framework)
    x = np.random.default_rng(0).normal(size=(1, 2, 9, 9)).astype("float32").astype(float)
    (layer,) = neutral.read_layers(path)
    for options in ({"input_size": 9}, {"layers": "convlab"}):
        result = models_of(framework).run([load(path, backend=framework, **options)], x, "float32")
        assert worst_ratio(result, layer.reference(x), layer.error(x, 0 * x, "float32")) <= 1


def test_own_files_give_back_the_weights(framework, tmp_path):
    neutral.write_layers(classifier(), tmp_path / "model.safetensors")
    model = load(tmp_path / "model.safetensors", backend=framework)
    other = [conv(8, 3, padding=1, dtype="float32"), *classifier()[1:]]
    other[0].kernel[:] = 7.0
    neutral.write_layers(other, tmp_path / "other.safetensors")
    into = load(tmp_path / "other.safetensors", backend=framework)
    for suffix in models_of(framework).FILES:
        own = tmp_path / f"model.v1{suffix}"
        save(model, own)
        save(load(own, into=into), tmp_path / "again.safetensors")
        assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    save(into, tmp_path / "into.safetensors")  # Loading leaves this model as it was.
    assert (tmp_path / "into.safetensors").read_bytes() == (tmp_path / "other.safetensors").read_bytes()
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".")]


def test_own_files_of_another_model_are_refused(framework, tmp_path):
    neutral.write_layers(classifier(), tmp_path / "model.safetensors")
    neutral.write_layers([*classifier()[:-1], dense(6, 4)], tmp_path / "other.safetensors")
    model, other = (load(tmp_path / f"{name}.safetensors", backend=framework) for name in ("model", "other"))
    for suffix in models_of(framework).FILES:
        save(model, tmp_path / f"model{suffix}")
        with pytest.raises(ModelFileError, match="this model's weights"):
            load(tmp_path / f"model{suffix}", into=other)


def test_a_suffix_of_another_framework_is_refused(framework, tmp_path):
    neutral.write_layers([conv(4, 2)], tmp_path / "model.safetensors")
    model = load(tmp_path / "model.safetensors", backend=framework)
    foreign = ".params" if framework == "torch" else ".pt"
    with pytest.raises(ModelFileError, match=r"expected one of (mxnet|torch)\. Hint: .*\.safetensors.*port"):
        save(model, tmp_path / f"model{foreign}")
    with pytest.raises(ModelFileError, match=r"expected .*\.safetensors"):
        save(model, tmp_path / "model.bin")
    (tmp_path / f"model{foreign}").write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"expected one of"):
        load(tmp_path / f"model{foreign}", into=model)
    with pytest.raises(ModelFileError, match="into="):
        load(tmp_path / f"model{foreign}")


def test_a_failure_leaves_the_old_file(framework, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    before = written([conv(4, 2)], path)
    model = load(path, backend=framework)

    def fail(layers, part, *others):
        part.write_bytes(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(neutral, "write_parts", fail)
    with pytest.raises(ModelFileError, match="the disk is full"):
        save(model, path)
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]


def test_the_files_that_are_on_their_way_keep_both_suffixes(tmp_path):
    with whole(tmp_path / "a.model.WEIGHTS.H5") as part:
        assert part.name.endswith(".weights.h5")
        part.touch()
    assert (tmp_path / "a.model.WEIGHTS.H5").exists()


ALIKE = {
    "border": [Pad(((1, 0), (2, 1))), conv(4, 2, stride=2, padding=1)],
    "circular": [Pad(((1, 1), (2, 2)), "circular"), conv(4, 2)],
    "symmetric": [Pad(((1, 1), (2, 2)), "symmetric"), conv(4, 2)],
    "value": [Pad(((1, 0), (2, 1)), value=2.5), conv(4, 2, padding=1, padding_value=2.5)],
    "value without a border": [Pad(((1, 0), (2, 1))), conv(4, 2, padding_value=2.5)],
    "named": [conv(4, 2, (2, 3), padding="full"), conv(4, 4, padding="same_lower", dilation=2)],
    "average": [Pad(((1, 0), (1, 1))), Pool("average", (2, 3), (2, 2))],
    "max": [Activation("relu"), Pad(((1, 0), (1, 1))), Pool("max", (2, 3), (2, 2))],
    "rows": [GlobalPool("max"), Flatten("HWC"), Flatten()],
}
APART = {
    "two values": [Pad(((1, 1), (1, 1)), value=2.5), conv(4, 2, padding=1)],
    "value of a mean": [Pad(((1, 0), (1, 1)), value=2.5), Pool("average", (2, 3), (2, 2))],
    "two modes": [Pad(((1, 1), (1, 1)), "reflect"), conv(4, 2, padding=1)],
    "negative": [Pad(((1, 0), (1, 1))), Pool("max", (2, 3), (2, 2))],
    "wide": [Pad(((2, 2), (2, 2))), Pool("average", (2, 2), (2, 2))],
    "by size": [Pad(((1, 1), (1, 1))), conv(4, 2, padding="same", stride=2)],
}


@pytest.mark.parametrize("name", [*ALIKE, *APART])
def test_one_way_to_write_it(name):
    layers = (ALIKE | APART)[name]
    joined = [part.layer for part in canonical(parts_of(layers))]
    assert len(joined) < len(layers) or name in APART or name == "named"
    if name == "named":
        assert all(isinstance(each, Convolution) and not isinstance(each.spec.padding, str) for each in joined)
    x = np.random.default_rng(0).integers(-8, 9, (2, 2, 7, 8)) / 4.0
    one = two = x
    for layer in layers:
        one = layer.reference(one)
    for layer in joined:
        two = layer.reference(two)
    np.testing.assert_allclose(one, two, rtol=1e-12)
