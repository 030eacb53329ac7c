"""Gluon's norms and transposed convolutions, and blocks of convlab's for what gluon hasn't got."""

from __future__ import annotations

import numpy as np
import pytest
from making import built, port_parts

from convlab import port
from convlab.errors import UnsupportedError
from convlab.models.adapters import read
from convlab.models.layers.norms import ChannelAffine, GroupNorm
from convlab.models.layers.pixels import Crop, Upsample
from convlab_mxnet.ops import mx

nn = mx.gluon.nn
X = np.random.default_rng(5).normal(size=(2, 4, 9, 8)).astype("float32")


def check(block) -> None:
    """What is ported computes the same, without convlab."""
    block.initialize(mx.init.Uniform(1.0))
    x = mx.nd.array(X)
    expected = block(x).asnumpy()
    ported = port(block, to="mxnet")
    assert ported.evidence.same
    assert not ported.untouched
    result = ported.model(x).asnumpy()
    assert np.abs(result - expected).max() <= 1e-5 * np.abs(expected).max()
    ported.model.hybridize()
    np.testing.assert_allclose(ported.model(x).asnumpy(), result, rtol=1e-5, atol=1e-6)


BLOCKS = {
    "instance": lambda: nn.InstanceNorm(epsilon=1e-2),
    "layer": lambda: nn.LayerNorm(axis=1, epsilon=1e-2),
    "transposed": lambda: nn.Conv2DTranspose(6, 3, 2, 1, 1, groups=2, use_bias=False, in_channels=4),
    "uneven": lambda: nn.Conv2DTranspose(3, (3, 2), (1, 2), (2, 0)),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(name) -> None:
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 1), BLOCKS[name]())
    check(net)


class Decoder(mx.gluon.HybridBlock):
    """Code of its own, which is read by its symbol."""

    def __init__(self):
        super().__init__()
        self.up = nn.Conv2DTranspose(6, 3, 2, 1, 1, in_channels=4)
        self.norm, self.slopes = nn.InstanceNorm(in_channels=6), nn.PReLU(in_channels=6)
        self.layer = nn.LayerNorm(axis=1, in_channels=6)

    def hybrid_forward(self, F, x):
        x = self.slopes(self.norm(self.up(x)))
        return F.UpSampling(self.layer(x), scale=2, sample_type="nearest") + 1


def test_code_of_ones_own() -> None:
    check(Decoder())
    kinds = [part.layer.kind for part in read(shaken(Decoder())).parts]
    assert kinds == ["conv_transpose2d", "group_norm", "prelu", "layer_norm", "upsample", "affine"]


def shaken(block):
    block.initialize(mx.init.Uniform(1.0))
    return block


REFUSED = {
    "a group's numbers": (lambda: nn.GroupNorm(2), "GroupNorm"),
    "columns": (lambda: nn.LayerNorm(), "axis -1"),
    "rows": (lambda: nn.InstanceNorm(axis=2), "axis 2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name) -> None:
    block, why = REFUSED[name]
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 1), block())
    net.initialize()
    net(mx.nd.array(X))
    port_parts(net, why, to="mxnet")


def test_numpys_arrays() -> None:
    """The blocks take arrays of `mx.np`, too, and hybridize with them."""
    numbers = np.array([0.5, 2.0, 1.0, 3.0], "float32")
    layers = [ChannelAffine(numbers, -numbers, True), GroupNorm(numbers, numbers, 2, 1e-3), Crop(((1, 2), (0, 3)))]
    layers.append(Upsample((2, 1), "nearest"))
    expected = X.astype(float)
    for layer in layers:
        expected = layer.reference(expected)
    mx.npx.set_np()
    try:
        net = built("mxnet", *layers)
        for _ in range(2):
            result = net(mx.np.array(X))
            assert isinstance(result, mx.np.ndarray)
            np.testing.assert_allclose(result.asnumpy(), expected, rtol=1e-4, atol=1e-4)
            net.hybridize()
    finally:
        mx.npx.reset_np()


def test_what_is_trained() -> None:
    numbers = np.array([0.5, 2.0, 1.0, 3.0], "float32")
    for trained in (True, False):
        block = built("mxnet", ChannelAffine(numbers, None, trained))
        assert [parameter.grad_req for parameter in block.collect_params().values()] == ["write" if trained else "null"]
        x = mx.nd.array(X)
        x.attach_grad()
        with mx.autograd.record():
            y = (block(x) * mx.nd.array(X)).sum()
        y.backward()
        np.testing.assert_allclose(x.grad.asnumpy(), X * numbers.reshape(-1, 1, 1), rtol=1e-5)


def test_half_precision_is_refused() -> None:
    numbers = np.ones(4, "float16")
    with pytest.raises(UnsupportedError, match="float16"):
        built("mxnet", GroupNorm(numbers, numbers, 2, 1e-3, "float16"))
