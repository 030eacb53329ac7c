"""Conversions that people got wrong in public: each as they wrote it, shown to differ, diagnosed, and mended."""

from __future__ import annotations

import flax.linen as fl
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
import torch
from making import port_parts
from torch import nn

from convlab import compare, port, port_weights
from convlab.errors import ModelError, PortError, UnsupportedError
from convlab.models.adapters import models_of, read
from convlab.testing import oracle_gradients

X = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype("float32")
NHWC = X.transpose(0, 2, 3, 1)


def flax_conv(conv: nn.Conv2d, **options):
    """A Flax layer as everybody writes it: the kernel is transposed, the bias copied."""
    kernel = conv.weight.detach().numpy().transpose(2, 3, 1, 0)
    module = fl.Conv(conv.out_channels, conv.kernel_size, strides=conv.stride, **options)
    return module.bind({"params": {"kernel": kernel, "bias": conv.bias.detach().numpy()}})


def keras_conv(conv: nn.Conv2d, **options):
    layer = keras.layers.Conv2D(conv.out_channels, conv.kernel_size, strides=conv.stride, **options)
    layer.build((None, None, None, conv.in_channels))
    layer.set_weights([conv.weight.detach().numpy().transpose(2, 3, 1, 0), conv.bias.detach().numpy()])
    return layer


def shapes_agree(conv, other):
    """The shapes agree, so nobody noticed; the values must differ for True."""
    with torch.no_grad():
        mine = conv(torch.from_numpy(X)).numpy()
    theirs = np.asarray(other(NHWC)).transpose(0, 3, 1, 2)
    assert mine.shape == theirs.shape
    return not np.allclose(mine, theirs, atol=1e-3)


def mended(conv, to):
    """Whether the layer that `port` makes computes the same."""
    model = port(conv, to=to).model
    with torch.no_grad():
        true = conv(torch.from_numpy(X)).numpy()
    y = models_of(to).run([model], X, "float32")
    return np.allclose(y, true, atol=1e-5)


def test_flax_2993_same_is_not_padding_3():
    """google/flax#2993, and #963: torch's ResNet stem beside Flax's default padding."""
    conv = nn.Conv2d(3, 8, 7, stride=2, padding=3)
    wrong = flax_conv(conv, padding="SAME")
    assert shapes_agree(conv, wrong)
    comparison = compare(conv, wrong)
    assert not comparison.same
    assert comparison.first.diagnosis.startswith("other padding:")
    assert "SAME, as in TensorFlow" in comparison.first.diagnosis
    assert "padding=((3, 3), (3, 3))" in comparison.first.diagnosis
    assert compare(conv, flax_conv(conv, padding=((3, 3), (3, 3)))).same
    assert mended(conv, "jax")
    with pytest.raises(PortError, match=r"(?s)the weights fit.*SAME"):
        port_weights(None, conv, wrong)


def test_keras_16363_resnet_in_keras():
    """keras-team/keras#16363: the same weights and inputs; stride 1 agrees, stride 2 doesn't."""
    for stride in (1, 2):
        conv = nn.Conv2d(3, 4, 3, stride=stride, padding=1)
        wrong = keras_conv(conv, padding="same")
        assert shapes_agree(conv, wrong) == (stride == 2)
        comparison = compare(conv, wrong)
        assert comparison.same == (stride == 1)
    assert "padding=((1, 1), (1, 1))" in comparison.first.diagnosis
    ported = port(conv, to="tensorflow").model
    assert [type(each).__name__ for each in ported.layers] == ["ZeroPadding2D", "Conv2D"]
    assert mended(conv, "tensorflow")


def test_keras_22876_shifted_by_a_pixel_where_shapes_are_right():
    """keras-team/keras#22876: Conv2DTranspose was shifted by one pixel for "same" with a stride of 2.

    It is the gradient of this convolution by X: "output shapes were correct so this slipped past CI".
    """
    layer = keras.layers.Conv2D(3, 3, strides=2, padding="same")
    layer.build((None, None, None, 3))
    conv = nn.Conv2d(3, 3, 3, stride=2, padding=1)
    conv.weight.data = torch.tensor(keras.ops.convert_to_numpy(layer.kernel).transpose(3, 2, 0, 1))
    conv.bias.data = torch.tensor(keras.ops.convert_to_numpy(layer.bias))
    (mine,), (theirs,) = read(layer).parts, read(conv).parts
    dy = np.ones((2, 3, 8, 8))
    transposed = models_of("tensorflow").gradients([mine.native], X, dy, "float32")["X"]
    shifted = models_of("torch").gradients([theirs.native], X, dy, "float32")["X"]
    assert transposed.shape == shifted.shape
    assert not np.allclose(transposed, shifted, atol=1e-3)
    comparison = compare(layer, conv)
    assert comparison.first.errors["gradient of X"] > 1
    assert comparison.first.diagnosis.startswith("symmetric padding:")
    assert "with a stride it depends on their size" in comparison.first.diagnosis
    ported = port(layer, to="torch", input_size=16).model
    assert [type(each).__name__ for each in ported] == ["ZeroPad2d", "Conv2d"]
    (pad, right) = read(ported).parts
    gradient = models_of("torch").gradients([pad.native, right.native], X, dy, "float32")["X"]
    true = oracle_gradients(X, mine.layer.kernel, dy, stride=2, padding="same").X
    assert np.allclose(gradient, true, atol=1e-5)
    assert np.allclose(transposed, true, atol=1e-5)


def test_pytorch_67551_same_with_a_stride():
    """pytorch/pytorch#67551: with the check against padding="same" and a stride switched off, torch "seems to work"."""
    with pytest.raises(ValueError, match="not supported for strided"):
        nn.Conv2d(3, 8, 7, stride=2, padding="same")
    layer = keras.layers.Conv2D(8, 7, strides=2, padding="same")
    layer.build((None, None, None, 3))
    wrong = nn.Conv2d(3, 8, 7, stride=2, padding=3)  # The layer then computes this.
    wrong.load_state_dict(port(layer, to="torch", layers="convlab").model.state_dict())
    assert not compare(layer, wrong).same
    with pytest.raises(UnsupportedError, match=r"Conv2D: padding='same' with a stride needs the image's size"):
        port(layer, to="torch")
    for size in (15, 16):
        fixed = port(layer, to="torch", input_size=size)
        assert fixed.evidence.same
        assert fixed.evidence.rows[0].sizes == [(size, size)]
    assert compare(layer, port(layer, to="torch", layers="convlab").model).same  # They agree for every size.
    inside = keras.Sequential([keras.Input((16, 16, 3)), layer, keras.layers.UnitNormalization(axis=2, name="unit")])
    ported = port_parts(inside, "unit", to="torch", input_size=16)
    assert list(ported.untouched) == ["unit"]
    assert ported.evidence.rows[0].sizes == [(16, 16)]


class PatchEmbedding(nn.Module):
    """A transformer's first layer, with a parameter of rank 4 that is no kernel."""

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, 4, 4, 6))
        self.patch = nn.Conv2d(3, 6, 4, stride=4)

    def forward(self, x):
        return self.patch(x).permute(0, 2, 3, 1) + self.position


class FlaxPatchEmbedding(fl.Module):
    @fl.compact
    def __call__(self, x):
        position = self.param("position", fl.initializers.zeros, (1, 4, 4, 6))
        return fl.Conv(6, (4, 4), strides=4, padding="VALID", name="patch")(x) + position


def test_transformers_11883_not_everything_of_rank_4_is_a_kernel():
    """huggingface/transformers#11883: convolutions were told from the rest by ndim == 4."""
    source, module = PatchEmbedding(), FlaxPatchEmbedding()
    guessed = {name: each.detach().numpy() for name, each in source.state_dict().items()}
    guessed = {name: each.transpose(2, 3, 1, 0) if each.ndim == 4 else each for name, each in guessed.items()}
    assert guessed["position"].shape == (4, 6, 4, 1)  # The parameter was transposed as well.
    target = module.bind(module.init(jax.random.key(0), NHWC))
    with pytest.raises(ModelError, match=r"no layer of the first model belongs to 'position' \(position_embedding\)"):
        port_weights(source.state_dict(), source, target, inputs=X)
    variables = port_weights(source.state_dict(), source, target, inputs=X, names={"patch": "patch"})
    assert variables["params"]["position"].shape == (1, 4, 4, 6)
    kernel = source.patch.weight.detach().numpy().transpose(2, 3, 1, 0)
    assert np.array_equal(variables["params"]["patch"]["kernel"], kernel)
    variables["params"]["position"] = jnp.asarray(source.position.detach().numpy())
    with torch.no_grad():
        true = source(torch.from_numpy(X)).numpy()
    assert np.allclose(module.apply(variables, NHWC), true, atol=1e-5)


def test_nn_transfer_3_epsilon():
    """gzuidhof/nn-transfer#3, and keras-yolo3#451: batch norm's default epsilon is 1e-5 in torch, 1e-3 in Keras."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model[1].running_var.uniform_(1e-4, 1e-2)
    norm = keras.layers.BatchNormalization()
    wrong = keras.Sequential([keras.Input((None, None, 3)), keras_conv(model[0]), norm])
    state = model[1].state_dict()
    norm.set_weights([state[name].numpy() for name in ("weight", "bias", "running_mean", "running_var")])
    comparison = compare(model, wrong)
    assert comparison.first.a == "1"
    assert comparison.first.differences == {"epsilon": "epsilon is 1e-05 in the first, 0.001 in the second"}
    ported = port(model, to="tensorflow").model
    assert ported.layers[-1].epsilon == 1e-5
    assert ported.layers[-1].momentum == pytest.approx(0.9)  # That is torch's 0.1.


def test_pytorch2keras_120_mean_and_variance_swapped():
    """gmalivenko/pytorch2keras#120: weights set as [gamma, beta, variance, mean]."""
    norm = nn.BatchNorm2d(3)
    norm.running_mean.uniform_(1, 2)
    wrong = keras.layers.BatchNormalization(epsilon=1e-5, momentum=0.9)
    wrong.build((None, None, None, 3))
    state = norm.state_dict()
    wrong.set_weights([state[name].numpy() for name in ("weight", "bias", "running_var", "running_mean")])
    comparison = compare(norm, wrong)
    assert list(comparison.first.differences) == ["mean", "variance"]
    assert compare(norm, port(norm, to="tensorflow").model).same


def test_pytorch2keras_42_one_channel_is_not_depthwise():
    """gmalivenko/pytorch2keras#42: one input channel was taken for a depthwise convolution."""
    conv, depthwise = nn.Conv2d(1, 8, 3), nn.Conv2d(4, 8, 3, groups=4)
    assert type(port(conv, to="tensorflow").model) is keras.layers.Conv2D
    ported = port(depthwise, to="tensorflow").model
    assert type(ported) is keras.layers.DepthwiseConv2D
    wrong = keras.layers.DepthwiseConv2D(3, depth_multiplier=2)
    wrong.build((None, None, None, 4))
    kernel = depthwise.weight.detach().numpy()
    # The kernel (8, 1, 3, 3) is read as (2, 4, 3, 3), with the multiplier before the channel.
    wrong.set_weights([kernel.reshape(2, 4, 3, 3).transpose(2, 3, 1, 0), depthwise.bias.detach().numpy()])
    comparison = compare(depthwise, wrong)
    assert comparison.first.diagnosis.startswith("channel groups")


def test_root_21685_dilation_forgotten_in_same_padding():
    """root-project/root#21685: "same" computed from the kernel's size, not from its dilated extent."""
    layer = keras.layers.Conv2D(4, 3, dilation_rate=2, padding="same")
    layer.build((None, None, None, 3))
    wrong = nn.Conv2d(3, 4, 3, dilation=2, padding=1)
    wrong.load_state_dict(port(layer, to="torch").model.state_dict())
    comparison = compare(layer, wrong)
    assert "without regard to the dilation" in comparison.first.diagnosis
    assert port(layer, to="torch").model.padding == (2, 2)


def test_pytorch2keras_34_pixels_flattened_in_another_order():
    """gmalivenko/pytorch2keras#34: after channels_first becomes channels_last, Flatten gives another order."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 5))
    linear = keras.layers.Dense(5)
    wrong = keras.Sequential(
        [keras.Input((16, 16, 3)), keras_conv(model[0]), keras.layers.ReLU(), keras.layers.Flatten(), linear]
    )
    linear.set_weights([model[3].weight.detach().numpy().T, model[3].bias.detach().numpy()])
    comparison = compare(model, wrong, X)
    assert [row.same for row in comparison.rows] == [True, True, False]
    assert comparison.first.differences["order"] == (
        "the first flattens pixels channel by channel, the second pixel by pixel, so that the dense layer's columns "
        "must be reordered, as convlab.port does"
    )
    ported = port(model, to="tensorflow").model
    with torch.no_grad():
        assert np.allclose(ported(NHWC), model(torch.from_numpy(X)).numpy(), atol=1e-5)
    with pytest.raises(ModelError, match="channels reach a dense layer"):
        port(model, to="tensorflow", input_size=30)
    ported = port_parts(nn.Sequential(*model, nn.Softmin(1)), "Softmin", to="tensorflow", input_size=16)
    # Without the last layer there is no whole model, and so no order to change.
    assert list(ported.untouched) == ["2", "4"]
    assert "only in a whole model, which '4' prevents" in ported.untouched["2"]
    adaptive = nn.Sequential(model[0], nn.AdaptiveAvgPool2d(5), nn.Flatten(), nn.Linear(100, 5))
    assert np.allclose(port(adaptive, to="tensorflow").model(NHWC), adaptive(torch.from_numpy(X)).detach(), atol=1e-5)
    unknown = nn.Sequential(*model[:2], nn.Softmin(1), *model[2:])
    ported = port_parts(unknown, "Softmin", to="tensorflow", input_size=16)
    assert "it isn't known behind '2'" in ported.untouched["3"]
    assert all("input_size" not in why for why in ported.untouched.values())


@pytest.mark.parametrize("wrong", ["not transposed", "flipped", "HWIO from IOHW"])
def test_kernels_laid_out_wrongly(wrong):
    """The three ways to copy a square kernel that every shape survives."""
    conv = nn.Conv2d(3, 3, 3, padding=1)
    kernel = conv.weight.detach().numpy()
    layouts = {
        "not transposed": kernel.reshape(3, 3, 3, 3),
        "flipped": kernel[:, :, ::-1, ::-1].transpose(2, 3, 1, 0),
        "HWIO from IOHW": kernel.transpose(2, 3, 0, 1),
    }
    module = fl.Conv(3, (3, 3), padding=1)
    other = module.bind({"params": {"kernel": jnp.asarray(layouts[wrong]), "bias": conv.bias.detach().numpy()}})
    suspects = {
        "not transposed": "kernel layout",
        "flipped": "kernel flipped",
        "HWIO from IOHW": "kernel channels swapped",
    }
    assert compare(conv, other).first.diagnosis.startswith(suspects[wrong])
    assert mended(conv, "jax")


def test_leaky_slopes_and_gelus_differ_by_default():
    """The slope is 0.01 in torch and Flax, 0.3 in Keras's layer, 0.2 in its function; Flax's GELU is the tanh one."""
    conv = nn.Conv2d(3, 4, 3)
    model = nn.Sequential(conv, nn.LeakyReLU())
    wrong = keras.Sequential([keras.Input((None, None, 3)), keras_conv(conv, activation="leaky_relu")])
    comparison = compare(model, wrong)
    assert comparison.first.differences["parameter"].startswith("the function's parameter is 0.01 in the first, 0.2")
    model = nn.Sequential(conv, nn.GELU())
    bound = flax_conv(conv, padding="VALID")
    other = fl.Sequential([bound.unbind()[0], fl.gelu]).bind({"params": {"layers_0": bound.variables["params"]}})
    comparison = compare(model, other)
    assert comparison.first.differences == {"function": "function is gelu in the first, gelu_tanh in the second"}
    assert port(model, to="jax").evidence.same
