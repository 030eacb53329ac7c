"""TensorFlow's own convolution of NHWC images, around the faults of its CPU kernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import tensorflow as tf

from convlab.geometry.geometry import NO_PADDING, Geometry, Pair


def convolve(x: Any, kernel: Any, geometry: Geometry) -> Any:
    """The cross-correlation of x (N, H, W, C) with a kernel HWIO, with zeros around x, and with gradients."""
    height, width = x.shape[1:3]
    if height is None or width is None:
        return _unknown_size(x, kernel, geometry)
    return fitted(geometry, (height, width))(x, kernel)


class _Fitted:
    """A convolution of NHWC images of one size, around two faults of TensorFlow's CPU kernels.

    The kernel's gradient writes beyond its memory if a stride leaves rows or columns over: they are cut off before, of
    the border or of the image. The other fault is that of `idle_strides`: an axis with a single result gets stride 1.
    """

    def __init__(self, geometry: Geometry, size: Pair) -> None:
        results = geometry.output_size(size)
        down, right = (1 if n == 1 else s for n, s in zip(results, geometry.stride, strict=True))
        used = [(n - 1) * s + e for n, s, e in zip(results, (down, right), geometry.extent, strict=True)]
        self.used = None if used == [n + sum(pads) for n, pads in zip(size, geometry.padding, strict=True)] else used
        self.padding, self.geometry = geometry.padding, geometry._replace(padding=NO_PADDING, stride=(down, right))
        # Where the image ends, and the border after it.
        ends = [min(n, u - before) for n, u, (before, _) in zip(size, used, geometry.padding, strict=True)]
        borders = [(before, u - before - n) for n, u, (before, _) in zip(ends, used, geometry.padding, strict=True)]
        self.within = min(ends) >= 1
        self.ends = None if tuple(ends) == size else ends
        self.options: dict[str, Any] = {"strides": (1, down, right, 1), "padding": "EXPLICIT"}
        if borders == [(0, 0), (0, 0)]:
            self.options["padding"] = "VALID"
        elif borders == [_same(*axis) for axis in zip(ends, (down, right), geometry.extent, strict=True)]:
            # The gradients are faster for a border that has a name.
            self.options["padding"] = "SAME"
        else:
            self.options["explicit_paddings"] = (0, 0, *borders[0], *borders[1], 0, 0)

    def __call__(self, x: Any, kernel: Any) -> Any:
        geometry = self.geometry
        depthwise = kernel.shape[2] == 1 and geometry.groups == x.shape[3] and geometry.stride[0] == geometry.stride[1]
        if not self.within or geometry.dilation != (1, 1) or (geometry.groups > 1 and not depthwise):
            padded = tf.pad(x, ((0, 0), *self.padding, (0, 0))) if self.padding != NO_PADDING else x
            return _general(_cut(padded, self.used), kernel, geometry)
        x = _cut(x, self.ends)
        if geometry.groups == 1:
            return tf.raw_ops.Conv2D(input=x, filter=kernel, **self.options)
        return tf.raw_ops.DepthwiseConv2dNative(input=x, filter=_by_channel(kernel, geometry.groups), **self.options)


def _cut(x: Any, size: Sequence[int] | None) -> Any:
    return x if size is None else x[:, : size[0], : size[1]]


def _same(size: int, stride: int, extent: int) -> Pair:
    """The border of TensorFlow's padding "SAME" on an axis."""
    total = max((-(-size // stride) - 1) * stride + extent - size, 0)
    return total // 2, total - total // 2


@lru_cache(1024)
def fitted(geometry: Geometry, size: Pair) -> _Fitted:
    """The convolution of images of a size, as a function of images and kernel."""
    return _Fitted(geometry, size)


def _by_channel(kernel: Any, groups: int) -> Any:
    """A depthwise kernel HWIO as HWC and outputs of each channel."""
    h, w, _, outputs = kernel.shape
    return reshaped(kernel, (h, w, groups, outputs // groups))


def reshaped(x: Any, shape: tuple[int, ...]) -> Any:
    """The tensor in another shape; eagerly, making a tensor of the shape would take longer than the rest."""
    return tf.raw_ops.Reshape(tensor=x, shape=_eager_shape(shape) if tf.executing_eagerly() else shape)


@lru_cache(4096)
def _eager_shape(shape: tuple[int, ...]) -> Any:
    return tf.constant(shape, tf.int32)


def _unknown_size(x: Any, kernel: Any, geometry: Geometry) -> Any:
    """A convolution of NHWC images whose size isn't known, around the faults that `_Fitted` names."""
    if geometry.stride == geometry.dilation == (1, 1) and geometry.groups == 1:
        return tf.nn.conv2d(x, kernel, 1, ((0, 0), *geometry.padding, (0, 0)))
    if geometry.padding != NO_PADDING:
        x, geometry = tf.pad(x, ((0, 0), *geometry.padding, (0, 0))), geometry._replace(padding=NO_PADDING)
    if x.shape[2] is None and kernel.shape[2] == geometry.stride[0] == 1 < geometry.stride[1]:
        # Which stride is idle isn't known: the columns are taken from the result.
        y = _unknown_size(x, kernel, geometry._replace(stride=(1, 1)))
        return y[:, :, :: geometry.stride[1]]
    if geometry.stride != (1, 1):
        used = zip(tf.unstack(tf.shape(x)[1:3]), geometry.extent, geometry.stride, strict=True)
        rows, columns = ((n - extent) // s * s + extent for n, extent, s in used)
        x = x[:, :rows, :columns]
    return _general(x, kernel, geometry)


def _general(x: Any, kernel: Any, geometry: Geometry) -> Any:
    """A convolution without padding that uses all of x.

    For groups and dilation TensorFlow's CPU has a forward kernel and, for most dtypes, no gradient.
    """
    (sh, sw), dense = geometry.stride, geometry.dilation == (1, 1)
    if geometry.groups == 1 and dense:
        return tf.nn.conv2d(x, kernel, geometry.stride, "VALID")
    if kernel.shape[2] == 1 and geometry.groups == x.shape[3] and sh == sw and dense:
        return tf.nn.depthwise_conv2d(x, _by_channel(kernel, geometry.groups), (1, sh, sw, 1), "VALID")

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def conv(x: Any, kernel: Any) -> Any:
        y = tf.nn.conv2d(x, kernel, geometry.stride, "VALID", dilations=geometry.dilation)

        def gradient(dy: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch((x, kernel))
                plain = _ungrouped(x, kernel, geometry)
            return tape.gradient(plain, (x, kernel), output_gradients=dy)

        return y, gradient

    return conv(x, kernel)


def _ungrouped(x: Any, kernel: Any, geometry: Geometry) -> Any:
    """The convolution of `_general` by plain ones: one for each group, with zeros between the kernel's elements."""
    plain = Geometry(geometry.extent, geometry.stride, data_format="NHWC")
    return tf.concat(
        [convolve(*pair, plain) for pair in _by_group(x, _spread(kernel, geometry), geometry.groups)], axis=3
    )


def _by_group(x: Any, kernel: Any, groups: int) -> Iterator[tuple[Any, Any]]:
    """The channels of x and the kernel's outputs for each group."""
    return zip(tf.split(x, groups, axis=3), tf.split(kernel, groups, axis=3), strict=True)


def _spread(kernel: Any, geometry: Geometry) -> Any:
    """The kernel with the zeros of its dilation written out."""
    (dh, dw), (h, w) = geometry.dilation, geometry.extent
    if geometry.dilation == (1, 1):
        return kernel
    kh, kw, inputs, outputs = kernel.shape
    spread = tf.pad(
        tf.reshape(kernel, (kh, 1, kw, 1, inputs, outputs)),
        ((0, 0), (0, dh - 1), (0, 0), (0, dw - 1), (0, 0), (0, 0)),
    )
    return tf.reshape(spread, (kh * dh, kw * dw, inputs, outputs))[:h, :w]


def convolve_transposed(y: Any, kernel: Any, geometry: Geometry, output_padding: Pair) -> Any:
    """The transpose of `convolve` for y (N, H, W, O) and a kernel HWIO, of images of the size that `Geometry` says.

    The whole result is computed, and the padding cut off: so no gradient meets rows that a stride leaves over, which
    TensorFlow's CPU kernels get wrong, nor a dilation, for which they have none.
    """
    down, right = (1 if n == 1 else s for n, s in zip(y.shape[1:3], geometry.stride, strict=True))
    whole = geometry._replace(kernel_size=geometry.extent, stride=(down, right), padding=NO_PADDING, dilation=(1, 1))
    kernel = _spread(kernel, geometry)
    depthwise = kernel.shape[2] == 1 and geometry.groups == y.shape[3] and down == right
    if geometry.groups == 1 or depthwise:
        x = _whole_transposed(y, kernel, whole)
    else:
        single = whole._replace(groups=1)
        x = tf.concat([_whole_transposed(*pair, single) for pair in _by_group(y, kernel, geometry.groups)], axis=3)
    widths = [[0, 0], [0, 0]]
    cuts = []
    for axis, ((before, after), more) in enumerate(zip(geometry.padding, output_padding, strict=True)):
        widths[axis][1] = max(more - after, 0)
        cuts.append(slice(before, min(more - after, 0) or None))
    if widths != [[0, 0], [0, 0]]:
        x = tf.pad(x, ((0, 0), *widths, (0, 0)))
    return x if cuts == [slice(0, None)] * 2 else x[:, cuts[0], cuts[1]]


def _whole_transposed(y: Any, kernel: Any, geometry: Geometry) -> Any:
    """The transpose of `convolve` without padding and dilation, by one operator of TensorFlow."""
    channels = kernel.shape[2] * geometry.groups
    known = None not in y.shape
    n, height, width = y.shape[:3] if known else tf.unstack(tf.shape(y)[:3])
    shape = (n, *geometry.transposed_size((height, width)), channels)
    options = {"strides": (1, *geometry.stride, 1), "padding": "VALID", "out_backprop": y}
    sizes = _eager_shape(shape) if known and tf.executing_eagerly() else tf.stack(shape)
    if geometry.groups == 1:
        return tf.raw_ops.Conv2DBackpropInput(input_sizes=sizes, filter=kernel, **options)
    kernel = _by_channel(kernel, geometry.groups)
    return tf.raw_ops.DepthwiseConv2dNativeBackpropInput(input_sizes=sizes, filter=kernel, **options)
