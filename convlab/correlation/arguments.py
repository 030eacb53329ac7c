"""Bringing a call's arrays to one backend, one device and one dtype, or saying why they can't be."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..contract.call import Shape
from ..contract.framework import Framework
from ..contract.operations import Operations
from ..dtypes import INTEGERS, check_numeric, dtype_name, promote
from ..errors import DTypeError, IntegerOverflowError, MixedDevicesError, ShapeError, UnsupportedError
from ..geometry.checks import shown
from ..geometry.geometry import Geometry
from ..registry import owner

_RAGGED_IS_AN_ERROR = np.lib.NumpyVersion(np.__version__) >= "1.24.0"


def unify(framework: Framework, arguments: dict[str, Any], floating: bool = False) -> tuple[list[Any], str | None]:
    """The arguments as tensors of `framework` in their common dtype, and that dtype; no bias stays None.

    The dtype is None while it isn't known (a symbol being traced); native tensors then keep their own dtype.
    `floating` asks for a floating dtype: integers become float32.

    Raises:
        DTypeError: an argument that isn't numeric, or a dtype that the backend lacks.
        ShapeError: a ragged list.
        MixedDevicesError: tensors on two devices.
    """
    ops = framework.ops
    present = {key: x for key, x in arguments.items() if x is not None or key != "bias"}
    native = [key for key, x in present.items() if owner(x) == framework.name]
    if len(native) > 1:
        _check_devices({key: ops.device(present[key]) for key in native})
    if len(native) == len(present):
        # The common case, at a low cost: tensors of one dtype.
        first, *others = [ops.dtype(x) for x in present.values()]
        if first in framework.adapter.dtypes and others.count(first) == len(others):
            return [None if x is None else ops.cast(x, first) for x in arguments.values()], first
    tensors, arrays = {}, {}
    for key, x in present.items():
        constant = x if key in native else ops.constant(x)
        if constant is None:
            arrays[key] = as_array(key, x)
        else:
            tensors[key] = constant
    dtypes = {key: ops.dtype(x) for key, x in tensors.items()}
    dtypes |= {key: array.dtype.name for key, array in arrays.items()}
    strong = native or [key for key, x in present.items() if isinstance(x, np.ndarray)]
    dtype = _common_dtype(framework, dtypes, strong, floating)
    like = present[native[0]] if native else None
    unified: dict[str, Any] = {}
    with ops.scope(dtype):
        for key, name in dtypes.items():
            if name == "uint64" and dtype in (None, "int64"):
                _check_uint64(framework, key, tensors.get(key, arrays.get(key)))
        for key, x in tensors.items():
            unified[key] = ops.cast(x, dtype)
        for key, array in arrays.items():
            unified[key] = ops.asarray(array, dtype or "float32", like)
    return [unified.get(key) for key in arguments], dtype


def _common_dtype(framework: Framework, dtypes: dict[str, str | None], strong: list[str], floating: bool) -> str | None:
    """The dtype of the result for arguments of these dtypes, the strong ones by name; None if one isn't known."""
    for key, name in dtypes.items():
        if name is not None:
            check_numeric(key, name)
    if None in dtypes.values():
        return None
    weak = [name for key, name in dtypes.items() if key not in strong and name]
    if floating:
        weak.append("float32")
    dtype = promote([name for key, name in dtypes.items() if key in strong and name], weak)
    check_supported(framework, dtype)
    return dtype


def asarray(framework: Framework, array: Any, dtype: Any = None) -> Any:
    """A tensor of the framework from an array, a list or a tensor of the framework; a list of floats is float32."""
    native = framework.adapter.is_native(array)
    values = array if native else as_array("array", array)
    if dtype is None:
        dtype = framework.ops.dtype(array) if native else values.dtype.name
        dtype = "float32" if dtype == "float64" and isinstance(array, (list, tuple)) else dtype
    name = dtype_name(dtype)
    check_numeric("array", name)
    check_supported(framework, name)
    with framework.ops.scope(name):
        return framework.ops.cast(values, name) if native else framework.ops.asarray(values, name)


def as_array(name: str, x: Any) -> np.ndarray:
    """A list, a number or another array-like as a NumPy array, or a typed error that names the argument.

    >>> as_array("X", [[1, 2], [3]])
    Traceback (most recent call last):
    convlab.errors.ShapeError: X: got a ragged list, expected rows of one length. Hint: ...
    """
    if isinstance(x, np.ndarray):
        return _in_this_order(x)
    if isinstance(x, (str, bytes, os.PathLike)):
        raise DTypeError(
            f"{name}: got {shown(x)}, expected a tensor, an array or a list.",
            hint="convlab.filters.sobel() and others make kernels."
            if name == "K"
            else "PIL.Image.open(path) reads an image, and is taken as it is.",
        )
    if getattr(x, "mode", None) == "P" and type(x).__module__.startswith("PIL."):
        raise DTypeError(
            f"{name}: got an image of Pillow's whose pixels are numbers of colours in a palette, expected colours.",
            hint="image.convert('RGB'), or image.convert('L') for grey.",
        )
    if not _readable(x):
        kind = "None" if x is None else f"{type(x).__module__}.{type(x).__qualname__}"
        raise DTypeError(f"{name}: got {kind}, expected a tensor, an array or a list.", hint=_no_array_hint(x))
    if isinstance(x, (list, tuple)) and any(owner(item) not in (None, "numpy") for item in _leaves(x)):
        raise DTypeError(
            f"{name}: got a list of tensors, expected a tensor, an array or a list of numbers.",
            hint="stack them by the framework's own stack, which keeps their gradients.",
        )
    try:
        return _in_this_order(_read(x))
    except ValueError as error:
        if "inhomogeneous" in str(error):
            raise ShapeError(
                f"{name}: got a ragged list, expected rows of one length.", hint="pad the short rows."
            ) from None
        raise DTypeError(f"{name}: NumPy can't read it ({error}).", hint="give an array of numbers.") from error
    except OSError as error:
        raise DTypeError(f"{name}: the image can't be read ({error}).", hint="the file may be cut off.") from error


def _no_array_hint(x: Any) -> str:
    """What may have happened to what is no array."""
    if x is None:
        return "cv2.imread gives None for a file that it can't read."
    if callable(x):
        return "a function must be called: convlab.filters.sobel()."
    return "convlab.backend(name).asarray makes a tensor of an array."


def _readable(x: Any) -> bool:
    """Whether NumPy reads an object as numbers and not as one Python object."""
    if isinstance(x, (list, tuple, int, float, complex)):
        return True
    if any(hasattr(x, name) for name in ("__array__", "__array_interface__", "__array_struct__")):
        return True
    try:
        memoryview(x)
    except TypeError:
        return False
    return True


def _in_this_order(x: np.ndarray) -> np.ndarray:
    """An array in this machine's order of bytes, its integers of a dtype that frameworks know.

    C's `long long` is a dtype of its own to NumPy, beside int64, with the same name and numbers.
    """
    x = x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))
    return x.view(f"{x.dtype.kind}8") if x.dtype.char in "qQ" else x


def _leaves(x: Any) -> Iterator[Any]:
    """The items of a list of lists, however deep."""
    for item in x:
        if isinstance(item, (list, tuple)):
            yield from _leaves(item)
        else:
            yield item


def _read(x: Any) -> np.ndarray:
    """The array of an array-like, or a ValueError that calls a ragged list inhomogeneous."""
    if _RAGGED_IS_AN_ERROR:
        return np.asarray(x)
    # Older NumPys only warn of a ragged list, and of array-likes in a list, which they don't read.
    if isinstance(x, (list, tuple)):
        x = _with_arrays(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return np.asarray(x)
        except Warning as warning:
            raise ValueError("inhomogeneous shape") from warning


def _with_arrays(x: Any) -> Any:
    """A list of lists whose array-likes are arrays."""
    if isinstance(x, (list, tuple)):
        return [_with_arrays(item) for item in x]
    return np.asarray(x) if hasattr(x, "__array_interface__") or hasattr(x, "__array__") else x


def check_supported(framework: Framework, dtype: str) -> None:
    """Raise `DTypeError` for a floating or complex dtype that the backend lacks."""
    if dtype not in framework.adapter.dtypes and dtype not in INTEGERS:
        raise DTypeError(
            f"backend {framework.name!r}: got dtype {dtype}, expected integers or one of "
            f"{', '.join(framework.adapter.dtypes)}.",
            hint="convert the arguments first, or use another backend.",
        )


def kernel_shape(ops: Operations, k: Any) -> Shape:
    """The kernel's shape, or `UnsupportedError` for a symbol of which it isn't known."""
    shape = ops.shape(k)
    if shape is None:
        raise UnsupportedError(
            "K: got a symbol of unknown shape, expected one whose shape is known while tracing.",
            hint="declare the shape of the kernel's parameter.",
        )
    return shape


def image_shape(ops: Operations, x: Any, kernel: Shape, geometry: Geometry) -> Shape:
    """The image's shape, its sizes unknown (None) for a symbol."""
    shape = ops.shape(x)
    if shape is None and len(kernel) == 2 and geometry.data_format == "NHWC":
        shape = ops.known_rank(x)
    return (None,) * len(kernel) if shape is None else shape


def check_bias(shape: Shape | None, channels: int | None) -> None:
    """Raise `ShapeError` unless a bias has a number for each of the result's channels (None: the kernel has rank 2)."""
    if channels is None:
        fits, expected = shape in ((), (1,), None), "a number or shape (1,) for a rank-2 kernel"
    else:
        fits, expected = shape in ((channels,), (None,), None), f"shape ({channels},), one for each output channel"
    if not fits:
        raise ShapeError(f"bias: got shape {shape}, expected {expected}.", hint="the bias is added per channel.")


def _check_devices(devices: dict[str, Any]) -> None:
    known = {key: device for key, device in devices.items() if device is not None}
    if len(set(known.values())) > 1:
        got = ", ".join(f"{key} on {device}" for key, device in sorted(known.items()))
        raise MixedDevicesError(
            f"{max(known)}: got {got}, expected tensors on one device.", hint="move them to X's device."
        )


def _check_uint64(framework: Framework, name: str, x: Any) -> None:
    """Raise `IntegerOverflowError` for a uint64 number that int64 can't hold, if the values are known."""
    if not isinstance(x, np.ndarray):
        x = framework.ops.to_numpy(x) if framework.ops.is_concrete(x) else np.zeros(0, np.uint64)
    if x.size and int(x.max()) >= 2**63:
        raise IntegerOverflowError(
            f"{name}: got {int(x.max())}, expected integers below 2**63: they are added up in int64.",
            hint="convert it to float64.",
        )
