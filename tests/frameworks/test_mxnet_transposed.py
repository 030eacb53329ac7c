"""`conv_transpose2d` on MXNet: beside gluon's own layer, and in hybridized blocks."""

from __future__ import annotations

import numpy as np
import pytest

import convlab
from convlab import errors
from convlab import mxnet as lab
from convlab.testing import oracle, transposed_oracle

import mxnet as mx  # isort: skip (an ordinary import, after convlab's)
from mxnet import autograd, gluon  # isort: skip

rng = np.random.default_rng(0)
Y = lab.asarray(rng.integers(-8, 9, (2, 4, 5, 6)), "float32")
K = rng.integers(-8, 9, (4, 3, 3, 2)).astype("float32")


class Block(gluon.HybridBlock):
    """A user's block that calls conv_transpose2d itself."""

    def __init__(self, shape, **options) -> None:
        super().__init__()
        self.options = options
        with self.name_scope():
            self.weight = self.params.get("weight", shape=shape)

    def hybrid_forward(self, F, x, weight):
        return convlab.conv_transpose2d(x, weight, **self.options)


@pytest.mark.parametrize("arrays", ["np", "nd"])
@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2, "padding": "same"}, {"stride": (2, 1), "output_padding": (1, 0), "padding": ((0, 1), (1, 0))}],
)
def test_hybridized(options, arrays) -> None:
    expected = transposed_oracle(Y.asnumpy(), K, **options)
    fitted = {name: value for name, value in options.items() if name != "output_padding"}
    slope = oracle(expected, K, **fitted)
    with mx.util.np_shape(arrays == "np"), mx.util.np_array(arrays == "np"):
        block = Block(K.shape, **options)
        block.initialize()
        y = Y.copy() if arrays == "np" else Y.copy().as_nd_ndarray()
        block.weight.set_data(lab.asarray(K) if arrays == "np" else lab.asarray(K).as_nd_ndarray())
        for hybrid in (False, True):
            block.hybridize(hybrid)
            y.attach_grad()
            with autograd.record():
                x = block(y)
            assert type(x) is type(y)
            np.testing.assert_array_equal(x.asnumpy(), expected)
            seeds = lab.asarray(expected, "float32")
            x.backward(seeds if arrays == "np" else seeds.as_nd_ndarray())
            np.testing.assert_array_equal(y.grad.asnumpy(), slope)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        (K.shape, {"dilation": 2}),
        (K.shape, {"reproducible": True}),
        ((3, 2, 3, 4), {"data_format": "NHWC"}),
        ((3, 2), {}),
    ],
)
def test_what_a_hybridized_block_cannot_do(shape, options) -> None:
    with mx.util.np_shape(True), mx.util.np_array(True):
        block = Block(shape, **options)
        block.initialize()
        block.hybridize()
        y = Y.transpose(0, 2, 3, 1) if "data_format" in options else Y
        with pytest.raises(errors.UnsupportedError, match="Hint: "):
            block(y)


def test_gluons_own_layer() -> None:
    with mx.util.np_shape(True), mx.util.np_array(True):
        for strides, padding, more, groups in ((1, 0, 0, 1), (2, 1, 1, 1), ((3, 2), (1, 0), (2, 1), 2)):
            layer = gluon.nn.Conv2DTranspose(
                6, 3, strides, padding, output_padding=more, groups=groups, in_channels=4, use_bias=True
            )
            layer.initialize()
            weight, bias = layer.weight, layer.bias
            weight.set_data(lab.asarray(rng.integers(-8, 9, weight.shape), "float32"))
            bias.set_data(lab.asarray(rng.integers(-8, 9, bias.shape), "float32"))
            options = {"stride": strides, "padding": padding, "output_padding": more, "groups": groups}
            x = convlab.conv_transpose2d(Y, weight.data(), bias=bias.data(), **options)
            np.testing.assert_array_equal(x.asnumpy(), layer(Y).asnumpy())
