"""Gluon blocks of images NCHW that gluon hasn't got: a norm by groups, and what moves pixels and channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from convlab.geometry.geometry import Pair
from convlab.models.layers.spatial import Ends, Size

from .blocks import OnBoth
from .ops import mx


class OfImages(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
    """A block that computes with operators of `mx.nd`, also on arrays of `mx.np`."""

    # The result, by operators of `mx.nd` or of `mx.sym`, of the image and the parameters by name.
    computed: Callable[..., Any]

    def hybrid_forward(self, F: Any, x: Any, **parameters: Any) -> Any:
        """The result, an array of the kind that came in."""
        if not mx.util.is_np_array():
            return self.computed(F, x, **parameters)
        plain = {name: parameter.as_nd_ndarray() for name, parameter in parameters.items()}
        return self.computed(F, x.as_nd_ndarray(), **plain).as_np_ndarray()


class ChannelAffine(OfImages):
    """x * gamma + beta, with one number of each for each channel.

    Args:
        channels: how many there are; 1 for one number for all.
        scale, shift: whether there is a gamma, and whether there is a beta.
        trained: whether training changes them.
    """

    def __init__(
        self, channels: int, scale: bool = True, shift: bool = True, trained: bool = True, **names: Any
    ) -> None:
        super().__init__(**names)
        self.trained, request = trained, "write" if trained else "null"
        for name, has in (("gamma", scale), ("beta", shift)):
            if has:
                setattr(self, name, self.params.get(name, shape=(channels,), grad_req=request, init="zeros"))

    def computed(self, F: Any, x: Any, **parameters: Any) -> Any:
        """The image with its channels scaled and shifted."""
        columns = {name: F.reshape(numbers, shape=(1, -1, 1)) for name, numbers in parameters.items()}
        y = F.reshape(x, shape=(0, 0, -1))
        y = F.broadcast_mul(y, columns["gamma"]) if "gamma" in columns else y
        return F.reshape_like(F.broadcast_add(y, columns["beta"]) if "beta" in columns else y, x)


class GroupNorm(OfImages):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta; gluon's own has one gamma for each group, not each channel.

    Args:
        groups: of the channels, each of which has its statistics.
        channels: how many there are.
        epsilon: what is added to the variance.
    """

    def __init__(self, groups: int, channels: int, epsilon: float = 1e-5, **names: Any) -> None:
        super().__init__(**names)
        self.groups, self.channels, self.epsilon = groups, channels, epsilon
        self.gamma = self.params.get("gamma", shape=(channels,), init="ones")
        self.beta = self.params.get("beta", shape=(channels,), init="zeros")

    def computed(self, F: Any, x: Any, gamma: Any, beta: Any) -> Any:
        """The image, normalised."""
        grouped = F.reshape(x, shape=(0, self.groups, -1))
        centred = F.broadcast_sub(grouped, F.mean(grouped, axis=2, keepdims=True))
        variance = F.mean(F.square(centred), axis=2, keepdims=True)
        y = F.broadcast_div(centred, F.sqrt(variance + self.epsilon))
        y = F.reshape(y, shape=(0, self.channels, -1))
        scale, shift = (F.reshape(numbers, shape=(1, -1, 1)) for numbers in (gamma, beta))
        return F.reshape_like(F.broadcast_add(F.broadcast_mul(y, scale), shift), x)


class RMSNorm(OfImages):
    """x / sqrt(mean(x ** 2) + epsilon) * gamma, with the mean of the channels of each pixel.

    Args:
        channels: how many there are.
        epsilon: what is added to the mean.
    """

    def __init__(self, channels: int, epsilon: float = 1e-6, **names: Any) -> None:
        super().__init__(**names)
        self.channels, self.epsilon = channels, epsilon
        self.gamma = self.params.get("gamma", shape=(channels,), init="ones")

    def computed(self, F: Any, x: Any, gamma: Any) -> Any:
        """The image, normalised."""
        root = F.sqrt(F.mean(F.square(x), axis=1, keepdims=True) + self.epsilon)
        flat = F.reshape(F.broadcast_div(x, root), shape=(0, self.channels, -1))
        return F.reshape_like(F.broadcast_mul(flat, F.reshape(gamma, shape=(1, -1, 1))), x)


class Crop(OfImages):
    """The image without some rows and columns.

    Args:
        pads: how many, ((top, bottom), (left, right)), or as many pairs as there are axes.
    """

    def __init__(self, pads: Ends, **names: Any) -> None:
        super().__init__(**names)
        self.pads = pads

    def computed(self, F: Any, x: Any) -> Any:
        """What is left of the image."""
        for axis, (start, end) in enumerate(self.pads, 2):
            x = F.slice_axis(x, axis=axis, begin=start, end=-end or None)
        return x


class ChannelPool(OfImages):
    """The greatest channel, or the mean or the sum of all, of each pixel.

    Args:
        function: "max", "average" or "sum".
    """

    def __init__(self, function: str, **names: Any) -> None:
        super().__init__(**names)
        self.function = function

    def computed(self, F: Any, x: Any) -> Any:
        """The image of one channel."""
        reduce = {"max": F.max, "average": F.mean, "sum": F.sum}[self.function]
        return reduce(x, axis=1, keepdims=True)


class AdaptiveAveragePool(OfImages):
    """The means of so many windows of an image, which lie evenly and may overlap, as in PyTorch.

    Args:
        size: how many windows the rows and the columns have.
    """

    def __init__(self, size: Pair, **names: Any) -> None:
        super().__init__(**names)
        self.size = size

    def computed(self, F: Any, x: Any) -> Any:
        """The image of that size."""
        return F.contrib.AdaptiveAvgPooling2D(x, output_size=self.size)


class GlobalSum(OfImages):
    """The sum of each channel, as an image of one pixel.

    Args:
        rank: how many axes the images have beside those of images and channels.
    """

    def __init__(self, rank: int = 2, **names: Any) -> None:
        super().__init__(**names)
        self.rank = rank

    def computed(self, F: Any, x: Any) -> Any:
        """The sums."""
        return F.sum(x, axis=tuple(range(2, self.rank + 2)), keepdims=True)


class Subsample(OfImages):
    """Some of the image's rows and columns: the first, and then each so many further on.

    Args:
        start: the first row and column.
        step: how far the next ones are.
    """

    def __init__(self, start: Pair, step: Pair, **names: Any) -> None:
        super().__init__(**names)
        self.start, self.step = start, step

    def computed(self, F: Any, x: Any) -> Any:
        """These rows and columns."""
        none = (None, None)
        return F.slice(x, begin=(*none, *self.start), end=none * 2, step=(*none, *self.step))


class Upsample(OfImages):
    """The image with so many times as many rows and columns.

    Args:
        factor: of the rows and of the columns, or of as many axes as there are.
        method: "nearest", or "bilinear" on each axis.
        align_corners: whether the corners of both images meet.
    """

    def __init__(self, factor: Size, method: str, align_corners: bool = False, **names: Any) -> None:
        super().__init__(**names)
        self.factor, self.method, self.align_corners = factor, method, align_corners

    def computed(self, F: Any, x: Any) -> Any:
        """The larger image."""
        if self.method == "nearest":
            for axis, times in enumerate(self.factor, 2):
                x = F.repeat(x, repeats=times, axis=axis)
            return x
        if len(self.factor) == 1:  # a sequence is an image of one row
            return F.squeeze(self._larger(F, F.expand_dims(x, axis=2), 1, *self.factor), axis=2)
        if len(self.factor) == 2:
            return self._larger(F, x, *self.factor)
        depth, *size = self.factor
        rows = self._larger(F, F.reshape(x, shape=(0, 0, 0, -1)), depth, 1)
        deep = F.reshape_like(rows, x, lhs_begin=3, lhs_end=4, rhs_begin=3, rhs_end=5)
        slices = self._larger(F, F.reshape(deep, shape=(0, -3, -2)), *size)
        return F.reshape_like(slices, deep, lhs_begin=1, lhs_end=2, rhs_begin=1, rhs_end=3)

    def _larger(self, F: Any, x: Any, down: int, across: int) -> Any:
        return F.contrib.BilinearResize2D(x, scale_height=down, scale_width=across, align_corners=self.align_corners)


class Resize(OfImages):
    """The image with so many rows and columns, by bilinear interpolation.

    Args:
        size: how many.
        align_corners: whether the corners of both images meet.
    """

    def __init__(self, size: Pair, align_corners: bool = False, **names: Any) -> None:
        super().__init__(**names)
        self.size, self.align_corners = size, align_corners

    def computed(self, F: Any, x: Any) -> Any:
        """The image of that size."""
        height, width = self.size
        return F.contrib.BilinearResize2D(x, height=height, width=width, align_corners=self.align_corners)


class ResizeLike(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
    """The first of two images with the rows and columns of the second, by bilinear interpolation.

    Args:
        align_corners: whether the corners of both images meet.
    """

    def __init__(self, align_corners: bool = False, **names: Any) -> None:
        super().__init__(**names)
        self.align_corners = align_corners

    def hybrid_forward(self, F: Any, x: Any, like: Any) -> Any:
        """The image of that size."""
        options = {"mode": "like", "align_corners": self.align_corners}
        if not mx.util.is_np_array():
            return F.contrib.BilinearResize2D(x, like, **options)
        return F.contrib.BilinearResize2D(x.as_nd_ndarray(), like.as_nd_ndarray(), **options).as_np_ndarray()


class Chunk(OfImages):
    """One of some equal parts of the channels.

    Args:
        index: which part, from 0.
        count: how many there are.
    """

    def __init__(self, index: int, count: int, **names: Any) -> None:
        super().__init__(**names)
        self.index, self.count = index, count

    def computed(self, F: Any, x: Any) -> Any:
        """These channels."""
        return F.split(x, num_outputs=self.count, axis=1)[self.index] if self.count > 1 else x


class ChannelSlice(OfImages):
    """Some of the channels that follow one another.

    Args:
        start: the first.
        stop: the one behind the last; 0 for all up to the last.
    """

    def __init__(self, start: int, stop: int = 0, **names: Any) -> None:
        super().__init__(**names)
        self.start, self.stop = start, stop

    def computed(self, F: Any, x: Any) -> Any:
        """These channels."""
        return F.slice_axis(x, axis=1, begin=self.start, end=self.stop or None)


class ChannelShuffle(OfImages):
    """The first channel of each group, then the second of each, and so on.

    Args:
        groups: how many groups there are.
    """

    def __init__(self, groups: int, **names: Any) -> None:
        super().__init__(**names)
        self.groups = groups

    def computed(self, F: Any, x: Any) -> Any:
        """The channels in another order."""
        grouped = F.reshape(x, shape=(0, -4, self.groups, -1, -2))
        return F.reshape(F.swapaxes(grouped, 1, 2), shape=(0, -3, -2))


class PixelShuffle(OfImages):
    """The channels of each pixel as a square of pixels; gluon.contrib's has PyTorch's order alone.

    Args:
        factor: the rows and columns of the square.
        channels_last: whether the channels of the result come last, as in TensorFlow.
    """

    def __init__(self, factor: int, channels_last: bool = False, **names: Any) -> None:
        super().__init__(**names)
        self.factor, self.channels_last = factor, channels_last

    def computed(self, F: Any, x: Any) -> Any:
        """The larger image."""
        r = self.factor
        if self.channels_last:
            squares = F.reshape(F.reshape(x, shape=(0, -4, r * r, -1, 0, 0)), shape=(0, -4, r, r, 0, 0, 0))
            squares = F.transpose(squares, axes=(0, 3, 4, 1, 5, 2))
        else:
            squares = F.reshape(F.reshape(x, shape=(0, -4, -1, r * r, 0, 0)), shape=(0, 0, -4, r, r, 0, 0))
            squares = F.transpose(squares, axes=(0, 1, 4, 2, 5, 3))
        return F.reshape(squares, shape=(0, 0, -3, -3))


class FlattenPixels(OfImages):
    """Images as rows of numbers, pixel by pixel; gluon's own `Flatten` goes channel by channel."""

    def computed(self, F: Any, x: Any) -> Any:
        """The rows."""
        return F.flatten(F.transpose(F.reshape(x, shape=(0, 0, -1)), axes=(0, 2, 1)))
