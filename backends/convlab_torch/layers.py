"""convlab's layer as a `torch.nn.Module`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from convlab.contract.layer import LayerArguments, LayerSpec
from convlab.contract.native_layer import NativeLayer
from convlab.correlation.corr2d import corr2d
from convlab.errors import ShapeError
from convlab.geometry.geometry import Padding

torch.fx.wrap("corr2d")  # to torch.fx a call is one node of the graph

NATIVE = NativeLayer(
    "torch.nn.Conv2d",
    (
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
        "bias",
        "padding_mode",
        "device",
        "dtype",
    ),
    own=("device",),
)


class Arguments(LayerArguments, total=False):
    """The keyword arguments of `Conv2D`: convlab's, and those of `torch.nn.Conv2d`."""

    bias: bool
    device: Any


def _option(name: str) -> Any:
    return property(lambda layer: getattr(layer.spec, name), doc=f"The layer's {name}, as `torch.nn.Conv2d` has it.")


class Conv2D(nn.modules.lazy.LazyModuleMixin, nn.Module):
    """`corr2d` with parameters `weight` and `bias`; see `convlab.Conv2D` for the arguments.

    Those of `torch.nn.Conv2d` are taken too, `Conv2D(3, 8, 3, bias=False)` and the device among them, and kept as
    attributes.

    With `out_channels` and without `in_channels` it is lazy, as `torch.nn.LazyConv2d` is: run it once before giving
    its parameters to an optimiser.

    >>> layer = Conv2D(3, out_channels=8, padding="same", seed=0)
    >>> layer(torch.ones(1, 3, 5, 5)).shape
    torch.Size([1, 8, 5, 5])
    """

    cls_to_become = None  # it stays a Conv2D once its shapes are known

    in_channels = _option("in_channels")
    out_channels = _option("out_channels")
    kernel_size = _option("kernel_size")
    stride = _option("stride")
    padding_mode = _option("padding_mode")
    dilation = _option("dilation")
    groups = _option("groups")

    def __init__(self, *sizes: Any, **arguments: Unpack[Arguments]) -> None:
        options, own = NATIVE.arguments(sizes, arguments)
        super().__init__()
        self.spec = LayerSpec(**options)
        dtype = getattr(torch, self.spec.dtype) if self.spec.dtype else torch.get_default_dtype()
        where: dict[str, Any] = {"device": own.get("device"), "dtype": dtype}
        self.weight: nn.Parameter | UninitializedParameter
        if self.spec.lazy:
            self.weight = UninitializedParameter(**where)
        else:
            self.weight = nn.Parameter(torch.empty(self.spec.weight_shape(), **where))
        self.bias = nn.Parameter(torch.empty(self.spec.bias_shape, **where)) if self.spec.use_bias else None
        self.reset_parameters()

    @property
    def padding(self) -> Padding:
        """(rows, columns) as `torch.nn.Conv2d` has it; a name, or ((top, bottom), (left, right)) where sides differ."""
        padding: Padding = self.spec.padding
        if isinstance(padding, str):
            return padding
        (top, bottom), (left, right) = self.spec.padding
        return (top, left) if (top, left) == (bottom, right) else padding

    def reset_parameters(self) -> None:
        """Draw new initial values: `torch.nn.Conv2d`'s, or the seed's."""
        if self.has_uninitialized_params():
            return
        if self.spec.lazy:  # a state dict has given the shapes
            per_group = self.weight.shape[1 if self.spec.data_format == "NCHW" else 2]
            self.spec = replace(self.spec, in_channels=per_group * self.spec.groups)
        bound = 1 / math.sqrt(self.spec.fan_in())
        with torch.no_grad():
            if self.spec.seed is not None:
                self.weight.copy_(torch.from_numpy(self.spec.seeded()))
            else:
                self.weight.uniform_(-bound, bound)
            if self.bias is not None:
                self.bias.zero_() if self.spec.seed is not None else self.bias.uniform_(-bound, bound)

    def initialize_parameters(self, X: Tensor) -> None:
        """Fit a lazy layer to its first image; torch calls this before the first forward."""
        if self.has_uninitialized_params():
            if isinstance(X, torch.fx.Proxy):
                raise ShapeError(
                    "X: got a tracer of torch.fx, expected an image: the layer has no in_channels yet.",
                    hint="give in_channels, or run the layer once before it is traced.",
                )
            self.spec = self.spec.fit(tuple(X.shape))
            self.weight.materialize(self.spec.weight_shape())  # type: ignore[union-attr]
            self.reset_parameters()

    def forward(self, X: Tensor) -> Tensor:
        """corr2d(X, weight, bias=bias) with the layer's geometry."""
        return corr2d(X, self.weight, bias=self.bias, **self.spec.call)

    def extra_repr(self) -> str:
        """What `repr` shows between the parentheses."""
        return str(self.spec)
