"""Gluon blocks of images NCHW for attention: of pixels to one another, and what makes pixels tokens of a sequence."""

from __future__ import annotations

from typing import Any

from convlab.geometry.geometry import Pair
from convlab.models.layers.windows import SHORTEST, distances, relative_places, windows_of

from .blocks import OnBoth
from .image_blocks import OfImages
from .ops import mx


class PixelAttention(OfImages):
    """Multi-head self-attention of the pixels of each image, arXiv:1706.03762.

    Args:
        channels: of the images.
        heads: how many there are.
        rate: the share of the weights that training sets to 0.
        use_bias: whether the dense layers have biases.
        key_size: the channels of a head's queries and keys; without it, as many as make those of the image.
        value_size: those of its values.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        rate: float = 0.0,
        use_bias: bool = True,
        key_size: int | None = None,
        value_size: int | None = None,
        **names: Any,
    ) -> None:
        super().__init__(**names)
        self.channels, self.heads, self.rate, self.use_bias = channels, heads, rate, use_bias
        self.key_size = channels // heads if key_size is None else key_size
        self.value_size = channels // heads if value_size is None else value_size
        self.rows = heads * (2 * self.key_size + self.value_size)
        self.qkv_weight = self.params.get("qkv_weight", shape=(self.rows, channels))
        self.out_weight = self.params.get("out_weight", shape=(channels, heads * self.value_size))
        if use_bias:
            self.qkv_bias = self.params.get("qkv_bias", shape=(self.rows,), init="zeros")
            self.out_bias = self.params.get("out_bias", shape=(channels,), init="zeros")

    def computed(self, F: Any, x: Any, **parameters: Any) -> Any:
        """The image, each pixel computed from all."""
        pixels = F.transpose(F.reshape(x, shape=(0, 0, -1)), axes=(0, 2, 1))
        return F.reshape_like(F.transpose(self._attended(F, pixels, parameters), axes=(0, 2, 1)), x)

    def _compared(self, F: Any, queries: Any, keys: Any, parameters: dict[str, Any]) -> tuple[Any, Any]:
        """Queries and keys (N * windows * heads, pixels, channels of a head) whose products are the scores."""
        return queries * self.key_size**-0.5, keys

    def _attended(self, F: Any, pixels: Any, parameters: dict[str, Any], added: Any = None, windows: int = 1) -> Any:
        """The pixels (N * windows, pixels, channels); (1, windows * heads, pixels, pixels) is added to the scores."""
        rows, keys = self._dense(F, pixels, "qkv", parameters), self.heads * self.key_size
        parts = (F.slice_axis(rows, axis=2, begin=i, end=j) for i, j in ((0, keys), (keys, 2 * keys), (2 * keys, None)))
        queries, keys, values = (self._by_head(F, part) for part in parts)
        scores = F.batch_dot(*self._compared(F, queries, keys, parameters), transpose_b=True)
        if added is not None:
            together = F.reshape(scores, shape=(-1, windows * self.heads, 0, 0), reverse=True)
            scores = F.reshape(F.broadcast_add(together, added), shape=(-3, 0, 0))
        weights = F.Dropout(F.softmax(scores, axis=-1), p=self.rate)
        means = F.reshape(F.batch_dot(weights, values), shape=(-4, -1, self.heads, 0, 0))
        joined = F.reshape(F.transpose(means, axes=(0, 2, 1, 3)), shape=(0, 0, -3))
        return self._dense(F, joined, "out", parameters)

    def _by_head(self, F: Any, part: Any) -> Any:
        """Queries, keys or values as (N * windows * heads, pixels, channels of a head)."""
        heads = F.reshape(part, shape=(0, 0, self.heads, -1))
        return F.reshape(F.transpose(heads, axes=(0, 2, 1, 3)), shape=(-3, 0, 0))

    def _dense(self, F: Any, pixels: Any, name: str, parameters: dict[str, Any]) -> Any:
        arrays = [parameters[f"{name}_weight"], *([parameters[f"{name}_bias"]] if self.use_bias else [])]
        outputs = self.rows if name == "qkv" else self.channels
        return F.FullyConnected(pixels, *arrays, num_hidden=outputs, no_bias=not self.use_bias, flatten=False)


class WindowAttention(PixelAttention):
    """Attention of the pixels of each window to one another: Swin, arXiv:2103.14030, 2111.09883.

    Args:
        channels: of the images.
        heads: how many there are.
        window: its rows and columns; the image is padded with zeros to a multiple of them.
        shift: how far up and to the left the windows lie; pixels that only then share one don't meet.
        rate: the share of the weights that training sets to 0.
        use_bias: whether the dense layers have biases.
        size: the rows and columns of the images; without them it doesn't hybridize.
        cosine: whether the scores are the cosines of queries and keys, times a learned number for each head.
        grid: whether a window's pixels are spread evenly over the image (MaxViT, arXiv:2204.01697), unshifted.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        window: Pair,
        shift: Pair = (0, 0),
        rate: float = 0.0,
        use_bias: bool = True,
        size: Pair | None = None,
        cosine: bool = False,
        grid: bool = False,
        **names: Any,
    ) -> None:
        super().__init__(channels, heads, rate, use_bias, **names)
        self.window, self.shift, self.size, self.cosine, self.grid = window, shift, size, cosine, grid
        self.table = self.params.get("table", shape=(distances(window), heads), init="zeros")
        if cosine:
            self.scale = self.params.get("scale", shape=(heads,), init=mx.init.Constant(10.0))
        for name, array in (_constants(size, window, shift, grid) if size else {}).items():
            setattr(self, name, self.params.get_constant(name, array))

    def _compared(self, F: Any, queries: Any, keys: Any, parameters: dict[str, Any]) -> tuple[Any, Any]:
        if not self.cosine:
            return super()._compared(F, queries, keys, parameters)
        by_head = F.reshape(_directions(F, queries), shape=(-4, -1, self.heads, 0, 0))
        scaled = F.broadcast_mul(by_head, F.reshape(parameters["scale"], shape=(1, -1, 1, 1)))
        return F.reshape(scaled, shape=(-3, 0, 0)), _directions(F, keys)

    def computed(self, F: Any, x: Any, **parameters: Any) -> Any:
        """The image, each pixel computed from those of its window."""
        size = self.size if not hasattr(x, "shape") else x.shape[2:]
        if size is None:
            raise ValueError("its windows depend on the image's size: give it size=(rows, columns) to hybridize it.")
        windows = windows_of(tuple(size), self.window, self.shift, self.grid)
        constants = parameters
        if hasattr(x, "shape"):
            arrays = _constants(tuple(size), self.window, self.shift, self.grid)
            constants = {name: F.array(array, ctx=x.ctx, dtype=x.dtype) for name, array in arrays.items()}
        bottom, right = (padded - n for padded, n in zip(windows.padded, size, strict=True))
        count, inside = windows.places.shape
        padded = F.Pad(x, mode="constant", pad_width=(0, 0, 0, 0, 0, bottom, 0, right), constant_value=0)
        pixels = F.transpose(F.reshape(padded, shape=(0, 0, -1)), axes=(0, 2, 1))
        cut = F.take(pixels, constants["places"], axis=1)
        bias = F.transpose(F.take(parameters["table"], constants["relative"]), axes=(2, 0, 1))
        added = F.broadcast_add(F.expand_dims(bias, axis=0), F.expand_dims(constants["mask"], axis=1))
        added = F.expand_dims(F.reshape(added, shape=(-3, 0, 0)), axis=0)
        y = self._attended(F, F.reshape(cut, shape=(-3, 0, 0)), parameters, added, count)
        joined = F.take(F.reshape(y, shape=(-1, count * inside, self.channels)), constants["back"], axis=1)
        return F.reshape_like(F.transpose(joined, axes=(0, 2, 1)), x)


def _directions(F: Any, vectors: Any) -> Any:
    """Vectors divided by their lengths."""
    squares = F.sum(F.square(vectors), axis=-1, keepdims=True)
    return F.broadcast_mul(vectors, F.rsqrt(F.maximum(squares, SHORTEST**2)))


def _constants(size: Pair, window: Pair, shift: Pair, grid: bool) -> dict[str, Any]:
    """The arrays by which windows are cut out of images of a size, and joined."""
    windows = windows_of(size, window, shift, grid)
    arrays = {"places": windows.places, "back": windows.back, "mask": windows.mask}
    return {**arrays, "relative": relative_places(window)}


class ClassToken(OfImages):
    """The pixels of images, row by row, as one column, with a learned pixel before them.

    Args:
        channels: how many there are.
    """

    def __init__(self, channels: int, **names: Any) -> None:
        super().__init__(**names)
        self.token = self.params.get("token", shape=(channels,), init="zeros")

    def computed(self, F: Any, x: Any, token: Any) -> Any:
        """The images (N, C, 1 + H * W, 1)."""
        column = F.reshape(x, shape=(0, 0, -1, 1))
        first = F.zeros_like(F.slice_axis(column, axis=2, begin=0, end=1))
        return F.concat(F.broadcast_add(first, F.reshape(token, shape=(1, -1, 1, 1))), column, dim=2)


class PositionEmbedding(OfImages):
    """x + embedding, with a learned number for each channel of each pixel.

    Args:
        channels: how many there are.
        size: the rows and columns of the images that it takes, or of others with as many pixels.
    """

    def __init__(self, channels: int, size: Pair, **names: Any) -> None:
        super().__init__(**names)
        self.embedding = self.params.get("embedding", shape=(channels, *size), init="zeros")

    def computed(self, F: Any, x: Any, embedding: Any) -> Any:
        """The images, each with the same numbers added."""
        pixels = {"lhs_begin": 2, "lhs_end": 4, "rhs_begin": 2, "rhs_end": 4}
        return F.broadcast_add(x, F.reshape_like(F.expand_dims(embedding, axis=0), x, **pixels))


class DotProductAttention(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
    """The mean of the values of all pixels, for each pixel of the queries: of three images NCHW.

    Args:
        heads: how many there are; channels that follow one another form a head.
        scale: what products of queries and keys are multiplied by.
    """

    def __init__(self, heads: int, scale: float, **names: Any) -> None:
        super().__init__(**names)
        self.heads, self.scale = heads, scale

    def hybrid_forward(self, F: Any, *images: Any) -> Any:
        """The image, an array of the kind that came in."""
        if not mx.util.is_np_array():
            return self._attended(F, *images)
        return self._attended(F, *(each.as_nd_ndarray() for each in images)).as_np_ndarray()

    def _attended(self, F: Any, *images: Any) -> Any:
        parts = (F.reshape(each, shape=(0, -4, self.heads, -1, -2)) for each in images)
        queries, keys, values = (F.reshape(each, shape=(-3, 0, -1)) for each in parts)
        weights = F.softmax(F.batch_dot(queries, keys, transpose_a=True) * self.scale, axis=-1)
        means = F.batch_dot(values, weights, transpose_b=True)
        together = F.reshape(F.reshape(means, shape=(-4, -1, self.heads, 0, 0)), shape=(0, -3, 0))
        rows_and_columns = {"lhs_begin": 2, "lhs_end": 3, "rhs_begin": 2, "rhs_end": 4}
        return F.reshape_like(together, images[0], **rows_and_columns)


class FirstPixel(OfImages):
    """The first pixel of each image, as a row of numbers."""

    def computed(self, F: Any, x: Any) -> Any:
        """The rows."""
        return F.flatten(F.slice_axis(F.slice_axis(x, axis=2, begin=0, end=1), axis=3, begin=0, end=1))
