"""PyTorch's norms, and scales and shifts of channels, read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convlab.errors import UnsupportedError
from convlab.models.layers.layer import BatchNorm, Layer
from convlab.models.layers.norms import ChannelAffine, GroupNorm, LayerNorm, RMSNorm

from ..ops import ops
from . import modules


def array_of(x: Tensor | None) -> np.ndarray | None:
    """A tensor's numbers; None for none."""
    return None if x is None else ops.to_numpy(x)


def dtype_of(x: Tensor) -> str:
    """The name of a tensor's dtype."""
    return str(ops.dtype(x))


def read_batch_norm(m: Any) -> BatchNorm:
    """Batch norm by its running statistics."""
    if m.running_mean is None or m.running_var is None:
        raise UnsupportedError(
            "it keeps no running statistics, so that each result depends on the whole batch.",
            hint="train it with track_running_stats=True, or with a GroupNorm.",
        )
    ones = torch.ones_like(m.running_mean)
    scale, shift = (ones, 0 * ones) if m.weight is None else (m.weight, m.bias)
    mean, variance = ops.to_numpy(m.running_mean), ops.to_numpy(m.running_var)
    momentum = 0.1 if m.momentum is None else m.momentum  # without one, torch takes the mean of all batches so far
    return BatchNorm(
        mean,
        variance,
        ops.to_numpy(scale),
        ops.to_numpy(shift),
        m.eps,
        round(1 - momentum, 12),
        dtype_of(m.running_mean),
        rank=0 if isinstance(m, nn.BatchNorm1d) else 2 if isinstance(m, nn.BatchNorm2d) else 3,
    )


def _scale_and_shift(m: Any, channels: int) -> tuple[np.ndarray, np.ndarray, str]:
    scale, shift = array_of(m.weight), array_of(m.bias)
    dtype = "float32" if m.weight is None else dtype_of(m.weight)
    ones = np.ones(channels, "float32" if scale is None else scale.dtype)
    return ones if scale is None else scale, 0 * ones if shift is None else shift, dtype


def read_group_norm(m: nn.GroupNorm) -> Layer:
    """Group norm."""
    scale, shift, dtype = _scale_and_shift(m, m.num_channels)
    return GroupNorm(scale, shift, m.num_groups, m.eps, dtype)


_INSTANCE_NORMS = nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d


def read_instance_norm(m: nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d) -> Layer:
    """Instance norm by the statistics of each image, or in inference by running statistics, as a batch norm."""
    if m.running_mean is not None:
        return replace(
            read_batch_norm(m), rank=next(rank for rank, kind in enumerate(_INSTANCE_NORMS, 1) if isinstance(m, kind))
        )
    scale, shift, dtype = _scale_and_shift(m, m.num_features)
    return GroupNorm(scale, shift, m.num_features, m.eps, dtype)


def read_layer_norm(m: nn.LayerNorm) -> Layer:
    """Layer norm of the last axis."""
    if len(m.normalized_shape) != 1:
        raise UnsupportedError(
            f"it normalises {len(m.normalized_shape)} axes; GroupNorm(1, channels) does all of an image"
        )
    scale, shift, dtype = _scale_and_shift(m, m.normalized_shape[0])
    return LayerNorm(scale, shift, m.eps, dtype)


def read_norm_of_one_pixel(m: nn.LayerNorm) -> Layer:
    """Layer norm of the channels of images of one pixel, (N, C, 1, 1)."""
    shape = tuple(m.normalized_shape)
    if len(shape) != 3 or shape[1:] != (1, 1):
        raise UnsupportedError(
            f"it normalises axes of sizes {shape}, expected channels: the last axis of rows, tokens or images NHWC, "
            "or (C, 1, 1)"
        )
    scale, shift, dtype = _scale_and_shift(m, shape[0])
    return LayerNorm(scale.reshape(-1), shift.reshape(-1), m.eps, dtype)


def read_rms_norm(m: nn.RMSNorm) -> Layer:
    """Root mean square norm of the last axis; without an epsilon PyTorch takes that of its dtype."""
    if len(m.normalized_shape) != 1:
        raise UnsupportedError(f"it normalises {len(m.normalized_shape)} axes")
    dtype = torch.float32 if m.weight is None else m.weight.dtype
    scale = torch.ones(m.normalized_shape[0]) if m.weight is None else m.weight
    return RMSNorm(ops.to_numpy(scale), torch.finfo(dtype).eps if m.eps is None else m.eps, dtype_of(scale))


def read_channel_affine(m: modules.ChannelAffine) -> Layer:
    """A scale and a shift for each channel."""
    trained, arrays = any(True for _ in m.parameters()), m.state_dict()
    scale, shift = (array_of(arrays.get(name)) for name in ("weight", "bias"))
    return ChannelAffine(scale, shift, trained, dtype_of(next(iter(arrays.values()))))
