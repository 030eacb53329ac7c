"""`LayerSpec`: the part of the layer `Conv2D` that is the same in every framework."""

from __future__ import annotations

import math
import warnings
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from typing import Any, cast

import numpy as np

from ..dtypes import COMPLEX, INTEGERS, check_numeric, dtype_name, itemsize
from ..errors import DTypeError, GeometryError, LayoutWarning, ShapeError
from ..geometry.checks import boolean, integer
from ..geometry.geometry import Pair
from ..geometry.limits import check_held
from ..geometry.lower import output_shape
from ..geometry.options import GEOMETRY_OPTIONS, GeometryOptions, options


class LayerOptions(GeometryOptions, total=False):
    """The keyword arguments of `Conv2D` and their types."""

    in_channels: int | None
    out_channels: int | None
    use_bias: bool
    dtype: Any
    seed: int | None
    reproducible: bool


class LayerArguments(LayerOptions, total=False):
    """The keyword arguments of any backend's `Conv2D`; `kernel_size` may also be the first positional one."""

    kernel_size: int | Pair


@dataclass(frozen=True, repr=False)
class LayerSpec:
    """The checked options of a layer: adapters build their native layers from it.

    >>> spec = LayerSpec(3, in_channels=4, out_channels=8, groups=2)
    >>> spec.weight_shape(), spec.bias_shape, spec.fan_in()
    ((8, 2, 3, 3), (8,), 18)

    `layout_given` says whether somebody chose `data_format`, so that nobody need be warned of it.
    """

    kernel_size: Any
    _: KW_ONLY
    in_channels: int | None = None
    out_channels: int | None = None
    stride: Any = 1
    padding: Any = 0
    padding_mode: str = "zeros"
    dilation: Any = 1
    groups: int = 1
    use_bias: bool = True
    data_format: str = "NCHW"
    dtype: Any = None
    seed: int | None = None
    reproducible: bool = False
    padding_value: float = 0.0
    origin: Any = None
    layout_given: bool = field(default=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in GEOMETRY_OPTIONS}
        geometry, padding_name = options(self.kernel_size, origin=self.origin, **given)
        checked = {
            "kernel_size": geometry.kernel_size,
            "stride": geometry.stride,
            "padding": padding_name or geometry.padding,
            "padding_mode": geometry.padding_mode,
            "padding_value": geometry.padding_value,
            "origin": None,
            "dilation": geometry.dilation,
            "groups": geometry.groups,
            "data_format": geometry.data_format,
            "use_bias": bool(self.use_bias),
            "reproducible": boolean("reproducible", self.reproducible),
            "dtype": None if self.dtype is None else _floating(self.dtype),
            "in_channels": None if self.in_channels is None else integer("in_channels", self.in_channels, 1),
            "out_channels": None if self.out_channels is None else integer("out_channels", self.out_channels, 1),
            "seed": None if self.seed is None else integer("seed", self.seed, 0),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._check_channels()
        sizes = "kernel_size, out_channels" if self.out_channels else "kernel_size"
        # A number of channels that isn't known yet is 0.
        weight = [max(n, 1) for n in self.weight_shape()]
        check_held(sizes, "a weight", weight, itemsize(self.dtype or "float32"))

    def _check_channels(self) -> None:
        if self.out_channels is None and (self.in_channels is not None or self.groups != 1):
            raise GeometryError(
                f"out_channels: got None with in_channels={self.in_channels} and groups={self.groups}, expected a "
                "number of output channels.",
                hint="without out_channels the layer has no channels, as in the chapter.",
            )
        for name in ("in_channels", "out_channels"):
            channels = getattr(self, name)
            if channels is not None and channels % self.groups:
                raise GeometryError(
                    f"groups: got {self.groups}, expected a divisor of {name}={channels}.",
                    hint="each group has the same number of channels.",
                )

    @property
    def lazy(self) -> bool:
        """Whether the number of input channels isn't known yet."""
        return self.out_channels is not None and self.in_channels is None

    @property
    def geometry(self) -> GeometryOptions:
        """The keyword arguments that say where the kernel meets the image."""
        return cast(GeometryOptions, {name: getattr(self, name) for name in GEOMETRY_OPTIONS})

    @property
    def call(self) -> dict[str, Any]:
        """The keyword arguments that the layer passes to `corr2d` beside its bias."""
        layout = self.data_format if self.layout_given else None
        return {**self.geometry, "data_format": layout, "reproducible": self.reproducible}

    def fit(self, shape: tuple[int | None, ...]) -> LayerSpec:
        """This layer for inputs of a shape: with the number of input channels, if it wasn't known yet.

        Warns:
            LayoutWarning: nobody chose a layout, and the shape looks like that of the other one.
        """
        spec = self._fitted(shape)
        if spec is not self and not self.layout_given and _looks_channels_last(shape):
            self._tell_layout(spec, shape)
        return spec

    def _tell_layout(self, spec: LayerSpec, shape: tuple[int | None, ...]) -> None:
        """Warn of a shape that looks like the other layout; raise `ShapeError` if the kernel doesn't fit it so."""
        what = f"X: got shape {tuple(shape)}, which looks like (H, W, C), while data_format is 'NCHW'."
        try:
            spec.output_shape(shape)
        except ShapeError:
            raise ShapeError(what, hint=f"{_LAST}.") from None
        hint = f"{_LAST}, data_format='NCHW' to say that it isn't."
        warnings.warn(f"{what} Hint: {hint}", LayoutWarning, stacklevel=4)

    def _fitted(self, shape: tuple[int | None, ...]) -> LayerSpec:
        if not self.lazy:
            return self
        axis = -3 if self.data_format == "NCHW" else -1
        if len(shape) not in (3, 4) or shape[axis] is None:
            if len(shape) > 4:
                hint = "fold the leading axes into one: X.reshape(-1, *X.shape[-3:])."
            elif len(shape) > 2 and not self.layout_given and shape[-1] is not None:
                hint = f"{_LAST}."
            else:
                hint = "give in_channels, or leave out out_channels for images without channels."
            raise ShapeError(
                f"X: got shape {tuple(shape)}, expected rank 4 in {self.data_format} order with a known number of "
                "channels.",
                hint=hint,
            )
        return replace(self, in_channels=shape[axis])

    def output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The result's shape for inputs of a shape; an output size is None where its input size is."""
        spec = self._fitted(shape)
        # Each output size depends on one input size alone, so that any number may stand in for an unknown size.
        stand_in = 2**20
        known = output_shape([stand_in if n is None else n for n in shape], spec.weight_shape(), **spec.geometry)
        channels_axis = len(shape) - (3 if self.data_format == "NCHW" else 1)
        channel = None if self.out_channels is None else channels_axis
        return tuple(
            None if n is None and axis != channel else size
            for axis, (n, size) in enumerate(zip(shape, known, strict=True))
        )

    def weight_shape(self) -> tuple[int, ...]:
        """The weight's shape: (h, w), OIHW or HWIO; a number of input channels that isn't known yet is 0."""
        if self.out_channels is None:
            h, w = self.kernel_size
            return h, w
        per_group = (self.in_channels or 0) // self.groups
        if self.data_format == "NCHW":
            return (self.out_channels, per_group, *self.kernel_size)
        return (*self.kernel_size, per_group, self.out_channels)

    @property
    def hwio_shape(self) -> tuple[int, int, int, int]:
        """The weight's shape as HWIO, of which the initialisers of Keras and Flax know the numbers of channels."""
        h, w = self.kernel_size
        return h, w, (self.in_channels or 1) // self.groups, self.out_channels or 1

    @property
    def bias_shape(self) -> tuple[int]:
        """One number per output channel."""
        return (self.out_channels or 1,)

    def fan_in(self) -> int:
        """How many products are added up in one output element."""
        h, w = self.kernel_size
        per_group = 1 if self.in_channels is None else self.in_channels // self.groups
        return int(h * w * per_group)

    def seeded(self) -> np.ndarray:
        """The initial weight for `seed`, float64: uniform on ±1/sqrt(fan_in), the same kernel in either layout.

        The numbers come from `numpy.random.default_rng(seed)` in OIHW order (PyTorch's default initialisation,
        LeCun-uniform with a gain of 1/sqrt(3)).
        """
        bound = 1 / math.sqrt(self.fan_in())
        shape = self.weight_shape()
        hwio = len(shape) == 4 and self.data_format == "NHWC"
        drawn = (shape[3], shape[2], *shape[:2]) if hwio else shape
        weight = np.random.default_rng(self.seed).uniform(-bound, bound, drawn)
        return weight.transpose(2, 3, 1, 0) if hwio else weight

    def config(self) -> dict[str, Any]:
        """The keyword arguments that make the same layer again, in plain Python values."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.compare}

    def __repr__(self) -> str:
        return f"({self})"

    def __str__(self) -> str:
        shown = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.compare
            and field.name != "kernel_size"
            and getattr(self, field.name) != getattr(_PLAIN, field.name)
        }
        return ", ".join([str(self.kernel_size), *(f"{name}={value!r}" for name, value in shown.items())])


_PLAIN = LayerSpec(1)


def seeded_kernel(seed: int, shape: tuple[int, int, int, int]) -> np.ndarray:
    """The kernel (OIHW) that a seed gives on every backend.

    >>> seeded_kernel(0, (1, 1, 1, 2)).round(3)
    array([[[[ 0.194, -0.326]]]])
    """
    outputs, per_group, *size = shape
    return LayerSpec(tuple(size), in_channels=per_group, out_channels=outputs, seed=seed).seeded()


_LAST = "data_format='NHWC' if the last axis is the channels"


def _looks_channels_last(shape: tuple[int | None, ...]) -> bool:
    """Whether a shape looks like that of an image (H, W, C), or of a batch of such."""
    first, second, last = (n or 0 for n in shape[-3:])
    return last in (1, 3, 4) and first > 4 and second > last


def _floating(dtype: Any) -> str:
    name = dtype_name(dtype)
    check_numeric("dtype", name)
    if name in INTEGERS or name in COMPLEX:
        raise DTypeError(f"dtype: got {name}, expected a floating dtype.", hint="a layer learns by gradients.")
    return name
