"""PyTorch's attention, of the pixels of images, and what makes pixels the tokens of a sequence."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convlab.errors import ModelError
from convlab.geometry.checks import pair
from convlab.geometry.geometry import Pair
from convlab.models.layers import attention as layers
from convlab.models.layers import windows as window_layers
from convlab.models.layers.layer import Layer
from convlab.models.layers.windows import SHORTEST, distances, relative_places, windows_of

from ..ops import ops


class PixelAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` of the pixels of images (N, C, H, W) to one another."""

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        use_bias: bool = True,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(embed_dim, num_heads, dropout, use_bias, batch_first=True, dtype=dtype)
        self.use_bias = use_bias

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """The image, each pixel computed from all."""
        pixels = x.flatten(2).transpose(1, 2)
        y, _ = super().forward(pixels, pixels, pixels, need_weights=False)
        return y.transpose(1, 2).reshape(x.shape)


class HeadAttention(nn.Module):
    """Attention of the pixels of images (N, C, H, W) to one another, in heads of any number of channels.

    Args:
        embed_dim: the channels of the images.
        num_heads: how many heads there are.
        key_dim: the channels of a head's queries and keys.
        value_dim: those of its values.
        dropout: the share of the weights that training sets to 0.
        use_bias: whether the dense layers have biases.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        key_dim: int,
        value_dim: int,
        dropout: float = 0.0,
        use_bias: bool = True,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.key_dim, self.value_dim = embed_dim, num_heads, key_dim, value_dim
        self.dropout, self.use_bias = dropout, use_bias
        self.qkv = nn.Linear(embed_dim, num_heads * (2 * key_dim + value_dim), use_bias, dtype=dtype)
        self.proj = nn.Linear(num_heads * value_dim, embed_dim, use_bias, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """The image, each pixel computed from all."""
        sizes = [self.num_heads * size for size in (self.key_dim, self.key_dim, self.value_dim)]
        parts = self.qkv(x.flatten(2).transpose(1, 2)).split(sizes, dim=-1)
        queries, keys, values = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        dropout = self.dropout if self.training else 0.0
        means = F.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout)
        y: Tensor = self.proj(means.transpose(1, 2).flatten(2))
        return y.transpose(1, 2).reshape(x.shape)


def _windows(rows: int, columns: int, *where: Any) -> tuple[Pair, Tensor, Tensor, Tensor]:
    """The windows of images of a size, as tensors; a compiler traces what finds them, and can't trace its cache."""
    found = windows_of.__wrapped__ if torch.compiler.is_compiling() else windows_of
    padded, *arrays = found((rows, columns), *where)
    places, back, mask = map(torch.from_numpy, arrays)
    return padded, places, back, mask


class WindowAttention(nn.Module):
    """Attention of the pixels of each window of images (N, C, H, W) to one another: Swin, arXiv:2103.14030, 2111.09883.

    Args:
        dim: the channels.
        window_size: rows and columns of the windows; the image is padded with zeros to a multiple of them.
        num_heads: how many heads there are.
        shift_size: how far up and to the left the windows lie; pixels that only then share one don't meet.
        dropout: the share of the weights that training sets to 0.
        use_bias: whether the dense layers have biases.
        cosine: whether the scores are the cosines of queries and keys, times a learned number for each head.
        grid: whether a window's pixels are spread evenly over the image (MaxViT, arXiv:2204.01697), unshifted.
    """

    def __init__(
        self,
        dim: int,
        window_size: int | Pair,
        num_heads: int,
        shift_size: int | Pair = 0,
        dropout: float = 0.0,
        use_bias: bool = True,
        cosine: bool = False,
        grid: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.use_bias, self.cosine, self.grid = use_bias, cosine, grid
        self.dim, self.num_heads, self.dropout = dim, num_heads, dropout
        self.window_size, self.shift_size = pair("window_size", window_size, 1), pair("shift_size", shift_size, 0)
        self.qkv = nn.Linear(dim, 3 * dim, use_bias, dtype=dtype)
        self.proj = nn.Linear(dim, dim, use_bias, dtype=dtype)
        table = torch.zeros(distances(self.window_size), num_heads, dtype=dtype)
        self.relative_position_bias_table = nn.Parameter(table)
        self.scale = nn.Parameter(torch.full((num_heads,), 10.0, dtype=dtype)) if cosine else None
        self.register_buffer("relative_position_index", torch.from_numpy(relative_places(self.window_size).ravel()))

    relative_position_index: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """The image, each pixel computed from those of its window."""
        rows, columns = int(x.shape[2]), int(x.shape[3])
        where = self.window_size, self.shift_size, self.grid
        (padded_rows, padded_columns), places, back, mask = _windows(rows, columns, *where)
        padded = F.pad(x, (0, padded_columns - columns, 0, padded_rows - rows))
        windows = padded.flatten(2).transpose(1, 2)[:, places]
        parts = self.qkv(windows).reshape(*windows.shape[:3], 3, self.num_heads, -1)
        queries, keys, values = parts.permute(3, 0, 1, 4, 2, 5)
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()].T.reshape(-1, *mask.shape[1:])
        added = bias + mask.to(bias).unsqueeze(1)
        if self.scale is not None:
            queries, keys = (F.normalize(vectors, dim=-1, eps=SHORTEST) for vectors in (queries, keys))
            queries = queries * self.scale.view(-1, 1, 1)
        dropout, scale = self.dropout if self.training else 0.0, 1.0 if self.cosine else None
        means = F.scaled_dot_product_attention(queries, keys, values, added, dropout, scale=scale)
        y: Tensor = self.proj(means.transpose(2, 3).flatten(3)).flatten(1, 2)
        return y[:, back].transpose(1, 2).reshape(x.shape)


class ClassToken(nn.Module):
    """The pixels of images (N, C, H, W), row by row, as one column, with a learned pixel before them.

    Args:
        channels: how many there are.
    """

    def __init__(self, channels: int, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.channels = channels
        self.token = nn.Parameter(torch.zeros(channels, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """The images (N, C, 1 + H * W, 1)."""
        first = self.token.view(-1, 1).expand(len(x), -1, -1)
        return torch.cat([first, x.flatten(2)], dim=2).unsqueeze(-1)


class PositionEmbedding(nn.Module):
    """x + embedding, with a learned number for each channel of each pixel.

    Args:
        channels: how many there are.
        size: the rows and columns of the images that it takes, or of others with as many pixels.
    """

    def __init__(self, channels: int, size: Pair, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.channels, self.size = channels, size
        self.embedding = nn.Parameter(torch.zeros(channels, *size, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """The images (N, C, H, W), each with the same numbers added."""
        return x + self.embedding.reshape(x.shape[1:])


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float) -> Tensor:
    """The mean of the values of all pixels, for each pixel of the queries: all three are images (N, C, H, W)."""
    n = len(query)
    queries, keys, values = (each.reshape(n, heads, each.shape[1] // heads, -1).mT for each in (query, key, value))
    means = F.scaled_dot_product_attention(queries, keys, values, scale=scale)
    return means.transpose(2, 3).reshape(n, -1, *query.shape[2:])


def first_pixel(x: Tensor) -> Tensor:
    """The first pixel of each image, as a row of numbers."""
    return x[:, :, 0, 0]


class OfTorchvision(nn.Module):
    """A module of torchvision's for images (N, C, H, W), into which a layer's arrays can't be put.

    Args:
        inner: the module.

    Attributes:
        why: why not.
    """

    why: ClassVar[str]

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


class Written(nn.Module):
    """A module of anyone's, for images (N, C, H, W): see `convlab_torch.models.written_out`."""

    def arrays_of(self, layer: layers.Attention) -> dict[str, Any]:
        """The arrays of a layer by the names that the module has for them."""
        raise NotImplementedError

    def layer(self) -> layers.Attention:
        """What it computes."""
        raise NotImplementedError


class CosineWindows(OfTorchvision):
    """Torchvision's `ShiftedWindowAttentionV2`, of images NHWC.

    Its position biases, computed by two dense layers of how far apart pixels are, are the same for each image.
    """

    why = "it computes its position biases by two dense layers, got a table of them"

    def forward(self, x: Tensor) -> Tensor:
        """The image, each pixel computed from those of its window."""
        y: Tensor = self.inner(x.movedim(1, -1))
        return y.movedim(-1, 1)


_SHIFTED = "torchvision.models.swin_transformer.ShiftedWindowAttention"
SHIFTED_WINDOWS = _SHIFTED, f"{_SHIFTED}V2"


def of_windows(attention: nn.Module) -> WindowAttention | CosineWindows:
    """The attention of windows of images NCHW with the parameters of torchvision's, of images NHWC."""
    given: Any = attention
    if hasattr(given, "logit_scale"):
        return CosineWindows(given).train(given.training)
    return shifted_windows(given, _two(given.shift_size), given.attention_dropout)


def shifted_windows(attention: Any, shift: Pair, rate: float) -> WindowAttention:
    """The attention of windows of images NCHW with the parameters of another one, which is told its shift."""
    given = attention
    other = WindowAttention(given.qkv.in_features, _two(given.window_size), given.num_heads, shift, rate)
    other.qkv, other.proj = given.qkv, given.proj
    other.relative_position_index = given.relative_position_index
    other.relative_position_bias_table = given.relative_position_bias_table
    return other.train(attention.training)


def of_pixels(attention: nn.MultiheadAttention) -> PixelAttention | None:
    """The attention of pixels with another's parameters; None if the other has more than that."""
    plain = attention.kdim == attention.vdim == attention.embed_dim and attention.bias_k is None
    if not plain or attention.add_zero_attn or not attention.batch_first:
        return None
    has_bias = attention.in_proj_bias is not None
    other = PixelAttention(attention.embed_dim, attention.num_heads, attention.dropout, has_bias)
    other.in_proj_weight, other.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
    other.out_proj = attention.out_proj
    return other.train(attention.training)


def arrays_of(native: nn.Module, layer: Layer) -> dict[str, Any] | None:
    """The arrays of a layer of this file by the names that a module has for them; None for another layer."""
    if isinstance(layer, layers.ClassToken):
        return {"token": layer.token}
    if isinstance(layer, layers.PositionEmbedding):
        return {"embedding": layer.embedding}
    if not isinstance(layer, layers.Attention):
        return None
    if isinstance(native, OfTorchvision):
        raise ModelError(
            f"{type(native.inner).__name__}: {native.why}.",
            hint="port the model to PyTorch, and give what that makes as the target.",
        )
    if isinstance(native, Written):
        return native.arrays_of(layer)
    before, behind = ("in_proj_", "out_proj.") if isinstance(native, PixelAttention) else ("qkv.", "proj.")
    arrays = {f"{before}weight": layer.kernel, f"{behind}weight": layer.out_kernel}
    if layer.biased:
        bias, out_bias = layer.biases()
        arrays |= {f"{before}bias": bias, f"{behind}bias": out_bias}
    if isinstance(layer, window_layers.WindowAttention):
        arrays |= {"relative_position_bias_table": layer.table}
        arrays |= {} if layer.scale is None else {"scale": layer.scale}
    return arrays


def _read(m: PixelAttention) -> Layer:
    return layers.Attention(**dense_of(m.in_proj_weight, m.in_proj_bias, m.out_proj), heads=m.num_heads, rate=m.dropout)


def _read_heads(m: HeadAttention) -> Layer:
    return layers.Attention(**dense_of(m.qkv.weight, m.qkv.bias, m.proj), heads=m.num_heads, rate=m.dropout)


def _read_windows(m: WindowAttention) -> Layer:
    return window_layers.WindowAttention(
        **dense_of(m.qkv.weight, m.qkv.bias, m.proj),
        heads=m.num_heads,
        rate=m.dropout,
        table=ops.to_numpy(m.relative_position_bias_table),
        window=m.window_size,
        shift=m.shift_size,
        scale=None if m.scale is None else ops.to_numpy(m.scale),
        grid=m.grid,
    )


def _read_cosines(m: CosineWindows) -> Layer:
    given: Any = m.inner
    with torch.no_grad():
        table = 16 * torch.sigmoid(given.cpb_mlp(given.relative_coords_table).view(-1, given.num_heads))
        scale = given.logit_scale.clamp(max=math.log(100.0)).exp().flatten()
    dense = dense_of(given.qkv.weight, given.qkv.bias, given.proj)
    if "bias" in dense:  # it sets that of the keys to zero, whatever it is
        parts = np.split(dense["bias"], 3)
        dense["bias"] = np.concatenate([parts[0], np.zeros_like(parts[1]), parts[2]])
    return window_layers.WindowAttention(
        **dense,
        heads=given.num_heads,
        rate=given.attention_dropout,
        table=ops.to_numpy(table),
        window=_two(given.window_size),
        shift=_two(given.shift_size),
        scale=ops.to_numpy(scale),
    )


def _two(sizes: Any) -> Pair:
    return pair("window", tuple(sizes), 0)


def dense_of(weight: Tensor, bias: Tensor | None, behind: nn.Linear) -> dict[str, Any]:
    """The arrays of the dense layers before and behind the mean of the values, and their dtype."""
    arrays = {"kernel": weight, "bias": bias, "out_kernel": behind.weight, "out_bias": behind.bias}
    known = {name: ops.to_numpy(array) for name, array in arrays.items() if array is not None}
    return {**known, "dtype": str(ops.dtype(weight))}


def gradients_of(native: nn.Module, slopes: Mapping[str, Tensor]) -> dict[str, Any]:
    """The gradients by the arrays of attention, from those by a module's parameters."""
    other = copy.deepcopy(native)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            parameter.copy_(slopes[name])
    layer: Any = other.layer() if isinstance(other, Written) else READERS[type(other)](other)
    return layers.gradients_read(layer)


# Those that keep the arrays of attention, not what computes them.
ATTENTION = (PixelAttention, HeadAttention, WindowAttention, Written)


READERS: dict[type[nn.Module], Callable[[Any], Layer]] = {
    PixelAttention: _read,
    WindowAttention: _read_windows,
    CosineWindows: _read_cosines,
    HeadAttention: _read_heads,
    ClassToken: lambda m: layers.ClassToken(ops.to_numpy(m.token), str(ops.dtype(m.token))),
    PositionEmbedding: lambda m: layers.PositionEmbedding(ops.to_numpy(m.embedding), str(ops.dtype(m.embedding))),
}
