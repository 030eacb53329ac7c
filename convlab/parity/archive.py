"""Files of arrays that may come from strangers: sizes are checked before memory is taken, pickles are refused."""

from __future__ import annotations

import io
import math
import sys
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import CaseFileError
from ..geometry.lower import output_shape
from ..geometry.options import GEOMETRY_OPTIONS
from ..testing.cases import Case
from ..truth.oracle import lowered_geometry

# The most bytes that all arrays together may have.
LARGEST = 2**28
# The most bytes that the header of an array may have, which is NumPy's own limit.
_HEADER = 10_000
_MEMBERS = 32
_PRODUCTS = 10**10


def read_case(path: Path) -> Case:
    """A case from a file that `numpy.savez` wrote: X and K, optionally bias, Y (a result to be checked) and options.

    Options are corr2d's: stride, padding, origin, dilation, groups as integers, padding_mode and data_format as
    strings, padding_value as a number.

    Raises:
        CaseFileError: whatever is wrong with the file.
    """
    try:
        with path.open("rb") as file:
            arrays = read_arrays(file, str(path))
    except OSError as error:
        raise CaseFileError(
            f"{path}: can't be read ({error.strerror}).", hint="give the path of an .npz file."
        ) from None
    names = (*GEOMETRY_OPTIONS, "origin")
    unknown = sorted(set(arrays) - {"X", "K", "bias", "Y", *names})
    if unknown or not {"X", "K"} <= set(arrays):
        raise CaseFileError(
            f"{path}: got the arrays {', '.join(sorted(arrays)) or 'none'}, expected X and K, optionally bias, Y and "
            f"{', '.join(names)}.",
            hint="numpy.savez(path, X=image, K=kernel, stride=2).",
        )
    options = {name: _option(arrays.pop(name)) for name in names if name in arrays}
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise CaseFileError(
                f"{path}: {name} has dtype {array.dtype}, expected real numbers.", hint="convert it to float32."
            )
    _check_work(path, arrays["X"].shape, arrays["K"].shape, options)
    return Case(path.name, arrays["X"], arrays["K"], arrays.get("bias"), options, Y=arrays.get("Y"), source=str(path))


def _check_work(path: Path, x: tuple[int, ...], k: tuple[int, ...], options: dict[str, Any]) -> None:
    """Raise `CaseFileError` if the image in float64, padded, or the result would take too much memory or time."""
    shape = output_shape(x, k, **options)
    lowered = lowered_geometry(x, k, **options)
    pads = lowered.padding
    rows, columns = (-3, -2) if lowered.data_format == "NHWC" and len(x) > 2 else (-2, -1)
    grown = (x[rows] + sum(pads[0])) * (x[columns] + sum(pads[1])) * math.prod(x) // max(x[rows] * x[columns], 1)
    size, products = 8 * (grown + math.prod(shape)), math.prod(shape) * math.prod(k)
    if size > LARGEST or products > _PRODUCTS:
        raise CaseFileError(
            f"{path}: X padded and a result of shape {shape} take {size} bytes in float64 and some {products:.0e} "
            f"products, expected at most {LARGEST} and {_PRODUCTS:.0e}.",
            hint="cut a piece out of the image.",
        )


def _option(array: np.ndarray) -> Any:
    value = array.tolist() if array.size <= 4 else None
    if not isinstance(value, list):
        return value
    return tuple(tuple(item) if isinstance(item, list) else item for item in value)


def read_arrays(file: BinaryIO, name: str) -> dict[str, np.ndarray]:
    """The arrays of an `.npz`.

    Raises:
        CaseFileError: not an `.npz`, Python objects in it, or more than `LARGEST` bytes of arrays.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) > _MEMBERS:
                raise CaseFileError(
                    f"{name}: got {len(members)} arrays, expected at most {_MEMBERS}.", hint="split it."
                )
            remaining, arrays = LARGEST, {}
            for member in members:
                if member.filename.removesuffix(".npy") in arrays:
                    raise CaseFileError(f"{name}: got {member.filename} twice.", hint="write it with numpy.savez.")
                with archive.open(member) as stream:
                    array = _read_array(stream, f"{name}: {member.filename}", remaining)
                remaining -= array.nbytes
                arrays[member.filename.removesuffix(".npy")] = array
            return arrays
    except CaseFileError:
        raise
    except Exception as error:  # A damaged file may raise any error in zipfile and zlib.
        raise CaseFileError(
            f"{name}: not a readable .npz file ({error}).", hint="write it with numpy.savez."
        ) from error


def _read_array(stream: Any, name: str, limit: int) -> np.ndarray:
    start = stream.read(12)
    major = start[6] if start[:6] == b"\x93NUMPY" and len(start) == 12 else 0
    if major not in (1, 2, 3):
        raise CaseFileError(f"{name}: not an array in NumPy's format.", hint="write it with numpy.savez.")
    length = int.from_bytes(start[8:10] if major == 1 else start[8:12], "little")
    if length > _HEADER:
        raise CaseFileError(
            f"{name}: got a header of {length} bytes, expected at most {_HEADER}.", hint="is it damaged?"
        )
    prefix = 10 if major == 1 else 12
    header = io.BytesIO(start[8:] + stream.read(prefix + length - 12))
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(header)
    if dtype.hasobject or dtype.names or dtype.kind not in "biufU":
        raise CaseFileError(
            f"{name}: got dtype {dtype}, expected real numbers.", hint="object arrays are pickles: refused."
        )
    size = math.prod(shape) * dtype.itemsize  # Python's integers don't overflow, as NumPy's would.
    if size > limit or min(shape, default=0) < 0:
        raise CaseFileError(
            f"{name}: got shape {shape} of {dtype}, {size} bytes, expected at most {limit}.",
            hint="cut the arrays down.",
        )
    content = stream.read(size)
    if len(content) != size:
        raise CaseFileError(f"{name}: got {len(content)} bytes of data, expected {size}.", hint="the file is cut off.")
    if dtype.kind == "U" and (np.frombuffer(content, f"{dtype.byteorder}u4") > sys.maxunicode).any():
        raise CaseFileError(f"{name}: got a string of no Unicode characters.", hint="the file is damaged.")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def write_arrays(arrays: dict[str, np.ndarray]) -> bytes:
    """An `.npz` in memory."""
    out = io.BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()
