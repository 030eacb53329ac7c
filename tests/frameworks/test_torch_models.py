"""PyTorch's layers as users write them: read, ported, compared."""

from __future__ import annotations

import copy
import pathlib
import zipfile

import numpy as np
import pytest
import torch
from making import port_parts, words
from torch import nn

from convlab import compare, load, port, port_weights, save
from convlab import torch as lab
from convlab.errors import ModelError, ModelFileError, PartialPortWarning, PortError, UnsupportedError
from convlab.models.adapters import models_of, read
from convlab.testing import worst_ratio

LAYERS = [
    nn.MaxPool2d(3, 2, 1),
    nn.MaxPool2d(2, ceil_mode=True),
    nn.MaxPool2d((3, 2), (2, 1), (1, 0), ceil_mode=True),
    nn.AvgPool2d(2),
    nn.AvgPool2d(3, 2, 1),
    nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    nn.AvgPool2d((2, 3), (1, 2), (1, 1), ceil_mode=True, count_include_pad=False),
    nn.AdaptiveAvgPool2d(1),
    nn.AdaptiveMaxPool2d((1, 1)),
    nn.ZeroPad2d((1, 2, 3, 0)),
    nn.ReflectionPad2d((1, 2, 3, 0)),
    nn.ReplicationPad2d(2),
    nn.CircularPad2d((2, 0, 1, 1)),
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.ReLU6(),
    nn.LeakyReLU(0.3),
    nn.ELU(0.5),
    nn.Sigmoid(),
    nn.Tanh(),
    nn.Softplus(),
    nn.SiLU(),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.Flatten(),
]


@pytest.mark.parametrize("size", [(6, 7), (7, 8), (9, 9)])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_layer_is_what_it_is_read_as(layer, size):
    x = np.random.default_rng(0).normal(scale=3, size=(2, 3, *size)).astype("float32").astype(float)
    (part,) = read(layer).parts
    with torch.no_grad():
        y = layer.eval()(torch.from_numpy(x).float()).numpy()
    assert worst_ratio(y, part.layer.reference(x), part.layer.error(x, 0 * x, "float32")) <= 1
    again = read(port(nn.Sequential(layer), to="torch").model).parts[0].layer
    assert np.array_equal(again.reference(x), part.layer.reference(x))


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(3), nn.BatchNorm2d(3, eps=0.1, affine=False), nn.BatchNorm2d(3, momentum=None)], ids=str
)
def test_batch_norm_in_inference(norm):
    for _ in range(3):
        norm(torch.randn(4, 3, 5, 5) * 2 + 1)
    ported = port(norm, to="torch").model
    x = torch.randn(2, 3, 4, 4)
    assert torch.allclose(ported(x), norm.eval()(x), atol=1e-6)
    with pytest.raises(UnsupportedError, match="running statistics"):
        raise_for(nn.BatchNorm2d(3, track_running_stats=False))


def raise_for(layer):
    with pytest.warns(PartialPortWarning):
        untouched = port(nn.Sequential(nn.Conv2d(3, 3, 1), layer), to="torch").untouched
    raise UnsupportedError("; ".join(untouched.values()))


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.MaxPool2d(2, dilation=2), "dilation"),
        (nn.AvgPool2d(2, divisor_override=3), "divisor_override"),
        (nn.AdaptiveAvgPool2d((None, 2)), "keeps the image's rows or columns"),
        (nn.Flatten(2), "axes 2 to -1"),
        (nn.Softplus(threshold=5), "threshold 5"),
    ],
    ids=str,
)
def test_what_has_no_counterpart_is_named_and_left(layer, why):
    with pytest.raises(UnsupportedError, match=why):
        raise_for(layer)
    with pytest.raises(ModelError, match=type(layer).__name__):
        port(layer, to="torch")


def test_a_lazy_layer_must_have_run():
    layer = nn.LazyConv2d(4, 3)
    with pytest.raises(ModelError, match=r"layer: got a LazyConv2d whose parameters have no values yet.*Hint: run it"):
        port(layer, to="torch")
    with pytest.raises(ModelError, match=r"^1: got a LazyConv2d"):
        port(nn.Sequential(nn.Conv2d(1, 2, 3), layer), to="torch")
    layer(torch.ones(1, 2, 5, 5))
    assert port(layer, to="torch").evidence.same


def test_a_model_with_an_unknown_layer_is_ported_by_name():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3)
            self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
            self.odd = nn.Softmin(1)

        def forward(self, x):
            x = self.stem(x)
            return self.odd(x + self.block(x))

    with pytest.warns(PartialPortWarning, match=r"(?s)odd: .*Softmin"):
        ported = port(Net(), to="torch")
    assert list(ported.layers) == ["stem", "block.0", "block.1", "add"]
    assert list(ported.untouched) == ["odd"]
    assert ported.evidence.same is None
    assert "Only parts were compared" in words(ported)
    with pytest.raises(ModelError, match=r"odd: .*Softmin.*Hint: take the layers by name"):
        _ = ported.model
    assert not ported.evidence.whole


def test_a_convolution_that_cant_be_expressed_is_listed_beside_the_rest():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), lab.Conv2D(3, in_channels=3, out_channels=4, padding="same", stride=2)

        def forward(self, x):
            return torch.flip(self.a(x), (2,))[:, :, ::2, ::2] + self.b(x)

    for options in ({}, {"input_size": 8}):
        with pytest.warns(PartialPortWarning, match="b: padding='same' with a stride needs the image's size"):
            ported = port(Branches(), to="torch", **options)
        assert list(ported.layers) == ["a"]
        assert list(ported.untouched) == ["b", "forward()"]
        assert "input_size" not in ported.untouched["b"]
        assert "layers='convlab'" in ported.untouched["b"]
    assert list(port_parts(Branches(), "forward", to="torch", layers="convlab").layers) == ["a", "b"]


def test_adaptive_pooling_is_pooling_with_a_stride_or_nothing(tmp_path):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d((7, 7)), nn.Flatten(), nn.Linear(196, 5)
    ).eval()
    assert [type(each) for each in port(model, to="torch").model] == [type(each) for each in model]
    for size, expected in ((14, nn.Flatten), (28, nn.AvgPool2d), (18, nn.AdaptiveAvgPool2d)):
        ported = port(model, to="torch", input_size=size)
        assert ported.evidence.same
        assert type(ported.model[2]) is expected
        x = torch.rand(2, 3, size, size)
        with torch.no_grad():
            assert torch.allclose(ported.model(x), model(x), atol=1e-6)
    assert port(model, to="torch", input_size=28).model[2].kernel_size == (2, 2)
    save(model, tmp_path / "model.safetensors")
    assert torch.equal(load(tmp_path / "model.safetensors", backend="torch")(x), model(x))


def test_a_softmax_over_the_last_axis_is_one_over_the_channels_of_rows_alone():
    rows = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Softmax(dim=-1))
    assert port(rows, to="torch").evidence.same
    images = nn.Sequential(nn.Conv2d(3, 4, 1), nn.LogSoftmax(dim=-1))
    assert "its axis is -1, expected 1" in port_parts(images, "LogSoftmax", to="torch").untouched["1"]


def changed(change):
    layer = nn.Conv2d(2, 3, 3)
    change(layer)
    return layer


class Scaled(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "layer",
    [
        changed(lambda layer: layer.register_forward_hook(lambda module, args, y: y + 1)),
        changed(lambda layer: layer.register_forward_pre_hook(lambda module, args: (args[0].flip(2),))),
    ],
)
def test_a_layer_that_isnt_what_it_says_is_an_error(layer):
    with pytest.raises(PortError, match=r"first model's layer\s+doesn't\s+compute\s+what\s+its\s+attributes\s+say"):
        port(layer, to="torch")


def test_a_gradient_that_isnt_is_an_error():
    layer = nn.Conv2d(2, 3, 3)
    layer.register_full_backward_hook(lambda module, into, out: tuple(each * 2 for each in into))
    with pytest.raises(PortError, match="The gradients differ"):
        port(layer, to="torch")


def test_parametrised_and_frozen_layers_are_what_they_compute():
    layer = nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 3))
    frozen = nn.Conv2d(2, 3, 3).requires_grad_(False)
    for module in (layer, frozen):
        ported = port(module, to="torch")
        assert torch.allclose(ported.model(torch.ones(1, 2, 5, 5)), module(torch.ones(1, 2, 5, 5)), atol=1e-6)
        assert {"gradient of X"} <= set(ported.evidence.rows[0].own)


def test_a_spectral_norm_is_read_as_it_infers():
    layer = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))
    ported = port(layer, to="torch").model
    assert torch.allclose(ported(torch.ones(1, 3, 5, 5)), layer.eval()(torch.ones(1, 3, 5, 5)), atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, nn.utils.weight_norm])
def test_a_kernel_that_a_hook_computes_is_that_of_the_next_call(norm):
    layer = norm(nn.Conv2d(3, 4, 3))
    with torch.no_grad():
        next(each for name, each in layer.named_parameters() if name != "bias").mul_(3)
    ported = port(layer, to="torch").model
    assert torch.allclose(ported(torch.ones(1, 3, 5, 5)), layer.eval()(torch.ones(1, 3, 5, 5)), atol=1e-6)


def test_images_are_those_that_a_dense_layer_takes():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))
    assert set(port(model, to="torch").evidence.rows[0].sizes) <= {(8, 8), (8, 9), (9, 8), (9, 9)}


def test_nothing_of_the_original_changes():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Dropout())
    before = {name: each.clone() for name, each in model.state_dict().items()}
    port(model, to="torch")
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert model.training
    assert all(each.grad is None for each in model.parameters())


def test_a_chapters_layer_is_a_convolution_of_one_channel():
    layer = lab.Conv2D((1, 2), seed=0)
    ported = port(layer, to="torch").model
    x = torch.rand(6, 8)
    assert torch.allclose(ported(x[None, None])[0, 0], layer(x), atol=1e-6)


def test_compare_tells_where_two_models_part():
    a = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3, stride=2, padding=1))
    b = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3, stride=2))
    b.load_state_dict(a.state_dict())
    comparison = compare(a, b)
    assert not comparison
    assert [row.same for row in comparison.rows] == [True, True, False]
    assert comparison.first.a == "2"
    assert comparison.first.differences == {"padding": "the first pads 1 on each side, the second nothing"}
    assert "padding=((1, 1), (1, 1))" in comparison.first.diagnosis
    b[0].weight.data.mul_(1.5)
    assert compare(a, b).first.a == "0"


def test_compare_tells_where_models_are_made_up_differently():
    a = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    b = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2))
    b.load_state_dict(a.state_dict())
    comparison = compare(a, b)
    assert comparison.first.differences == {"kind": "the first has relu, the second pool"}
    assert comparison.same is False
    shorter = compare(a, a[:1])
    assert shorter.first.only_in == "first"
    assert shorter.structure == "the second model has no relu: the first has '1' behind '0'"
    with pytest.raises(ModelError, match="names: got 'nope'"):
        compare(a, b, names={"nope": "0"})
    assert compare(a, b, names={"0": "0"}).same is False  # all layers with weights are named: the whole is compared
    deeper = nn.Sequential(*a, nn.Conv2d(4, 2, 1))
    part = compare(deeper, b, names={"0": "0"})
    assert part.same is None
    assert "Only parts were compared, and no difference was found: only the layers that were named" in words(part)


def test_compare_sees_what_a_whole_does_beside_its_layers():
    a = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    b = nn.Sequential(*a)
    b.register_forward_hook(lambda module, args, y: 2 * y)
    comparison = compare(a, b)
    assert comparison.first is None
    assert comparison.whole_model_errors[0] == 0
    assert comparison.whole_model_errors[1] > 1
    assert "the second model as a whole computes something else than its layers" in words(comparison)
    assert "the first model as a whole" in str(compare(b, a))


def test_inputs_of_ones_own():
    a = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    comparison = compare(a, a, torch.rand(2, 3, 9, 11))
    assert comparison.rows[0].sizes == [(9, 11)]
    assert compare(a, a, [np.ones((1, 3, 5, 5)), np.ones((3, 6, 6))]).rows[0].sizes == [(5, 5), (6, 6)]
    with pytest.raises(ModelError, match=r"inputs: got shape \(3,\)"):
        compare(a, a, np.ones(3))


def test_weights_go_by_the_models():
    a = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    b = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    x = torch.rand(1, 3, 6, 6)
    b.load_state_dict(port_weights(a.state_dict(), a, b))
    assert torch.equal(a.eval()(x), b.eval()(x))
    other = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with pytest.raises(PortError, match=r"(?s)the weights fit.*padding"):
        port_weights(None, a, other)
    with pytest.raises(ModelError, match=r"3: got kernel of shape \(2, 4, 1, 1\) from 3, expected \(5, 4, 1, 1\)"):
        port_weights(None, a, nn.Sequential(*a[:3], nn.Conv2d(4, 5, 1)))
    with pytest.raises(ModelError, match="have different structures"):
        port_weights(None, a, a[:3])


def test_a_copy_with_other_weights_leaves_the_model():
    models = models_of("torch")
    a, b = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3)
    assert torch.equal(models.with_weights(a, models.weights(b)).weight, b.weight)
    assert not torch.equal(a.weight, b.weight)


def test_a_layer_used_twice_is_two_steps():
    conv = nn.Conv2d(3, 3, 3, padding=1)
    model = nn.Sequential(conv, nn.ReLU(inplace=True), conv)
    ported = port(model, to="torch").model
    x = torch.rand(1, 3, 5, 5)
    assert torch.allclose(ported(x), model(x.clone()), atol=1e-6)


def test_a_sequential_with_a_forward_of_its_own_is_no_chain():
    class Residual(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)

    model = nn.Sequential(nn.Conv2d(3, 3, 1), Residual(nn.Conv2d(3, 3, 1))).eval()
    ported = port(model, to="torch")
    assert ported.evidence.same
    assert list(ported.layers) == ["0", "1.0", "1.add"]
    x = torch.rand(2, 3, 5, 4)
    assert torch.equal(ported.model(x), model(x))


def test_a_forward_of_ones_own_isnt_guessed_at():
    instance = nn.Conv2d(2, 3, 3)
    instance.forward = lambda x: x
    with pytest.raises(ModelError, match="a forward of its own"):
        port(instance, to="torch")
    scaled, x = Scaled(2, 3, 3), torch.ones(1, 2, 5, 6)
    assert torch.allclose(port(scaled, to="torch").model(x), 2 * nn.Conv2d.forward(scaled, x))

    class Sums(nn.Identity):
        def forward(self, x):
            return x.cumsum(1)

    with pytest.warns(PartialPortWarning, match="1: Sums: cumsum: convlab doesn't know it"):
        assert "Sums" in port(nn.Sequential(nn.Conv2d(2, 3, 3), Sums()), to="torch").untouched["1"]


def test_a_hook_on_a_container_of_one_layer_is_found():
    conv = nn.Conv2d(2, 3, 3)
    container = nn.Sequential(conv)
    container.register_forward_hook(lambda module, args, y: y + 1)
    assert not compare(conv, container).same
    with pytest.raises(PortError, match="the first model as a whole"):
        port(container, to="torch")


def test_functions_that_differ_far_out_are_told_apart():
    conv = nn.Conv2d(2, 3, 3)
    for a, b in ((nn.ReLU(), nn.ReLU6()), (nn.ReLU6(), nn.ReLU()), (nn.ELU(), nn.ELU(0.999))):
        assert compare(nn.Sequential(conv, a), nn.Sequential(conv, b)).first.a == "1"


def test_half_precision_deep_in_a_model():
    layers = nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1)
    a = nn.Sequential(*layers).bfloat16()
    b = copy.deepcopy(a)
    b[2].bias.data += 5
    assert compare(a, a).same
    assert compare(a, b).first.a == "2"
    assert not compare(nn.Linear(512, 10).bfloat16(), nn.Linear(512, 10).bfloat16()).same


def test_a_layer_that_cant_run_is_named():
    broken = nn.Conv2d(2, 3, 3)
    broken.register_forward_pre_hook(lambda module, args: 1 / 0)
    with pytest.raises(ModelError, match=r"the layer: it can't be run on an image.*ZeroDivisionError"):
        port(broken, to="torch")


def test_pixels_stay_as_they_are_where_something_is_left_out():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5), nn.Softmin(1))
    with pytest.warns(PartialPortWarning, match="3: convlab doesn't know Softmin"):
        ported = port(model, to="torch", input_size=8)
    assert list(ported.untouched) == ["3"]


class Trap:
    """What a pickle runs when it is read."""

    def __init__(self, trace: pathlib.Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return pathlib.Path.touch, (self.trace,)


def test_unknown_layers_are_named(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(ModelError, match=r"1 \(LSTM\)"):
        save(nn.Sequential(nn.Conv2d(1, 1, 1), nn.LSTM(2, 3)), path)
    with pytest.raises(ModelError, match="got none, expected layers"):
        save(nn.Sequential(), path)
    with pytest.raises(ModelError, match="got int"):
        save(3, path)
    assert not path.exists()


def test_a_pickle_among_torchs_weights_is_not_run(tmp_path):
    model, trace = torch.nn.Conv2d(1, 1, 1), tmp_path / "trace"
    torch.save({**model.state_dict(), "more": Trap(trace)}, tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match="UnpicklingError"):
        load(tmp_path / "model.pt", into=model)
    assert not trace.exists()


def test_a_zip_that_unpacks_to_more_than_it_is(tmp_path):
    model, path = torch.nn.Conv2d(1, 1, 1), tmp_path / "model.pt"
    torch.save({"weight": torch.zeros(2**20), "bias": torch.zeros(1)}, path)
    with zipfile.ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    with pytest.raises(ModelFileError, match="it claims"):
        load(path, into=model)
