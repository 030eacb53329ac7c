"""The true result and the true gradients, in float64 by the definition (`convlab.reference`)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import numpy as np

from ..contract.rule import Rule
from ..correlation.arguments import as_array
from ..correlation.compute import gradients_of_rule
from ..dtypes import INTEGERS, SIGNIFICAND, check_numeric, dtype_name, promote
from ..errors import DTypeError
from ..geometry.geometry import NO_PADDING, Geometry, Pair
from ..geometry.lower import lower
from ..geometry.options import (
    GEOMETRY_OPTIONS,
    GeometryOptions,
    channels_follow,
    check_shapes,
    kernel_size,
    options,
)
from ..reference import ops as reference
from ..registry import framework as load_framework
from ..registry import owner

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike


class Gradients(NamedTuple):
    """Gradients of sum(dY * corr2d(X, K, bias=bias)) with respect to X, K and the bias."""

    X: np.ndarray
    K: np.ndarray
    bias: np.ndarray


def oracle(
    X: ArrayLike, K: ArrayLike, *, bias: ArrayLike | None = None, **geometry: Unpack[GeometryOptions]
) -> np.ndarray:
    """`corr2d(X, K)` of any arrays' values in float64; integers in int64.

    It pads and convolves by the definition, sharing no algorithm with `corr2d`.

    >>> oracle([[0.1, 0.2]], [[1, 1]])
    array([[0.3]])
    """
    x, k = wide(X), wide(K)
    dtype = np.result_type(x, k)
    call = CanonicalCall(x.astype(dtype), k.astype(dtype), geometry)
    y = reference.conv(call.padded(), call.k, call.geometry)
    if bias is not None:
        y = y + wide(bias).reshape(-1, 1, 1)
    return call.like_x(y)


def oracle_gradients(X: ArrayLike, K: ArrayLike, dY: ArrayLike, **geometry: Unpack[GeometryOptions]) -> Gradients:
    """The gradients of `oracle`, written out for the definition and checked against exact arithmetic.

    >>> oracle_gradients([[1, 2, 3]], [[10, 20]], [[1, 1]]).K
    array([[3., 5.]])
    """
    call = CanonicalCall(wide(X).astype(np.float64), wide(K).astype(np.float64), geometry)
    dy = call.as_nchw(wide(dY).astype(np.float64))
    vjp = reference.conv_vjp
    inner, dk, db = vjp(call.padded(), call.k, dy, call.geometry)
    return Gradients(call.like_x(call.unpadded(inner)), call.like_k(dk), db)


class CanonicalCall:
    """A call of corr2d as NCHW and OIHW, and the way back."""

    def __init__(self, x: np.ndarray, k: np.ndarray, geometry: GeometryOptions) -> None:
        lowered = lowered_geometry(x.shape, k.shape, **geometry)
        self.rank, self.nhwc = k.ndim, k.ndim == 4 and lowered.data_format == "NHWC"
        self.planes_last = channels_follow(x.shape, k.shape, lowered)
        self.leading = (*x.shape[:-3], x.shape[-1]) if self.planes_last else x.shape[: -2 if k.ndim == 2 else -3]
        self.x = self.as_nchw(x)
        self.k = k.transpose(3, 2, 0, 1) if self.nhwc else k.reshape((1,) * (4 - k.ndim) + k.shape)
        self.border = lowered
        self.geometry = lowered._replace(padding=NO_PADDING, data_format="NCHW", padding_value=0.0)

    def padded(self) -> np.ndarray:
        """The image with its border."""
        if self.border.padding_mode == "zeros":
            widths = ((0, 0), (0, 0), *self.border.padding)
            return np.pad(self.x, widths, constant_values=self.border.padding_value)
        down, right = self._positions()
        return self.x[:, :, down][:, :, :, right]

    def unpadded(self, dx: np.ndarray) -> np.ndarray:
        """The gradient by x, of that by the padded x: the gradients of all places of a pixel are added up."""
        if self.border.padding_mode == "zeros":
            rows, columns = self.border.padding
            height, width = self.x.shape[2:]
            return dx[:, :, rows[0] : rows[0] + height, columns[0] : columns[0] + width]
        down, right = (np.eye(n)[index] for n, index in zip(self.x.shape[2:], self._positions(), strict=True))
        return np.asarray(down.T @ dx @ right)

    def _positions(self) -> list[np.ndarray]:
        mode = self.border.padding_mode
        return [border_positions(n, pads, mode) for n, pads in zip(self.x.shape[2:], self.border.padding, strict=True)]

    def as_nchw(self, x: np.ndarray) -> np.ndarray:
        """An array laid out as X or Y is."""
        if self.rank == 2:
            x = np.moveaxis(x, -1, -3) if self.planes_last else x
            return x.reshape(math.prod(x.shape[:-2]), 1, *x.shape[-2:])
        x = x if x.ndim == 4 else x[None]
        return np.moveaxis(x, -1, 1) if self.nhwc else x

    def like_x(self, y: np.ndarray) -> np.ndarray:
        """An array as NCHW, laid out as X or Y is."""
        y = y[:, 0] if self.rank == 2 else np.moveaxis(y, 1, -1) if self.nhwc else y
        y = y.reshape(*self.leading, *y.shape[1:])
        return np.moveaxis(y, -3, -1) if self.planes_last else y

    def like_k(self, k: np.ndarray) -> np.ndarray:
        """An array as OIHW, laid out as K is."""
        if self.rank == 2:
            return np.asarray(k[0, 0])
        return k.transpose(2, 3, 1, 0) if self.nhwc else k


def reproducible_gradients(
    X: np.ndarray, K: np.ndarray, dY: np.ndarray, **geometry: Unpack[GeometryOptions]
) -> Gradients:
    """The gradients of `corr2d(X, K, reproducible=True)`, which every backend gives bit for bit, by NumPy alone.

    X, K and dY are of one floating dtype, which is also the gradients'.
    """
    call, ops = CanonicalCall(X, K, geometry), reference
    # A constant other than zero is laid round the image first.
    valued = bool(call.border.padding_value)
    whole = call.geometry if valued else call.border._replace(data_format="NCHW")
    inputs = call.padded() if valued else call.x, call.k, np.zeros(call.k.shape[0], X.dtype)
    dx, dk, db = gradients_of_rule(ops, Rule("y", whole), inputs, call.as_nchw(dY), (True, True, True))
    return Gradients(call.like_x(call.unpadded(dx) if valued else dx), call.like_k(dk), db)


def lowered_geometry(shape: Any, kernel: Any, **geometry: Unpack[GeometryOptions]) -> Geometry:
    """The geometry of a call in integers."""
    for name in geometry:
        if name not in (*GEOMETRY_OPTIONS, "origin"):
            known = ", ".join((*GEOMETRY_OPTIONS, "origin"))
            raise TypeError(f"got an unexpected argument {name!r}, expected corr2d's {known}")
    checked, padding = options(kernel_size(kernel, geometry.get("data_format")), **geometry)
    return lower(checked, padding, check_shapes(shape, kernel, checked))


def border_positions(n: int, pads: Pair, mode: str) -> np.ndarray:
    """The pixel, of n, at each position of a padded axis; numpy.pad before 1.25 got this wrong for wide borders."""
    position = np.arange(-pads[0], n + pads[1])
    if mode == "circular":
        return position % n
    if mode == "replicate":
        return np.clip(position, 0, n - 1)
    if mode == "symmetric":
        return np.asarray(n - 0.5 - np.abs(n - 0.5 - position % max(2 * n, 1)), np.int64)
    return n - 1 - np.abs(n - 1 - position % max(2 * (n - 1), 1))


def repeats(n: int, pads: Pair, mode: str) -> int:
    """How often the padding of an axis of n pixels uses the pixel that it uses most."""
    return int(np.bincount(border_positions(n, pads, mode)).max()) if mode != "zeros" and n else 1


def as_numpy(x: Any, name: str = "array") -> np.ndarray:
    """An array, a list, or a tensor of any framework, as a NumPy array (bfloat16 as float32, which is exact)."""
    framework = owner(x)
    array = as_array(name, x) if framework in (None, "numpy") else load_framework(str(framework)).to_numpy(x)
    check_numeric(name, array.dtype.name)
    return array


def computed_in(dtype: DTypeLike | None, *tensors: Any) -> str:
    """The name of the real dtype that corr2d of these tensors is computed in; a given one is checked.

    >>> computed_in(None, np.ones(2, "float16"), [1, 2]), computed_in(np.float32, [1.0]), computed_in("uint8", [1])
    ('float16', 'float32', 'int64')
    """
    present = [x for x in tensors if x is not None]
    kinds = [_dtype(x) for x in present]
    native = [kind for x, kind in zip(present, kinds, strict=True) if owner(x) not in (None, "numpy")]
    strong = native or [kind for x, kind in zip(present, kinds, strict=True) if isinstance(x, np.ndarray)]
    name = promote(strong, kinds) if dtype is None else dtype_name(dtype)
    if name not in SIGNIFICAND and name not in INTEGERS:
        try:
            name = np.dtype(name).name
        except TypeError:
            name = str(dtype)
    if name not in SIGNIFICAND and (name not in INTEGERS or promote(kinds) != "int64"):
        raise DTypeError(
            f"dtype: got {name} for {' and '.join(sorted(set(kinds)))}, expected one of {', '.join(SIGNIFICAND)}.",
            hint="integers are for integers alone; corr2d is linear, so look at the parts of complex numbers apart.",
        )
    return "int64" if name in INTEGERS else name


def _dtype(x: Any) -> str:
    framework = owner(x)
    if framework is None:
        return as_numpy(x).dtype.name
    return load_framework(framework).ops.dtype(x) or "float32"


def wide(x: Any) -> np.ndarray:
    """Values as int64 (integers) or float64."""
    array = as_numpy(x)
    return array.astype(
        {"i": np.int64, "u": np.int64, "b": np.int64, "c": np.complex128}.get(array.dtype.kind, np.float64)
    )
