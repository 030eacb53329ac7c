"""The classes of the layers that convlab's own file of a model may have."""

from __future__ import annotations

from ..layers.across_channels import GatedLinearUnit, LocalResponseNorm, PartsSoftmax
from ..layers.activations import Activation, Affine, Clip, PReLU, Softmax
from ..layers.attention import Attention, ClassToken, FirstPixel, PositionEmbedding
from ..layers.channels import ChannelShuffle, ChannelSlice, Chunk, PixelShuffle, PixelUnshuffle
from ..layers.dot_product import DotProductAttention
from ..layers.flattening import Flatten, Unflatten
from ..layers.folded import Convolution1D, Convolution3D
from ..layers.joining import Add, BroadcastLike, Concatenate, Divide, Maximum, Minimum, Multiply, Subtract
from ..layers.layer import BatchNorm, Convolution, Dense, Dropout, Layer, Pad
from ..layers.norms import ChannelAffine, GroupNorm, LayerNorm, RMSNorm
from ..layers.outputs import Outputs
from ..layers.pixels import Crop, Subsample, Upsample
from ..layers.pooling import AdaptivePool, ChannelPool, GlobalPool, Pool
from ..layers.resizing import Resize, ResizeLike
from ..layers.tokens import Anchors, ConcatenatePixels, Tokens
from ..layers.transposed import TRANSPOSED
from ..layers.windows import WindowAttention

_SIMPLE = (
    Convolution,
    Convolution1D,
    Convolution3D,
    Pad,
    Activation,
    Affine,
    Clip,
    Softmax,
    Pool,
    GlobalPool,
    AdaptivePool,
    ChannelPool,
    Dropout,
    Flatten,
    Dense,
)
_NORMS = (BatchNorm, GroupNorm, LayerNorm, RMSNorm, ChannelAffine, LocalResponseNorm, PartsSoftmax, GatedLinearUnit)
_MOVING = (Chunk, ChannelSlice, ChannelShuffle, PixelShuffle, PixelUnshuffle, Crop, Upsample, Resize, Unflatten)
_BOXES = (Anchors, ConcatenatePixels, Tokens)
_ARITHMETIC = (Add, Subtract, Multiply, Divide, Maximum, Minimum)
_JOINING = (*_ARITHMETIC, Concatenate, BroadcastLike, ResizeLike, Outputs, DotProductAttention)
_ATTENTION = (Attention, WindowAttention, ClassToken, PositionEmbedding, FirstPixel, Subsample)
_CLASSES = (*_ATTENTION, *_SIMPLE, PReLU, *_NORMS, *TRANSPOSED, *_MOVING, *_JOINING, *_BOXES)
KINDS: dict[str, type[Layer]] = {layer.kind: layer for layer in _CLASSES}
