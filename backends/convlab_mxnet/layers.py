"""convlab's layer as a gluon `HybridBlock`."""

from __future__ import annotations

from typing import Any, Unpack

from convlab.contract.layer import LayerArguments, LayerSpec
from convlab.contract.native_layer import NativeLayer
from convlab.correlation.arguments import check_supported
from convlab.correlation.corr2d import corr2d
from convlab.registry import framework

from .blocks import Activation, OnBoth
from .ops import mx, ops

NATIVE = NativeLayer(
    "gluon.nn.Conv2D",
    (
        "channels",
        "kernel_size",
        "strides",
        "padding",
        "dilation",
        "groups",
        "layout",
        "activation",
        "use_bias",
        "weight_initializer",
        "bias_initializer",
        "in_channels",
    ),
    own=("activation", "weight_initializer", "bias_initializer", "prefix", "params"),
)


class Arguments(LayerArguments, total=False):
    """The keyword arguments of `Conv2D`: convlab's, and those of `gluon.nn.Conv2D`."""

    channels: int
    strides: Any
    layout: Any
    activation: str | None
    weight_initializer: Any
    bias_initializer: Any
    prefix: str | None
    params: Any


class Conv2D(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
    """`corr2d` with parameters `weight` and `bias`; see `convlab.Conv2D` for the arguments.

    Those of `gluon.nn.Conv2D` are taken too: `Conv2D(8, 3, activation="relu")`, initialisers, a prefix. As every gluon
    block it must be initialised, and it can be hybridized. It takes arrays of `mx.np` and of `mx.nd`.

    >>> layer = Conv2D((1, 2), seed=0)
    >>> layer.initialize()
    >>> layer(mx.np.ones((6, 8))).shape
    (6, 7)
    """

    def __init__(self, *sizes: Any, **arguments: Unpack[Arguments]) -> None:
        options, own = NATIVE.arguments(sizes, arguments)
        super().__init__(prefix=own.get("prefix"), params=own.get("params"))
        # Gluon writes a number of channels that isn't known as 0.
        self.spec = LayerSpec(**{**options, "in_channels": options.get("in_channels") or None})
        dtype = self.spec.dtype or "float32"
        check_supported(framework("mxnet"), dtype)
        with self.name_scope():
            self.weight = self.params.get(
                "weight",
                shape=self.spec.weight_shape(),
                dtype=dtype,
                init=_Initial(self, own.get("weight_initializer")),
                allow_deferred_init=True,
            )
            self.bias = None
            if self.spec.use_bias:
                initializer = own.get("bias_initializer") or "zeros"
                self.bias = self.params.get("bias", shape=self.spec.bias_shape, dtype=dtype, init=initializer)
            activation = own.get("activation")
            self.act = None if activation is None else Activation(activation, prefix=f"{activation}_")

    def infer_shape(self, X: Any) -> None:
        """Fit a layer without `in_channels` to its first image; gluon calls this before the first forward."""
        self.spec = self.spec.fit(ops.known_rank(X))
        self.weight.shape = self.spec.weight_shape()

    def hybrid_forward(self, F: Any, X: Any, weight: Any, bias: Any = None) -> Any:
        """corr2d(X, weight, bias=bias) with the layer's geometry, and then the activation."""
        y = corr2d(X, weight, bias=bias, backend="mxnet", **self.spec.call)
        return y if self.act is None else self.act(y)

    def __repr__(self) -> str:
        return f"Conv2D({self.spec})" if self.act is None else f"Conv2D({self.spec}, {self.act})"


class _Initial(mx.init.Initializer):  # type: ignore[misc]
    """The weight that the layer's seed stands for, or what its own initialiser or that of `initialize` draws."""

    def __init__(self, layer: Conv2D, own: Any) -> None:
        super().__init__()
        self.layer, self.own = layer, own

    def _init_weight(self, name: Any, data: Any) -> None:
        spec = self.layer.spec
        if spec.seed is not None:
            data[:] = spec.seeded()
            return
        # MXNet's generators of NumPy arrays know no other dtype, and its initialisers no other layout than OIHW.
        oihw = data.transpose((3, 2, 0, 1)) if data.ndim == 4 and spec.data_format == "NHWC" else data
        drawn = oihw.astype("float32")
        initializer = name.global_init if self.own is None else mx.init.create(self.own)
        initializer(mx.init.InitDesc(name), drawn)  # without what leads back to this initialiser
        data[:] = (drawn if oihw is data else drawn.transpose((2, 3, 1, 0))).astype(data.dtype)
