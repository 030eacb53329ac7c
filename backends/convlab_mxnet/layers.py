"""convlab's layer as a gluon `HybridBlock`."""

from __future__ import annotations

from typing import Any, Unpack

from convlab.contract.layer import LayerOptions, LayerSpec
from convlab.correlation.arguments import check_supported
from convlab.correlation.corr2d import corr2d
from convlab.geometry.geometry import Pair
from convlab.registry import framework

from .ops import mx, ops


class Conv2D(mx.gluon.HybridBlock):  # type: ignore[misc]
    """`corr2d` with parameters `weight` and `bias`; see `convlab.Conv2D` for the arguments.

    As every gluon block it must be initialised, and it can be hybridized.

    >>> layer = Conv2D((1, 2), seed=0)
    >>> layer.initialize()
    >>> layer(mx.np.ones((6, 8))).shape
    (6, 7)
    """

    def __init__(
        self, kernel_size: int | Pair, *, prefix: Any = None, params: Any = None, **options: Unpack[LayerOptions]
    ) -> None:
        super().__init__(prefix=prefix, params=params)
        self.spec = LayerSpec(kernel_size, **options)
        dtype = self.spec.dtype or "float32"
        check_supported(framework("mxnet"), dtype)
        with self.name_scope():
            self.weight = self.params.get(
                "weight",
                shape=self.spec.weight_shape(),
                dtype=dtype,
                init=_Initial(self),
                allow_deferred_init=True,
            )
            self.bias = (
                self.params.get("bias", shape=self.spec.bias_shape, dtype=dtype, init="zeros")
                if self.spec.use_bias
                else None
            )

    def infer_shape(self, X: Any) -> None:
        """Fit a layer without `in_channels` to its first image; gluon calls this before the first forward."""
        self.spec = self.spec.fit(ops.known_rank(X))
        self.weight.shape = self.spec.weight_shape()

    def hybrid_forward(self, F: Any, X: Any, weight: Any, bias: Any = None) -> Any:
        """corr2d(X, weight, bias=bias) with the layer's geometry."""
        return corr2d(X, weight, bias=bias, backend="mxnet", **self.spec.call)

    def __repr__(self) -> str:
        return f"Conv2D({self.spec})"


class _Initial(mx.init.Initializer):  # type: ignore[misc]
    """The weight that the layer's seed stands for, or what the initialiser given to `initialize` draws."""

    def __init__(self, layer: Conv2D) -> None:
        super().__init__()
        self.layer = layer

    def _init_weight(self, name: Any, data: Any) -> None:
        spec = self.layer.spec
        if spec.seed is not None:
            data[:] = spec.seeded()
            return
        drawn = data.astype("float32")  # MXNet's generators of NumPy arrays know no other dtype
        name.global_init(mx.init.InitDesc(name), drawn)  # without what leads back to this initialiser
        data[:] = drawn.astype(data.dtype)
