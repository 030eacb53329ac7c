"""For how many axes a model is: of sequences 1, of images 2, of volumes 3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .across_channels import LocalResponseNorm
from .attention import Attention, ClassToken, FirstPixel, PositionEmbedding
from .channels import PixelShuffle, PixelUnshuffle
from .dot_product import DotProductAttention
from .flattening import Unflatten
from .folded import convolution
from .layer import Convolution, Layer, OfAnyRank, Pad
from .pixels import Crop, Subsample, Upsample
from .pooling import AdaptivePool, GlobalPool, Pool
from .resizing import Resize, ResizeLike
from .spatial import is_padded, padding_in
from .tokens import Anchors, ConcatenatePixels, Tokens
from .transposed import TransposedConvolution

_OF_IMAGES = (
    Resize,
    ResizeLike,
    Subsample,
    PixelShuffle,
    PixelUnshuffle,
    LocalResponseNorm,
    Anchors,
    ConcatenatePixels,
    Tokens,
    Attention,
    ClassToken,
    PositionEmbedding,
    FirstPixel,
    DotProductAttention,
)


# Those that know no rows and columns.
_OF_PIXELS = (Attention, ClassToken, PositionEmbedding, FirstPixel, DotProductAttention)


def own_rank(layer: Layer | None) -> int:
    """How many axes the images of a layer must have, beside those of images and channels; 0 if any number will do.

    >>> own_rank(Pad(((0, 1),))), own_rank(Upsample((2, 2), "nearest")), own_rank(None)
    (1, 2, 0)
    """
    if isinstance(layer, Convolution):
        return len(layer.spec.kernel_size)
    if isinstance(layer, TransposedConvolution):
        return len(layer.stride)
    if isinstance(layer, (Pad, Crop)):
        return len(layer.pads)
    if isinstance(layer, (Pool, AdaptivePool, Unflatten)):
        return len(layer.size)
    if isinstance(layer, Upsample):
        return len(layer.factor)
    if isinstance(layer, GlobalPool):
        return layer.rank
    return 2 if isinstance(layer, _OF_IMAGES) else 0


def layer_of_tokens(layer: Layer) -> Layer | None:
    """What a layer of the tokens of a sequence computes of the pixels of images; None where it depends on their order.

    >>> layer_of_tokens(GlobalPool("average", rank=1))
    GlobalPool(rank=2, function='average', keepdims=True)
    >>> layer_of_tokens(Pool("max", (2,), (2,))) is None
    True
    """
    if isinstance(layer, Convolution):
        spec = layer.spec
        alone = max(*spec.kernel_size, *spec.stride) == 1 and not is_padded(padding_in(spec, spec.kernel_size))
        if not alone:
            return None
        kernel = layer.kernel.reshape(*layer.kernel.shape[:2], 1, 1)
        return convolution(kernel, layer.bias, str(spec.dtype), spec.groups)
    if isinstance(layer, (GlobalPool, OfAnyRank)):
        return replace(layer, rank=2)
    return layer if own_rank(layer) == 0 or type(layer) in _OF_PIXELS else None


def rank_of(layers: Sequence[Layer | None]) -> int:
    """How many axes the images of a model have: what its layers say, 2 where none does."""
    either = [layer.rank for layer in layers if isinstance(layer, OfAnyRank) and layer.rank not in (0, 2)]
    return next(iter([*filter(None, map(own_rank, layers)), *either]), 2)
