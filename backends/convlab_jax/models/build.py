"""Flax's linen layers, built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax import Array

from convlab.models.adapters import Node, is_numbered
from convlab.models.layers.activations import PReLU
from convlab.models.layers.attention import Attention, ClassToken
from convlab.models.layers.inputs import ONE_IMAGE, Inputs
from convlab.models.layers.layer import BatchNorm, Convolution, Dense, Dropout, Layer, dtype_of
from convlab.models.layers.norms import ChannelAffine, GroupNorm, LayerNorm, RMSNorm
from convlab.models.layers.spatial import hwio
from convlab.models.layers.transposed import TransposedConvolution
from convlab.models.layers.windows import WindowAttention

from ..layers import Conv2D
from ..ops import ops
from ..shared.attention import options as attention_options
from ..shared.attention import trees_of, window_options
from ..shared.build import NAMES, build_function, convolution_options, dropout_options, transposed_options
from . import attention
from .affine import ChannelAffine as ChannelAffineModule
from .affine import ChannelPReLU
from .network import Graph, Network, key_of
from .sequential import Sequential as TrainableSequential
from .sequential import switch_of


def build(layer: Layer, style: str) -> list[Any]:
    """See `convlab.models.adapters.Models`."""
    if isinstance(layer, Convolution):
        return _build_convolution(layer, style)
    if isinstance(layer, BatchNorm):
        norm = nn.BatchNorm(
            use_running_average=True, momentum=layer.momentum, epsilon=layer.epsilon, param_dtype=layer.dtype
        )
        parameters = _arrays(layer.dtype, scale=layer.scale, bias=layer.shift)
        statistics = _arrays(layer.dtype, mean=layer.mean, var=layer.variance)
        return [norm.bind({"params": parameters, "batch_stats": statistics})]
    if isinstance(layer, Dense):
        dense = nn.Dense(len(layer.kernel), use_bias=layer.bias is not None, param_dtype=layer.dtype)
        return [dense.bind({"params": _arrays(layer.dtype, kernel=layer.kernel.T, bias=layer.bias)})]
    if isinstance(layer, TransposedConvolution):
        module = nn.ConvTranspose if layer.groups == 1 else nn.Conv
        transposed = module(layer.output_channels(), **transposed_options(layer))
        return [transposed.bind({"params": _named(layer)})]
    if isinstance(layer, (GroupNorm, LayerNorm, RMSNorm)):
        options: dict[str, Any] = {"epsilon": layer.epsilon, "param_dtype": layer.dtype}
        grouped = {"num_groups": layer.groups} if isinstance(layer, GroupNorm) else {}
        kinds: dict[type, Any] = {GroupNorm: nn.GroupNorm, LayerNorm: nn.LayerNorm, RMSNorm: nn.RMSNorm}
        normalises = kinds[type(layer)](**grouped, **options)
        return [normalises.bind({"params": _named(layer)})]
    if isinstance(layer, PReLU):
        prelu = (nn.PReLU if len(layer.slope) == 1 else ChannelPReLU)(param_dtype=layer.dtype)
        slope = layer.slope[0] if len(layer.slope) == 1 else layer.slope
        return [prelu.bind({"params": _arrays(layer.dtype, negative_slope=slope)})]
    if isinstance(layer, ChannelAffine):
        affine = ChannelAffineModule(
            layer.scale is not None, layer.shift is not None, layer.trained, layer.count == 1, layer.dtype
        )
        return [affine.bind({"params" if layer.trained else "constants": _named(layer)})]
    if isinstance(layer, Dropout):
        return [nn.Dropout(**dropout_options(layer)).bind({})]
    if (trees := trees_of(layer)) is not None:
        return [
            _tokens(layer).bind(
                {"params": jax.tree.map(lambda array: ops.asarray(np.array(array), dtype_of(layer)), trees)}
            )
        ]
    return [build_function(layer)]


def _tokens(layer: Any) -> nn.Module:
    if isinstance(layer, WindowAttention):
        return attention.WindowAttention(**window_options(layer))
    if isinstance(layer, Attention):
        return attention.PixelAttention(**attention_options(layer))
    if isinstance(layer, ClassToken):
        return attention.ClassToken(param_dtype=layer.dtype)
    return attention.PositionEmbedding(layer.embedding.shape[1:], param_dtype=layer.dtype)


def _named(layer: Any) -> dict[str, Array]:
    return _arrays(layer.dtype, **NAMES.arrays(layer))


def _arrays(dtype: str, **arrays: np.ndarray | None) -> dict[str, Array]:
    # JAX may keep the memory of a NumPy array, which may be another framework's parameter.
    return {name: ops.asarray(np.array(array), dtype) for name, array in arrays.items() if array is not None}


def _build_convolution(layer: Convolution, style: str) -> list[Any]:
    dtype = str(layer.spec.dtype)
    if style == "convlab":
        options, weight = layer.ours_for("NHWC")
        return [Conv2D(**options).bind({"params": _arrays(dtype, weight=weight, bias=layer.bias)})]
    options, border = convolution_options(layer)
    conv = nn.Conv(len(layer.kernel), **options)
    bound = conv.bind({"params": _arrays(dtype, kernel=hwio(layer.kernel), bias=layer.bias)})
    return [bound] if border is None else [border, bound]


def assemble(nodes: Sequence[Node], inputs: Inputs = ONE_IMAGE) -> nn.Module:
    """See `convlab.models.adapters.Models`; a Sequential of linen's can't have names, it numbers its layers.

    Layers that differ in training are told by the call which it is, `model(x, train=True)`.
    """
    numbered = is_numbered(nodes)
    layers: list[Node] = []
    variables: dict[str, dict[str, Any]] = {}
    for index, node in enumerate(nodes):
        if isinstance(node.native, nn.Module):
            module, trees = node.native.unbind()
            told: dict[str, Any] = {switch: None} if (switch := switch_of(module)) else {}
            node = node._replace(native=module.clone(**told))
            for collection, tree in trees.items():
                key = f"layers_{index}" if numbered else key_of(node.name)
                variables.setdefault(collection, {})[key] = tree
        layers.append(node)
    model: nn.Module
    if numbered:
        natives = [node.native for node in layers]
        model = (TrainableSequential if any(map(switch_of, natives)) else nn.Sequential)(natives)
    else:
        model = Network(Graph(layers, [*inputs]))
    return model.bind(variables)
