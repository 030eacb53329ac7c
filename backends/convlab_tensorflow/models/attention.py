"""What Keras's attention computes, its own and convlab's, and what makes pixels the tokens of a sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import layers as kl

from convlab.errors import UnsupportedError
from convlab.models.layers.attention import Attention, ClassToken, FirstPixel, PositionEmbedding, gradients_read
from convlab.models.layers.dot_product import DotProductAttention
from convlab.models.layers.layer import Layer
from convlab.models.layers.shapes import channels_taken
from convlab.models.layers.windows import WindowAttention

from .. import attention_layers, private
from .arrays import array_of


def _of_one_dtype(m: kl.Layer) -> None:
    if m.compute_dtype != m.variable_dtype:
        raise UnsupportedError(f"it keeps {m.variable_dtype} and computes in {m.compute_dtype}")


def _attention(m: kl.MultiHeadAttention) -> Layer:
    """Of all tokens, or all pixels, to one another; that it is given them thrice is seen where it is called."""
    _of_one_dtype(m)
    config = m.get_config()
    for option in ("use_gate", "sliding_window"):
        if config.get(option):
            raise UnsupportedError(f"it has {option}={config[option]}")
    if not isinstance(m, attention_layers.PixelAttention):
        axes = len(m.get_build_config()["shapes_dict"]["query_shape"])
        if sorted(m.attention_axes) != [*range(1, axes - 1)]:
            raise UnsupportedError(f"its attention_axes are {m.attention_axes}, expected {(*range(1, axes - 1),)}")
    denses = private.dense_layers_of_attention(m)
    if any(getattr(dense, "lora_enabled", False) or dense.quantization_mode for dense in denses):
        raise UnsupportedError("its kernels aren't single arrays, but quantized or adapted (LoRA)")
    kernels = [array_of(dense.kernel) for dense in denses]
    biases = [array_of(dense.bias) for dense in denses] if m.use_bias else None
    return Attention.of_heads(kernels, biases, m.num_heads, m.dropout, m.variable_dtype)


def _windows(m: attention_layers.WindowAttention) -> Layer:
    _of_one_dtype(m)
    kernel, out_kernel = (array_of(dense.kernel).T for dense in (m.qkv, m.proj))
    bias, out_bias = (array_of(dense.bias) if m.use_bias else None for dense in (m.qkv, m.proj))
    dense = kernel, out_kernel, m.num_heads, bias, out_bias, m.dropout, m.variable_dtype
    scale = array_of(m.scale) if m.cosine else None
    return WindowAttention(*dense, array_of(m.table), m.window, m.shift, scale=scale, grid=m.grid)


def _position_embedding(m: attention_layers.PositionEmbedding) -> Layer:
    return PositionEmbedding(array_of(m.embedding).transpose(2, 0, 1), m.variable_dtype)


def build_attention(layer: Attention, style: str) -> list[kl.Layer]:
    """Keras's layers for an attention."""
    channels, heads = channels_taken(layer), layer.heads
    options: dict[str, Any] = {"dropout": layer.rate, "use_bias": layer.biased, "dtype": layer.dtype}
    if isinstance(layer, WindowAttention):
        options |= {"cosine": layer.cosine, "grid": layer.grid}
        native = attention_layers.WindowAttention(heads, layer.window, layer.shift, **options)
    else:
        options |= {"value_dim": None if layer.value_size == layer.key_size else layer.value_size}
        native = attention_layers.PixelAttention(heads, layer.key_size, attention_axes=(1, 2), **options)
    native.build((None, None, None, channels))
    fill_attention(native, layer)
    return [native]


def fill_attention(native: kl.Layer, layer: Attention) -> None:
    """Put a layer's arrays into a layer of Keras's."""
    if isinstance(layer, WindowAttention):
        kernels, biases = [layer.kernel.T, layer.out_kernel.T], [*layer.biases()] if layer.biased else None
        denses = [native.qkv, native.proj]
        native.table.assign(layer.table)
        if layer.scale is not None:
            native.scale.assign(layer.scale)
    else:
        kernels, biases = layer.by_head()
        denses = private.dense_layers_of_attention(native)
    for index, dense in enumerate(denses):
        dense.set_weights([kernels[index], *([biases[index]] if biases else [])])


def gradients_of(layer: kl.Layer, slopes: list[Any]) -> dict[str, Any]:
    """The gradients by the arrays of attention, from those by a layer's weights."""
    other = type(layer).from_config(layer.get_config())
    other.build_from_config(layer.get_build_config())
    other.set_weights(slopes)
    return gradients_read(READERS[type(other)](other))  # type: ignore[arg-type]  # one of attention


ATTENTION = (kl.MultiHeadAttention, attention_layers.WindowAttention)
READERS: dict[type, Callable[[Any], Layer]] = {
    attention_layers.PixelAttention: _attention,
    kl.MultiHeadAttention: _attention,
    attention_layers.WindowAttention: _windows,
    attention_layers.ClassToken: lambda m: ClassToken(array_of(m.token), m.variable_dtype),
    attention_layers.PositionEmbedding: _position_embedding,
    attention_layers.FirstPixel: lambda m: FirstPixel(),
    attention_layers.DotProductAttention: lambda m: DotProductAttention(m.heads, m.scale),
}
