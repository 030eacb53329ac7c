"""What a layer computes, independently of a framework.

Arrays are NCHW and kernels OIHW, whatever the framework's layout. Each layer knows its `reference`, in float64 by the
definition, and how far a framework that computes in a given dtype may be from it (`error`). The bounds of convolutions
are those of `convlab.truth.bounds`; those of the other layers count their roundings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from ...contract.layer import LayerSpec
from ...dtypes import SIGNIFICAND
from ...errors import UnsupportedError
from ...geometry.options import GEOMETRY_OPTIONS, GeometryOptions
from ...truth.bounds import error_bound, gradient_bounds
from ...truth.oracle import oracle, oracle_gradients
from .slopes import Slopes, affine_slopes
from .spatial import Ends, Size, Spec, fixed_padding, hwio, is_padded, window

LOWEST = "lowest"
# Of a dense layer that are computed with at once, in float64.
_MOST_WEIGHTS = 2**22


class Layer:
    """One step of a model. Subclasses are frozen dataclasses, whose fields are all that it depends on.

    Attributes:
        kind: its name in files and reports.
        arrays: the fields that are arrays (or None), in the order that files have.
    """

    kind: ClassVar[str]
    arrays: ClassVar[tuple[str, ...]] = ()

    def reference(self, x: np.ndarray, /) -> np.ndarray:
        """The result for x, in float64."""
        raise NotImplementedError

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str, /) -> np.ndarray:
        """How far from `reference(x)` the result in `dtype` may be, if its input is off by up to `off`."""
        raise NotImplementedError

    def gradients(self, x: np.ndarray, dy: np.ndarray, dtype: str, /) -> tuple[Slopes, Slopes]:
        """The gradients of sum(dy * reference(x)) by x and by `arrays`, and how far `dtype` may be from them."""
        raise NotImplementedError

    @property
    def has_gradients(self) -> bool:
        """Whether its `gradients` are known, and can be computed."""
        return type(self).gradients is not Layer.gradients

    @property
    def input_channels(self) -> int:
        """How many channels, or numbers in a row, it takes; 0 if any number will do."""
        arrays = (getattr(self, name) for name in self.arrays)
        return next((len(array) for array in arrays if array is not None), 0)

    def output_size(self, size: Size) -> Size:
        """The rows and columns of the result for an image of a size."""
        return size

    def output_channels(self, channels: int) -> int:
        """The channels of the result for an image of so many; 0 where they aren't known."""
        return channels


@dataclass(frozen=True, eq=False)
class Convolution(Layer):
    """`corr2d` with a kernel and a bias.

    Attributes:
        spec: its options, with both numbers of channels and a dtype; its data_format is NCHW.
        kernel: OIHW; values of bfloat16 are held in float32, which is exact.
        bias: one number for each output channel, or None.

    A padding's name stays only where it depends on the image's size.
    """

    kind = "conv2d"
    arrays = ("kernel", "bias")

    spec: LayerSpec
    kernel: np.ndarray
    bias: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "spec", replace(self.spec, padding=fixed_padding(self.spec)))

    @classmethod
    def of(
        cls, kernel: np.ndarray, bias: np.ndarray | None, dtype: str, groups: int = 1, **options: Any
    ) -> Convolution:
        """The convolution of an OIHW kernel and corr2d's options."""
        outputs, per_group, *size = kernel.shape
        spec = window(
            size,
            in_channels=per_group * groups,
            out_channels=outputs,
            groups=groups,
            use_bias=bias is not None,
            dtype=dtype,
            **options,
        )
        return cls(spec, kernel, bias)  # type: ignore[arg-type]  # that of two axes

    @classmethod
    def ours(cls, spec: LayerSpec, weight: np.ndarray, bias: np.ndarray | None, dtype: str) -> Convolution:
        """The convolution that a `Conv2D` of convlab's computes; `ours_for` is the way back."""
        last = weight.ndim == 4 and spec.data_format == "NHWC"
        kernel = weight.transpose(3, 2, 0, 1) if last else weight.reshape((1,) * (4 - weight.ndim) + weight.shape)
        options = {name: getattr(spec, name) for name in GEOMETRY_OPTIONS if name != "data_format"}
        return cls.of(kernel, bias, dtype, **options)

    def ours_for(self, data_format: str) -> tuple[dict[str, Any], np.ndarray]:
        """The arguments of a `Conv2D` of convlab's that computes this, and its weight."""
        options = replace(self.spec, data_format=data_format).config()
        return options, hwio(self.kernel) if data_format == "NHWC" else self.kernel

    @property
    def depthwise(self) -> bool:
        """Whether each channel has kernels of its own."""
        return self.spec.groups == self.spec.in_channels and self.spec.groups > 1

    @property
    def input_channels(self) -> int:
        """See `Layer.input_channels`."""
        return int(self.kernel.shape[1]) * int(self.spec.groups)

    def output_channels(self, channels: int) -> int:
        """See `Layer.output_channels`."""
        return len(self.kernel)

    def output_size(self, size: Size) -> Size:
        """See `Layer.output_size`."""
        _, _, *after = self.spec.output_shape((1, self.spec.in_channels, *size))
        return tuple(after)  # type: ignore[arg-type]

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return oracle(x, self.kernel, bias=self.bias, **self.spec.geometry)

    def gradients(self, x: np.ndarray, dy: np.ndarray, dtype: str) -> tuple[Slopes, Slopes]:
        """See `Layer.gradients`."""
        geometry = self.spec.geometry
        true = oracle_gradients(x, self.kernel, dy, **geometry)
        return true._asdict(), gradient_bounds(x, self.kernel, dy, dtype, **geometry)._asdict()

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`: Higham's bound for sums of products of numbers as large as |x| + off."""
        geometry = self.spec.geometry
        rounding = error_bound(np.abs(x) + off, self.kernel, bias=self.bias, dtype=dtype, **geometry)
        # The border's value has no error.
        spread: GeometryOptions = {**geometry, "padding_value": 0.0}
        return rounding + (oracle(off, np.abs(self.kernel), **spread) if off.any() else 0.0)


@dataclass(frozen=True, eq=False)
class Pad(Layer):
    """A border round the image.

    Attributes:
        pads: ((top, bottom), (left, right)), or as many pairs as there are axes.
        mode: corr2d's padding_mode; or "lowest", a border of -inf, which no maximum takes.
        value: corr2d's padding_value.
    """

    kind = "pad"

    pads: Ends
    mode: str = "zeros"
    value: float = 0.0

    @classmethod
    def before(cls, spec: Spec) -> Pad:
        """The border of a convolution whose padding is in integers."""
        assert not isinstance(spec.padding, str)
        return cls(spec.padding, spec.padding_mode, spec.padding_value)

    def output_size(self, size: Size) -> Size:
        """See `Layer.output_size`."""
        return tuple(n + sum(ends) for n, ends in zip(size, self.pads, strict=True))

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        widths = ((0, 0), (0, 0), *self.pads)
        if self.mode == LOWEST:
            return np.pad(x, widths, constant_values=-np.inf)
        if self.mode == "zeros":
            return np.pad(x, widths, constant_values=self.value)
        names = {"reflect": "reflect", "symmetric": "symmetric", "replicate": "edge", "circular": "wrap"}
        return np.asarray(np.pad(x, widths, mode=names[self.mode]))  # type: ignore[call-overload]

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        return Pad(self.pads, "zeros" if self.mode == LOWEST else self.mode).reference(off)


@dataclass(frozen=True, eq=False)
class OfAnyRank(Layer):
    """A layer that computes the same of images with any number of axes, where frameworks have a layer for each.

    Attributes:
        rank: how many axes the images have beside those of images and channels; 0 for rows of numbers.
    """

    rank: int = field(default=2, compare=False, kw_only=True)


@dataclass(frozen=True, eq=False)
class BatchNorm(OfAnyRank):
    """Batch normalisation in inference: (x - mean) / sqrt(variance + epsilon) * scale + shift.

    Attributes:
        mean, variance, scale, shift: one number for each channel.
        epsilon: what is added to the variance.
        momentum: the share of the old running statistics that is kept; PyTorch's is 1 minus it.
        dtype: the arrays' dtype.
    """

    kind = "batch_norm"
    arrays = ("mean", "variance", "scale", "shift")

    mean: np.ndarray
    variance: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    epsilon: float
    momentum: float
    dtype: str = "float32"

    def _columns(self, ndim: int) -> list[np.ndarray]:
        arrays = (self.mean, self.variance, self.scale, self.shift)
        return [np.asarray(each, np.float64).reshape(-1, *(1,) * (ndim - 2)) for each in arrays]

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        mean, variance, scale, shift = self._columns(x.ndim)
        return np.asarray((x - mean) / np.sqrt(variance + self.epsilon) * scale + shift)

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`: at most eight roundings of what is added, in whatever order it is written."""
        mean, variance, scale, shift = self._columns(x.ndim)
        factor = np.abs(scale) / np.sqrt(variance + self.epsilon)
        rounding = 8 * 2.0 ** -SIGNIFICAND[dtype] * (factor * (np.abs(x) + off + np.abs(mean)) + np.abs(shift))
        return np.asarray(factor * off + rounding)

    def gradients(self, x: np.ndarray, dy: np.ndarray, dtype: str) -> tuple[Slopes, Slopes]:
        """See `Layer.gradients`; the statistics are constants."""
        mean, variance, scale, _ = self._columns(x.ndim)
        return affine_slopes(x, dy, dtype, scale, mean, 1 / np.sqrt(variance + self.epsilon))


@dataclass(frozen=True, eq=False)
class Dropout(OfAnyRank):
    """Nothing in inference; in training a share `rate` of the elements becomes 0.

    Attributes:
        rate: the share.
        images: whether whole images become 0 (stochastic depth, arXiv:1603.09382).
        channels: whether whole channels of an image become 0 (arXiv:1411.4280).
    """

    kind = "dropout"

    rate: float
    images: bool = False
    channels: bool = False

    @classmethod
    def along(cls, rate: float, axes: Sequence[int], pixels: Size = (2, 3)) -> Dropout:
        """The layer whose elements become 0 together along these axes; `pixels` are those of rows and columns.

        Raises:
            UnsupportedError: they are neither an image's nor a channel's.
        """
        rank, image = len(pixels), tuple(range(1, len(pixels) + 2))
        if tuple(sorted(axes)) not in ((), pixels, image):
            raise UnsupportedError(
                f"it drops along the axes {tuple(axes)}, expected none, {pixels} for channels, or {image} for images"
            )
        return cls(rate, images=len(axes) > rank, channels=len(axes) == rank, rank=rank)

    def axes(self, first: int = 2) -> Size:
        """The axes along which elements become 0 together; `first` is that of the rows: see `along`."""
        if not self.images and not self.channels:
            return ()
        return tuple(range(1, self.rank + 2) if self.images else range(first, first + self.rank))

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return x

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        return off


@dataclass(frozen=True, eq=False)
class Dense(Layer):
    """A dense layer, which computes x @ kernel.T + bias.

    Attributes:
        kernel: (outputs, inputs).
        bias: (outputs,), or None.
        dtype: the dtype of both.
    """

    kind = "dense"
    arrays = ("kernel", "bias")

    kernel: np.ndarray
    bias: np.ndarray | None = None
    dtype: str = "float32"

    @property
    def input_channels(self) -> int:
        """See `Layer.input_channels`."""
        return int(self.kernel.shape[1])

    def output_channels(self, channels: int) -> int:
        """See `Layer.output_channels`."""
        return len(self.kernel)

    @property
    def has_gradients(self) -> bool:
        """See `Layer.has_gradients`; those of a large kernel, in float64, would take more memory than it is worth."""
        return self.kernel.size <= _MOST_WEIGHTS

    def gradients(self, x: np.ndarray, dy: np.ndarray, dtype: str) -> tuple[Slopes, Slopes]:
        """See `Layer.gradients`: those of a convolution of one pixel."""
        pixel = Convolution.of(self.kernel[:, :, None, None], self.bias, self.dtype)
        true, bounds = pixel.gradients(x[:, :, None, None], dy[:, :, None, None], dtype)
        for each in (true, bounds):
            each.update(X=each["X"][:, :, 0, 0], K=each["K"][:, :, 0, 0])
        return true, bounds

    def reordered(self, channels: int, order: str) -> Dense:
        """The layer for images of so many channels that are flattened in an order, instead of the other of `ORDERS`.

        >>> Dense(np.array([[1, 2, 3, 4]])).reordered(2, "HWC").kernel
        array([[1, 3, 2, 4]])
        """
        shape = (*((-1, channels) if order == "CHW" else (channels, -1)), len(self.kernel))
        # Frameworks that flatten in another order keep kernels (inputs, outputs), which this copy is then.
        kernel = self.kernel.T.reshape(shape).swapaxes(0, 1)
        return replace(self, kernel=kernel.reshape(-1, len(self.kernel)).T)

    def _convolutions(self) -> Iterator[Convolution]:
        """The convolutions of one pixel that give a few outputs each: in float64 the whole kernel may be large."""
        few = max(1, _MOST_WEIGHTS // self.kernel.shape[1])
        for start in range(0, len(self.kernel), few):
            bias = None if self.bias is None else self.bias[start : start + few]
            yield Convolution.of(self.kernel[start : start + few, :, None, None], bias, self.dtype)

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        pixel = x[:, :, None, None]
        return np.concatenate([some.reference(pixel) for some in self._convolutions()], axis=1)[:, :, 0, 0]

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`: that of a convolution of one pixel."""
        pixel, off = x[:, :, None, None], off[:, :, None, None]
        errors = [some.error(pixel, off, dtype) for some in self._convolutions()]
        return np.concatenate(errors, axis=1)[:, :, 0, 0]


def dtype_of(layer: Layer) -> str:
    """The dtype of a layer's arrays, which it computes in."""
    return str(layer.spec.dtype if isinstance(layer, Convolution) else getattr(layer, "dtype", "float32"))


def join_border(border: Pad, convolution: Convolution) -> Convolution | None:
    """The one convolution that computes the same as a border and a convolution after it; None if there is none.

    >>> convolution = Convolution.of(np.ones((1, 1, 3, 3)), None, "float32")
    >>> join_border(Pad(((1, 1), (2, 2)), "reflect"), convolution).spec.padding
    ((1, 1), (2, 2))
    """
    spec = convolution.spec
    if border.mode == LOWEST or isinstance(spec.padding, str):
        return None
    both_constant = border.mode == spec.padding_mode == "zeros" and border.value == spec.padding_value
    if is_padded(spec.padding) and not both_constant:
        return None
    pads = tuple((p[0] + q[0], p[1] + q[1]) for p, q in zip(border.pads, spec.padding, strict=True))
    spec = replace(spec, padding=pads, padding_mode=border.mode, padding_value=border.value)
    return replace(convolution, spec=spec)
