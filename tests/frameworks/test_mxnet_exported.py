"""Models that MXNet itself exported: read without its loader, they compute what MXNet does."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gluon_layers import semantics

from convlab import load
from convlab.models.files.mxnet.exported import read_symbol

import mxnet as mx  # isort: skip (an ordinary import, after convlab's)
from mxnet.gluon import nn  # isort: skip
from mxnet.gluon.model_zoo import vision  # isort: skip


def chain():
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(6, (3, 2), strides=(2, 1), padding=(1, 0), dilation=(1, 2), activation="relu"),
        nn.Conv2D(6, 3, groups=3, use_bias=False),
        nn.BatchNorm(scale=False, epsilon=1e-3),
        nn.LeakyReLU(0.3),
        nn.ELU(0.5),
        nn.SELU(),
        nn.GELU(),
        nn.Activation("softrelu"),
        nn.AvgPool2D(2, 1, 1, count_include_pad=False),
        nn.MaxPool2D(2, 2, ceil_mode=True),
        nn.Dropout(0.4),
        nn.Flatten(),
        nn.Dense(7, activation="tanh"),
        nn.Dense(5, use_bias=False),
    )
    return net


ZOO = {
    "chain": (chain, 19),
    "resnet v1": (lambda: vision.ResNetV1(vision.BasicBlockV1, [1, 1], [4, 4, 8], classes=3, thumbnail=True), 16),
    "resnet v2": (lambda: vision.ResNetV2(vision.BottleneckV2, [1, 1], [4, 8, 16], classes=3), 40),
    "mobilenet": (lambda: vision.MobileNetV2(0.1, classes=3), 33),
    "squeezenet": (lambda: vision.SqueezeNet("1.1", classes=3), 224),
    "densenet": (lambda: vision.DenseNet(8, 4, [2, 2], classes=3), 224),
}


# The others of MXNet's own zoo take arrays of `mx.nd` alone.
CASES = [(name, numpy) for name in ZOO for numpy in (False, True) if not numpy or name in ("chain", "resnet v1")]


def in_use(net, x):
    """The net with numbers of its own in the batch norms, after one call."""
    net.initialize(mx.init.Xavier())
    net(x)
    rng = np.random.default_rng(1)
    for name, parameter in net.collect_params().items():
        if name.endswith(("gamma", "beta", "running_mean", "running_var")):
            array = rng.uniform(0.5, 1.5, parameter.shape)
            parameter.set_data((mx.np if mx.util.is_np_array() else mx.nd).array(array))
    net.hybridize()
    return net


@pytest.mark.parametrize(("name", "numpy"), CASES)
def test_what_mxnet_exports(name, numpy, tmp_path):
    make, n = ZOO[name]
    with semantics(numpy):
        x = np.random.default_rng(0).normal(size=(2, 3, n, n)).astype("f4")
        given = mx.np.array(x) if numpy else mx.nd.array(x)
        net = in_use(make(), given)
        true = net(given).asnumpy()
        net.export(str(tmp_path / "net"), epoch=4)
    parameters = set(net.collect_params())
    for part in read_symbol(tmp_path / "net-symbol.json").parts:
        if part.layer.arrays:
            assert {f"{part.path}_weight", f"{part.path}_gamma"} & parameters
    model = load(tmp_path / "net-symbol.json", backend="mxnet", input_size=n)
    result = model(mx.nd.array(x)).asnumpy()
    np.testing.assert_allclose(result, true, rtol=0, atol=1e-5 * max(1, abs(true).max()))


def test_old_and_new_names_of_options(tmp_path):
    """Before MXNet 1.0 a symbol's options were called "param", and a reference had two numbers."""
    net = nn.HybridSequential()
    net.add(nn.Conv2D(2, 3, in_channels=1))
    net.initialize(mx.init.Uniform(1))
    net.hybridize()
    x = mx.nd.random.normal(shape=(1, 1, 5, 5))
    true = net(x).asnumpy()
    net.export(str(tmp_path / "net"))
    path = tmp_path / "net-symbol.json"
    content = json.loads(path.read_text())
    for node in content["nodes"]:
        if "attrs" in node:
            node["param"] = node.pop("attrs")
        node["inputs"] = [each[:2] for each in node["inputs"]]
    path.write_text(json.dumps(content))
    np.testing.assert_allclose(load(path, backend="mxnet")(x).asnumpy(), true, rtol=0, atol=1e-6)
