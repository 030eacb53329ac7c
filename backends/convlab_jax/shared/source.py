"""Functions and modules as source, for both linen and nnx."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from convlab.models.layers.outputs import template_of
from convlab.models.layers.spatial import is_padded, to_last
from convlab.models.source.code import Code, SourceCall, brief, call_of
from convlab.models.source.layers import Written, padding
from convlab.models.source.layers import affine as scaled

from .across_channels import EXPRESSIONS
from .activations import ELSEWHERE, IN_FLAX
from .activations import EXPRESSIONS as OF_NUMBERS
from .attention import attend, first_pixel
from .moving import (
    channel_shuffle,
    channel_slice,
    chunk,
    crop,
    pixel_shuffle,
    subsample,
    unflatten,
    upsample,
    upsample_aligned,
)
from .pooling import adaptive_pool
from .read import add, affine, broadcast_like, concatenate, flatten, maximum, minimum, multiply, outputs
from .resizing import resize, resize_as_torch, resize_like


def _slice(start: int, end: int) -> str:
    return f"{start or ''}:{-end or ''}"


def _flatten(order: str = "HWC") -> str:
    image = "{0}" if order == "HWC" else "jnp.moveaxis({0}, -1, 1)"
    return f"{image}.reshape(({{0}}.shape[0], -1))"


def _unflatten(size: tuple[int, ...] = (1, 1), order: str = "HWC") -> str:
    axes = ", ".join(map(str, size))
    if order == "HWC":
        return f"{{0}}.reshape(({{0}}.shape[0], {axes}, -1))"
    return f"{{0}}.reshape(({{0}}.shape[0], -1, {axes})).transpose({to_last(len(size))})"


def _upsample(factor: tuple[int, ...], method: str) -> str:
    size = (f"{{0}}.shape[{axis}] * {times}" for axis, times in enumerate(factor, 1))
    return _resize(f"({{0}}.shape[0], {', '.join(size)}, {{0}}.shape[-1])", method)


def _resize(shape: str, method: str, larger: bool = True) -> str:
    smoothing = "" if larger else ", antialias=False"
    return f'jax.image.resize({{0}}, {shape}, "{method}"{smoothing})'


def _resized_like(method: str, align_corners: bool) -> str:
    return f'resize_like({{0}}, {{1}}, "{method}", {align_corners})'


# Functions that Flax has under both of its names, and those that are elsewhere.
_FLAX = (
    *IN_FLAX,
    nn.softmax,
    nn.log_softmax,
    nn.max_pool,
    nn.avg_pool,
)
_IN_NUMPY = "mean", "max", "sum", "pad"
_ELSEWHERE = {**ELSEWHERE, **{f"jnp.{name}": getattr(jnp, name) for name in _IN_NUMPY}}
_EXPRESSIONS: list[tuple[Any, Callable[..., str]]] = [
    (flatten, _flatten),
    (unflatten, _unflatten),
    (affine, scaled),
    (add, lambda: "{0} + {1}"),
    (jnp.subtract, lambda: "{0} - {1}"),
    (multiply, lambda: "{0} * {1}"),
    (jnp.divide, lambda: "{0} / {1}"),
    (maximum, lambda: "jnp.maximum({0}, {1})"),
    (minimum, lambda: "jnp.minimum({0}, {1})"),
    (concatenate, lambda: "jnp.concatenate([{all}], axis=-1)"),
    (outputs, lambda names: template_of(names)),
    (broadcast_like, lambda: "jnp.broadcast_to({0}, (*{1}.shape[:-1], {0}.shape[-1]))"),
    (crop, lambda pads: f"{{0}}[:, {', '.join(_slice(*ends) for ends in pads)}]"),
    (subsample, lambda start, step: f"{{0}}[:, {start[0]}::{step[0]}, {start[1]}::{step[1]}]"),
    (first_pixel, lambda: "{0}[:, 0, 0]"),
    (attend, lambda heads, scale: f"attend({{0}}, {{1}}, {{2}}, heads={heads}, scale={scale})"),
    (upsample, _upsample),
    (upsample_aligned, lambda factor: f"upsample_aligned({{0}}, {factor})"),
    (resize, lambda size, method: _resize(f"({{0}}.shape[0], {size[0]}, {size[1]}, {{0}}.shape[-1])", method, False)),
    (resize_as_torch, lambda size, method: f'resize_as_torch({{0}}, {size}, "{method}")'),
    (resize_like, _resized_like),
    (channel_slice, lambda start, stop: f"{{0}}[..., {start or ''}:{stop or ''}]"),
    (chunk, lambda index, count: f"jnp.split({{0}}, {count}, axis=-1)[{index}]"),
    (channel_shuffle, lambda groups: f"{{0}}.reshape((*{{0}}.shape[:-1], {groups}, -1)).mT.reshape({{0}}.shape)"),
    *EXPRESSIONS,
    *OF_NUMBERS,
    (adaptive_pool, lambda function, size: f'adaptive_pool({{0}}, "{function}", {tuple(size)})'),
    (pixel_shuffle, lambda factor, channels_last: f"pixel_shuffle({{0}}, {factor}, {channels_last})"),
]
IMPORTS = {
    "math": "import math",
    "partial": "from functools import partial",
    "": "",
    "jax": "import jax",
    "jnp": "import jax.numpy as jnp",
    **{name: f"from convlab_jax.shared.moving import {name}" for name in ("pixel_shuffle", "upsample_aligned")},
    "attend": "from convlab_jax.shared.attention import attend",
    "adaptive_pool": "from convlab_jax.shared.pooling import adaptive_pool",
    **{each.__name__: f"from {each.__module__} import {each.__name__}" for each, _ in (*EXPRESSIONS, *OF_NUMBERS)},
    **{name: f"from convlab_jax.shared.resizing import {name}" for name in ("resize_as_torch", "resize_like")},
}


def function(native: Any, flax: str) -> Written | None:
    """A function that `build_function` gives, as source; None for another one. `flax` is "nn" or "nnx"."""
    options = native.keywords if isinstance(native, functools.partial) else {}
    inner = native.func if isinstance(native, functools.partial) else native
    for known, expression in _EXPRESSIONS:
        if inner is known:
            inline = expression(**options)
            joins = "{1}" in inline or "{all}" in inline
            return Written(inline=inline, item=None if joins else Code(f"lambda x: {inline.format('x')}"))
    named = {**{f"{flax}.{known.__name__}": known for known in _FLAX}, **_ELSEWHERE}
    name = next((name for name, known in named.items() if inner is known), None)
    if name is None:
        return None
    if "padding" in options and not is_padded(options["padding"]):
        options = {**options, "padding": "VALID"}
    called = call_of(name, inner, **options)
    item = (
        SourceCall("partial", {"": Code(name), **called.arguments}, called.defaults, 1) if called.rest else Code(name)
    )
    return Written(inline=f"{name}({{0}}{called.rest})", item=item)


def convolution(module: Any) -> dict[str, Any]:
    """The arguments that `linen.Conv` and `nnx.Conv` share, and that a module was made with."""
    pads = module.padding if isinstance(module.padding, str) else padding(module.padding)
    return {
        "kernel_size": tuple(module.kernel_size),
        "strides": brief(module.strides),
        "padding": "VALID" if pads == 0 else pads,
        "input_dilation": brief(module.input_dilation),
        "kernel_dilation": brief(module.kernel_dilation),
        "feature_group_count": module.feature_group_count,
        "use_bias": module.use_bias,
        **dtype(module),
    }


def norm(module: Any) -> dict[str, Any]:
    """The arguments that `linen.BatchNorm` and `nnx.BatchNorm` share."""
    return {"momentum": module.momentum, "epsilon": module.epsilon, **dtype(module)}


def transposed(module: Any) -> dict[str, Any]:
    """The arguments that `linen.ConvTranspose` and `nnx.ConvTranspose` share."""
    pads = module.padding if isinstance(module.padding, str) else tuple(map(tuple, module.padding))
    # Their defaults are None, which is 1.
    steps = {"strides": brief(module.strides), "kernel_dilation": brief(module.kernel_dilation)}
    return {
        "kernel_size": tuple(module.kernel_size),
        **{name: value for name, value in steps.items() if value not in (None, 1)},
        "padding": pads,
        "use_bias": module.use_bias,
        "transpose_kernel": module.transpose_kernel,
        **dtype(module),
    }


def dense(module: Any) -> dict[str, Any]:
    """The arguments that `linen.Dense` and `nnx.Linear` share."""
    return {"use_bias": module.use_bias, **dtype(module)}


def dropout(module: Any) -> dict[str, Any]:
    """The arguments that `linen.Dropout` and `nnx.Dropout` share."""
    return {"rate": module.rate, "broadcast_dims": tuple(module.broadcast_dims)}


def dtype(module: Any) -> dict[str, Any]:
    """The dtype of a module's parameters, if it isn't float32."""
    name = np.dtype(module.param_dtype).name
    return {} if name == "float32" else {"param_dtype": Code(f"jnp.{name}")}


def attention(module: Any) -> dict[str, Any]:
    """The arguments that linen's and nnx's attention of all pixels share."""
    drops = {"dropout_rate": module.dropout_rate, "broadcast_dropout": False} if module.dropout_rate else {}
    wide = {"qkv_features": module.qkv_features}
    if module.qkv_features in (None, getattr(module, "in_features", None)):
        wide = {}
    return {"num_heads": module.num_heads, **wide, "use_bias": module.use_bias, **drops, **dtype(module)}


def windows(module: Any) -> dict[str, Any]:
    """The arguments that linen's and nnx's attention of windows share."""
    names = ("heads", "window", "shift", "dropout_rate", "use_bias", "cosine", "grid")
    return {**{name: getattr(module, name) for name in names}, **dtype(module)}
