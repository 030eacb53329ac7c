"""Flax's nnx layers, built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from flax import nnx

from convlab.models.adapters import Node, is_numbered
from convlab.models.layers.activations import PReLU
from convlab.models.layers.attention import Attention, ClassToken
from convlab.models.layers.inputs import ONE_IMAGE, Inputs
from convlab.models.layers.layer import BatchNorm, Convolution, Dense, Dropout, Layer, dtype_of
from convlab.models.layers.norms import ChannelAffine, GroupNorm, LayerNorm, RMSNorm
from convlab.models.layers.shapes import channels_taken
from convlab.models.layers.transposed import TransposedConvolution
from convlab.models.layers.windows import WindowAttention

from ..nnx import Conv2D
from ..ops import ops
from ..shared.attention import options as attention_options
from ..shared.attention import trees_of, window_options
from ..shared.build import NAMES, build_function, convolution_options, dropout_options, transposed_options
from . import attention
from .affine import ChannelAffine as ChannelAffineModule
from .affine import ChannelPReLU
from .network import Network


def build(layer: Layer, style: str) -> list[Any]:
    """See `convlab.models.adapters.Models`."""
    dtype = layer.spec.dtype if isinstance(layer, Convolution) else getattr(layer, "dtype", None)
    with ops.scope(dtype):
        return _build(layer, style)


def _build(layer: Layer, style: str) -> list[Any]:
    rngs = nnx.Rngs(0)
    if isinstance(layer, Convolution):
        return _build_convolution(layer, style)
    if isinstance(layer, BatchNorm):
        norm = nnx.BatchNorm(
            len(layer.mean),
            use_running_average=True,
            momentum=layer.momentum,
            epsilon=layer.epsilon,
            param_dtype=layer.dtype,
            rngs=rngs,
        )
        return [filled(norm, layer.dtype, **NAMES.arrays(layer))]
    if isinstance(layer, Dense):
        outputs, inputs = layer.kernel.shape
        has_bias = layer.bias is not None
        dense = _without_numbers(nnx.Linear, inputs, outputs, use_bias=has_bias, param_dtype=layer.dtype)
        return [filled(dense, layer.dtype, **NAMES.arrays(layer))]
    if isinstance(layer, TransposedConvolution):
        inputs = len(layer.kernel)
        outputs = layer.output_channels()
        module = nnx.ConvTranspose if layer.groups == 1 else nnx.Conv
        transposed = _without_numbers(module, inputs, outputs, **transposed_options(layer))
        return [filled(transposed, layer.dtype, **NAMES.arrays(layer))]
    if isinstance(layer, (GroupNorm, LayerNorm, RMSNorm)):
        options: dict[str, Any] = {"epsilon": layer.epsilon, "param_dtype": layer.dtype, "rngs": rngs}
        grouped = {"num_groups": layer.groups} if isinstance(layer, GroupNorm) else {}
        kinds: dict[type, Any] = {GroupNorm: nnx.GroupNorm, LayerNorm: nnx.LayerNorm, RMSNorm: nnx.RMSNorm}
        return [filled(kinds[type(layer)](len(layer.scale), **grouped, **options), layer.dtype, **NAMES.arrays(layer))]
    if isinstance(layer, PReLU):
        channels, dtype = len(layer.slope), layer.dtype
        prelu: Any = nnx.PReLU(param_dtype=dtype) if channels == 1 else ChannelPReLU(channels, param_dtype=dtype)
        return [filled(prelu, dtype, negative_slope=layer.slope[0] if channels == 1 else layer.slope)]
    if isinstance(layer, ChannelAffine):
        affine = ChannelAffineModule(
            layer.count,
            use_scale=layer.scale is not None,
            use_bias=layer.shift is not None,
            trained=layer.trained,
            param_dtype=layer.dtype,
        )
        return [filled(affine, layer.dtype, **NAMES.arrays(layer))]
    if isinstance(layer, Dropout):
        return [nnx.Dropout(**dropout_options(layer), rngs=rngs)]
    if (trees := trees_of(layer)) is not None:
        return [fill_nested(_tokens(layer), dtype_of(layer), trees)]
    return [build_function(layer)]


def _tokens(layer: Any) -> Any:
    if isinstance(layer, Attention):
        channels = channels_taken(layer)
        if isinstance(layer, WindowAttention):
            module = _without_numbers(attention.WindowAttention, channels, **window_options(layer))
        else:
            module = _without_numbers(attention.PixelAttention, in_features=channels, **attention_options(layer))
        module.rngs = nnx.Rngs(0).dropout.fork() if layer.rate else None
        return module
    if isinstance(layer, ClassToken):
        return attention.ClassToken(len(layer.token), param_dtype=layer.dtype)
    channels, rows, columns = layer.embedding.shape
    return attention.PositionEmbedding(channels, (rows, columns), param_dtype=layer.dtype)


def fill_nested(module: Any, dtype: str, trees: Any) -> Any:
    """As `filled`, also into the modules that nested dictionaries are for."""
    for name, tree in trees.items():
        if isinstance(tree, dict):
            fill_nested(getattr(module, name), dtype, tree)
        else:
            filled(module, dtype, **{name: tree})
    return module


def _without_numbers(kind: Any, *sizes: int, **options: Any) -> Any:
    """A module whose parameters have no numbers yet: XLA compiles random ones for seconds for each shape."""
    return nnx.eval_shape(lambda: kind(*sizes, **options, rngs=nnx.Rngs(0)))


def filled(module: Any, dtype: str, **arrays: np.ndarray | None) -> Any:
    """A module, once its variables of these names have these numbers."""
    for name, array in arrays.items():
        if array is not None:
            variable = getattr(module, name)
            # JAX may keep the memory of a NumPy array, which may be another framework's parameter.
            setattr(module, name, type(variable)(ops.asarray(np.array(array), dtype)))
    return module


def _build_convolution(layer: Convolution, style: str) -> list[Any]:
    dtype = str(layer.spec.dtype)
    if style == "convlab":
        options, weight = layer.ours_for("NHWC")
        ours = Conv2D(**(options | {"seed": 0}))
        return [filled(ours, dtype, weight=weight, bias=layer.bias)]
    options, border = convolution_options(layer)
    outputs, inputs = layer.kernel.shape[:2]
    conv = _without_numbers(nnx.Conv, inputs * layer.spec.groups, outputs, **options)
    conv = filled(conv, dtype, **NAMES.arrays(layer))
    return [conv] if border is None else [border, conv]


def assemble(nodes: Sequence[Node], inputs: Inputs = ONE_IMAGE) -> nnx.Module:
    """See `convlab.models.adapters.Models`; a Sequential of nnx's can't have names, it numbers its layers."""
    return nnx.Sequential(*(node.native for node in nodes)) if is_numbered(nodes) else Network(nodes, [*inputs])
