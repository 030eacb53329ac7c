"""What a layer computes, in no framework's words.

Arrays are NCHW and kernels OIHW, whatever the framework's layout. Each layer knows its `reference`, in float64 by the
definition, and how far a framework that computes in a given dtype may be from it (`error`). Those of convolutions are
`convlab.testing.bounds`; those of the others count their roundings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..dtypes import SIGNIFICAND
from ..errors import ModelError, UnsupportedError
from ..geometry import NO_PADDING, Pads, Pair
from ..layers import GEOMETRY, LayerSpec
from ..testing.bounds import error_bound
from ..testing.oracle import oracle


class Layer:
    """One step of a model. Subclasses are frozen dataclasses, whose fields are all that it depends on.

    Attributes:
        kind: its name in files and reports.
        arrays: the fields that are arrays (or None), in the order that files have.
    """

    kind: ClassVar[str]
    arrays: ClassVar[tuple[str, ...]] = ()

    def reference(self, x: np.ndarray) -> np.ndarray:
        """The result for x, in float64."""
        raise NotImplementedError

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """How far from `reference(x)` the result in `dtype` may be, its input being off by up to `off`."""
        raise NotImplementedError

    def output_size(self, size: Pair) -> Pair:
        """The rows and columns of the result for an image of a size."""
        return size


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
        """From an OIHW kernel and corr2d's options."""
        outputs, per_group, *size = kernel.shape
        spec = LayerSpec(
            tuple(size),
            in_channels=per_group * groups,
            out_channels=outputs,
            groups=groups,
            use_bias=bias is not None,
            dtype=dtype,
            **options,
        )
        return cls(spec, kernel, bias)

    @classmethod
    def ours(cls, spec: LayerSpec, weight: np.ndarray, bias: np.ndarray | None, dtype: str) -> Convolution:
        """What a `Conv2D` of convlab's computes; `ours_for` is the way back."""
        hwio = weight.ndim == 4 and spec.data_format == "NHWC"
        kernel = weight.transpose(3, 2, 0, 1) if hwio else weight.reshape((1,) * (4 - weight.ndim) + weight.shape)
        options = {name: getattr(spec, name) for name in GEOMETRY if name != "data_format"}
        return cls.of(kernel, bias, dtype, **options)

    def ours_for(self, data_format: str) -> tuple[dict[str, Any], np.ndarray]:
        """The arguments of a `Conv2D` of convlab's that computes this, and its weight."""
        options = replace(self.spec, data_format=data_format).config()
        return options, self.kernel.transpose(2, 3, 1, 0) if data_format == "NHWC" else self.kernel

    @property
    def depthwise(self) -> bool:
        """Whether each channel has kernels of its own."""
        return self.spec.groups == self.spec.in_channels and self.spec.groups > 1

    def output_size(self, size: Pair) -> Pair:
        """See `Layer.output_size`."""
        shape = self.spec.output_shape((1, self.spec.in_channels, *size))
        return shape[2], shape[3]  # type: ignore[return-value]

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return oracle(x, self.kernel, bias=self.bias, **self.spec.geometry)

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`: Higham's bound for sums of products of numbers as large as |x| + off."""
        geometry = self.spec.geometry
        rounding = error_bound(np.abs(x) + off, self.kernel, bias=self.bias, dtype=dtype, **geometry)
        return rounding + (oracle(off, np.abs(self.kernel), **geometry) if off.any() else 0.0)


@dataclass(frozen=True, eq=False)
class Pad(Layer):
    """A border round the image.

    Attributes:
        pads: ((top, bottom), (left, right)).
        mode: corr2d's padding_mode.
    """

    kind = "pad"

    pads: Pads
    mode: str = "zeros"

    def output_size(self, size: Pair) -> Pair:
        """See `Layer.output_size`."""
        (top, bottom), (left, right) = self.pads
        return size[0] + top + bottom, size[1] + left + right

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        names = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
        return np.asarray(np.pad(x, ((0, 0), (0, 0), *self.pads), mode=names[self.mode]))  # type: ignore[call-overload]

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        return self.reference(off)


class Function(NamedTuple):
    """An activation: what it computes, its steepest slope, and whether it only passes numbers on or cuts them off."""

    of: Callable[[np.ndarray, float], np.ndarray]
    slope: float
    exact: bool = False


def _gelu(x: np.ndarray) -> np.ndarray:
    from scipy.special import ndtr

    return np.asarray(x * ndtr(x))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    return np.asarray(expit(x))


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


# The second argument is `Activation.parameter`. GELU: Hendrycks and Gimpel, arXiv:1606.08415; ELU: arXiv:1511.07289.
FUNCTIONS = {
    "relu": Function(lambda x, a: np.maximum(x, 0), 1, exact=True),
    "relu6": Function(lambda x, a: np.clip(x, 0, 6), 1, exact=True),
    "leaky_relu": Function(lambda x, a: np.where(x > 0, x, a * x), 1),
    "elu": Function(lambda x, a: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))), 1),
    "sigmoid": Function(lambda x, a: _sigmoid(x), 0.25),
    "tanh": Function(lambda x, a: np.tanh(x), 1),
    "softplus": Function(lambda x, a: np.logaddexp(0, x), 1),
    "silu": Function(lambda x, a: x * _sigmoid(x), 1.1),
    "gelu": Function(lambda x, a: _gelu(x), 1.13),
    "gelu_tanh": Function(lambda x, a: _gelu_tanh(x), 1.13),
}
_ROUNDINGS = 16  # of an exponential and the few operations round it


@dataclass(frozen=True, eq=False)
class Activation(Layer):
    """A function of each element.

    Attributes:
        function: one of `FUNCTIONS`.
        parameter: leaky_relu's slope below 0, elu's alpha; otherwise 0.
    """

    kind = "activation"

    function: str
    parameter: float = 0.0

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return FUNCTIONS[self.function].of(x, self.parameter)

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        function = FUNCTIONS[self.function]
        carried = max(function.slope, abs(self.parameter)) * off
        if function.exact:
            return carried
        return np.asarray(carried + _ROUNDINGS * 2.0 ** -SIGNIFICAND[dtype] * (1 + np.abs(x) + off))


@dataclass(frozen=True, eq=False)
class Pool(Layer):
    """The greatest element, or the mean, of each window.

    Attributes:
        function: "max" or "average".
        size, stride: of the windows.
        padding: as in corr2d, "same" or integers. What is padded doesn't count for a maximum.
        count_padding: whether it does for a mean.
        ceil: whether the last window may reach over the edge, beyond the padding.
    """

    kind = "pool"

    function: str
    size: Pair
    stride: Pair
    padding: Pads | str = NO_PADDING
    count_padding: bool = False
    ceil: bool = False

    def __post_init__(self) -> None:
        spec = LayerSpec(self.size, stride=self.stride, padding=self.padding)
        object.__setattr__(self, "padding", fixed_padding(spec))

    def output_size(self, size: Pair) -> Pair:
        """See `Layer.output_size`."""
        both = zip(size, *self.pads(size), self.size, self.stride, strict=True)
        rows, columns = ((n + sum(pads) + sum(more) - k) // s + 1 for n, pads, more, k, s in both)
        return rows, columns

    def pads(self, size: Pair) -> tuple[Pads, Pads]:
        """The border of an image of a size: what counts as padding, and what `ceil` adds."""
        spec = LayerSpec(self.size, stride=self.stride, padding=self.padding)
        pads, more = padding_in(spec, size), []
        for n, k, s, (before, after) in zip(size, self.size, self.stride, pads, strict=True):
            over = (n + before + after - k) % s
            windows = (n + before + after - k) // s + 1
            # The last window must begin in the image or in the padding before it, as in PyTorch.
            more.append((0, s - over) if self.ceil and over and windows * s < n + before else (0, 0))
        return pads, (more[0], more[1])

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        size = x.shape[2], x.shape[3]
        pads, more = self.pads(size)
        if self.function == "max":
            return np.asarray(self._windows(self._padded(self._padded(x, pads, -np.inf), more, -np.inf)).max((-2, -1)))
        counted = self._padded(np.ones(x.shape[2:]), pads, float(self.count_padding))
        count = self._windows(self._padded(counted, more, 0)).sum((-2, -1))
        return np.asarray(self._windows(self._padded(self._padded(x, pads, 0), more, 0)).sum((-2, -1)) / count)

    def _padded(self, x: np.ndarray, pads: Pads, value: float) -> np.ndarray:
        return np.pad(x, ((0, 0),) * (x.ndim - 2) + pads, constant_values=value)

    def _windows(self, x: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(x, self.size, axis=(-2, -1))
        return np.asarray(windows[..., :: self.stride[0], :: self.stride[1], :, :])

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        if self.function == "max":
            return np.asarray(self.reference(off))
        terms = math.prod(self.size) + 1
        return self.reference(off) + terms * 2.0 ** -SIGNIFICAND[dtype] * self.reference(np.abs(x) + off)


@dataclass(frozen=True, eq=False)
class GlobalPool(Layer):
    """The greatest element, or the mean, of each channel.

    Attributes:
        function: "max" or "average".
        keepdims: whether the result is (N, C, 1, 1) or (N, C).
    """

    kind = "global_pool"

    function: str
    keepdims: bool = True

    def output_size(self, size: Pair) -> Pair:
        """See `Layer.output_size`."""
        return 1, 1

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        reduce = np.max if self.function == "max" else np.mean
        return np.asarray(reduce(x, axis=(2, 3), keepdims=self.keepdims))

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        if self.function == "max":
            return self.reference(off)
        terms = x.shape[2] * x.shape[3] + 1
        return np.asarray(self.reference(off)) + terms * 2.0 ** -SIGNIFICAND[dtype] * self.reference(np.abs(x) + off)


@dataclass(frozen=True, eq=False)
class BatchNorm(Layer):
    """Batch normalisation as it is in inference: (x - mean) / sqrt(variance + epsilon) * scale + shift.

    Attributes:
        mean, variance, scale, shift: one number for each channel.
        epsilon: what is added to the variance.
        momentum: of the running statistics, as the share of the old ones that is kept (PyTorch's is 1 minus it).
        dtype: of the arrays.
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


@dataclass(frozen=True, eq=False)
class Dropout(Layer):
    """Nothing in inference; in training a share `rate` of the elements becomes 0."""

    kind = "dropout"

    rate: float

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return x

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        return off


@dataclass(frozen=True, eq=False)
class Flatten(Layer):
    """Each image as one row of numbers.

    Attributes:
        order: of an image's axes: "CHW", channel by channel, or "HWC", pixel by pixel.
    """

    kind = "flatten"

    order: str = "CHW"

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        x = np.moveaxis(x, 1, -1) if self.order == "HWC" else x
        return x.reshape(len(x), -1)

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        return np.asarray(self.reference(off))


@dataclass(frozen=True, eq=False)
class Dense(Layer):
    """x @ kernel.T + bias.

    Attributes:
        kernel: (outputs, inputs).
        bias: (outputs,), or None.
        dtype: of both.
    """

    kind = "dense"
    arrays = ("kernel", "bias")

    kernel: np.ndarray
    bias: np.ndarray | None = None
    dtype: str = "float32"

    def _convolution(self) -> Convolution:
        return Convolution.of(self.kernel[:, :, None, None], self.bias, self.dtype)

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return self._convolution().reference(x[:, :, None, None])[:, :, 0, 0]

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`: that of a convolution of one pixel."""
        return self._convolution().error(x[:, :, None, None], off[:, :, None, None], dtype)[:, :, 0, 0]


KINDS: dict[str, type[Layer]] = {
    kind.kind: kind for kind in (Convolution, Pad, Activation, Pool, GlobalPool, BatchNorm, Dropout, Flatten, Dense)
}


def is_around(pads: Pads) -> bool:
    """Whether both ends of each axis are padded alike."""
    return all(before == after for before, after in pads)


def unbuilt(path: str, native: Any, hint: str) -> ModelError:
    """What to say of a layer whose parameters have no values yet."""
    return ModelError(
        f"{path or 'the layer'}: got a {type(native).__name__} whose parameters have no values yet, expected them.",
        hint=f"{hint}.",
    )


def known(native: Any, readers: dict[type, Callable[[Any], Layer]]) -> tuple[Layer | None, str]:
    """What a framework's object computes, by the first reader of its type, and its class's name; None and why not."""
    name = type(native).__name__
    reader = next((reader for kind, reader in readers.items() if isinstance(native, kind)), None)
    if reader is None:
        return None, name
    try:
        return reader(native), name
    except UnsupportedError as error:
        return None, f"{name}: {error}"


def around(padding: Pair) -> Pads:
    """(rows, columns) as ((top, bottom), (left, right))."""
    rows, columns = padding
    return (rows, rows), (columns, columns)


def fixed_padding(spec: LayerSpec) -> Pads | str:
    """A layer's padding in integers, unless it depends on the image's size."""
    by_size = isinstance(spec.padding, str) and spec.padding.startswith("same") and spec.stride != (1, 1)
    return spec.padding if by_size else padding_in(spec, (2**20, 2**20))


def depends_on_size(padding: str) -> UnsupportedError:
    """What a framework says to a padding that it doesn't have."""
    return UnsupportedError(
        f"padding={padding!r} with a stride depends on the image's size, at which the target's layers don't look.",
        hint="give input_size=(rows, columns), or layers='convlab'.",
    )


def padding_in(spec: LayerSpec, size: Pair) -> Pads:
    """A layer's padding in integers, for an image of a size."""
    from ..geometry import lower, options

    geometry, named = options(spec.kernel_size, spec.stride, spec.padding, dilation=spec.dilation)
    return lower(geometry, named, size).padding


@dataclass(frozen=True, eq=False)
class Part:
    """A layer as a model has it.

    Attributes:
        path: where it is in the model, as the framework writes it.
        native: the framework's own object; called by its adapter's `run`.
        layer: what it computes; None where convlab can't tell.
        note: its class, as the framework writes it, and why convlab can't tell.
    """

    path: str
    native: Any
    layer: Layer | None
    note: str = ""


@dataclass(frozen=True, eq=False)
class Model:
    """A framework's model, read.

    Attributes:
        backend: whose it is.
        parts: its layers, in the order of their paths or of their calls.
        whole: whether the model is these layers one after another, and nothing else.
        native: the model itself.
    """

    backend: str
    parts: list[Part]
    whole: bool
    native: Any = field(repr=False)
