"""MXNet's files of arrays, read without MXNet; and checked before it reads one: it believes whatever lengths it claims.

A file is, little-endian: 0x112 and 0 (8 bytes each), the number of arrays (8), the arrays, the number of names (8), and
each name's length (8) and bytes. An array is a magic number (4; one for arrays of classic shapes, one for NumPy's), its
storage type (4; 0 is dense), its rank (4), its sizes (8 each), the kind and the number of its device (4 each), its
dtype (4), and its numbers.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ....errors import ModelFileError

_LIST = 0x112
_CLASSIC, _NUMPY = 0xF993FAC9, 0xF993FACA
_DTYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8", 7: "bool"}
_MOST_AXES = 32
# The kinds of devices: CPU, GPU, pinned and shared memory.
_DEVICES = (1, 2, 3, 5)


def check_params_file(path: Path) -> None:
    """Check the lengths in a file.

    Raises:
        ModelFileError: they don't add up to the file, or something in it isn't dense arrays and their names.
    """
    _arrays(path, keep=False)


def read_params_file(path: Path) -> dict[str, np.ndarray]:
    """The arrays in a file by name, without "arg:" and "aux:" before it.

    Raises:
        ModelFileError: as `check_params_file`.
    """
    return {name.removeprefix("arg:").removeprefix("aux:"): array for name, array in _arrays(path, keep=True).items()}


def _arrays(path: Path, keep: bool) -> dict[str, np.ndarray]:
    try:
        if path.exists() and not path.is_file():
            raise OSError("no file")
        with open(path, "rb") as file:
            return _Reader(file, path.stat().st_size, keep).file()
    except (OSError, ValueError) as error:
        raise ModelFileError(
            f"{path}: got {error}, expected a file of arrays that MXNet saved.",
            hint="it may be another kind of file, or have been cut off; it is left as it is.",
        ) from error


class _Reader:
    def __init__(self, file: BinaryIO, size: int, keep: bool) -> None:
        self.stream, self.remaining, self.keep = file, size, keep

    def take(self, form: str) -> tuple[Any, ...]:
        """Read the next numbers."""
        return struct.unpack(f"<{form}", self.bytes(struct.calcsize(f"<{form}")))

    def bytes(self, count: int) -> bytes:
        self.spend(count)
        content = self.stream.read(count)
        if len(content) < count:
            raise ValueError("a file that became shorter")
        return content

    def spend(self, count: int) -> None:
        """Count bytes that the file must still have."""
        if count > self.remaining:
            raise ValueError(f"a length of {count} bytes where {self.remaining} are left")
        self.remaining -= count

    def file(self) -> dict[str, np.ndarray]:
        """The arrays by name; empty ones unless they are to be kept."""
        magic, reserved, arrays = self.take("QQQ")
        if magic != _LIST or reserved:
            raise ValueError("no list of arrays")
        if arrays > self.remaining:  # Each array has more than a byte.
            self.spend(arrays)
        read = [self.array() for _ in range(arrays)]
        (count,) = self.take("Q")
        if count != arrays:
            raise ValueError(f"{count} names for {arrays} arrays")
        names = [self.bytes(*self.take("Q")).decode() for _ in range(count)]
        if len({*names}) < count:
            raise ValueError("a name twice")
        if self.remaining:
            raise ValueError(f"{self.remaining} bytes too many")
        return dict(zip(names, read, strict=True))

    def array(self) -> np.ndarray:
        """Read one array; its numbers are passed over unless they are to be kept."""
        magic, storage, rank = self.take("Iii")
        if magic not in (_CLASSIC, _NUMPY) or storage != 0 or not (magic == _CLASSIC) <= rank <= _MOST_AXES:
            raise ValueError("no dense array where one should be")
        sizes = self.take(f"{rank}q")
        device, number, dtype = self.take("iii")
        if min(sizes, default=1) < (magic == _CLASSIC) or device not in _DEVICES or number < 0 or dtype not in _DTYPES:
            raise ValueError(f"an array of sizes {[*sizes]}, device {device} and dtype {dtype}")
        count = math.prod(sizes) * np.dtype(_DTYPES[dtype]).itemsize
        if self.keep:
            return np.frombuffer(self.bytes(count), _DTYPES[dtype]).reshape(sizes)
        self.spend(count)
        self.stream.seek(count, 1)
        return np.zeros(0)
