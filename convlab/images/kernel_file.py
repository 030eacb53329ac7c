"""A kernel from a file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..errors import ConvlabError

_LARGEST = 4096
_EXAMPLE = 'a text file with the lines "0 1 0", "1 -4 1" and "0 1 0" is an example.'


class KernelFileError(ConvlabError, ValueError):
    """A file that holds no kernel."""


def read_kernel(path: str | Path) -> np.ndarray:
    """A kernel (h, w) in float64: an .npy, or a text of numbers, a row a line.

    The numbers of a text are apart by spaces and tabs, by commas, or by semicolons.

    Raises:
        KernelFileError: no such file, or content that is no matrix of finite numbers.
    """
    path = Path(path)
    if not path.is_file():
        kind = "a folder, expected a file with a kernel" if path.is_dir() else "no such file, expected a kernel"
        raise KernelFileError(f"{path}: {kind}.", hint="check the path.")
    try:
        kernel = np.load(path, allow_pickle=False) if path.suffix.lower() == ".npy" else _read_text(path)
    except KernelFileError:
        raise
    except Exception as error:
        raise KernelFileError(f"{path}: not a matrix of numbers ({error}).", hint=_EXAMPLE) from error
    if not isinstance(kernel, np.ndarray) or kernel.dtype.kind not in "uif":
        got = getattr(kernel, "dtype", "several arrays")
        raise KernelFileError(f"{path}: got {got}, expected real numbers.", hint=_EXAMPLE)
    if kernel.ndim != 2 or not 1 <= min(kernel.shape) <= max(kernel.shape) <= _LARGEST:
        hint = "kernel[None] is a kernel of one row." if kernel.ndim == 1 else _EXAMPLE
        raise KernelFileError(f"{path}: got shape {kernel.shape}, expected (h, w) of 1 to {_LARGEST} each.", hint=hint)
    kernel = kernel.astype(np.float64)
    if not np.isfinite(kernel).all():
        row, column = np.argwhere(~np.isfinite(kernel))[0]
        raise KernelFileError(
            f"{path}: got {kernel[row, column]} in row {row}, column {column}, expected finite numbers.",
            hint="a kernel with NaN would make every pixel NaN.",
        )
    return kernel


def _read_text(path: Path) -> np.ndarray:
    """The numbers in a text; a decimal comma is refused, and never read as a column."""
    text = path.read_text(encoding="utf-8-sig")
    rows = [line.partition("#")[0].strip() for line in text.splitlines()]
    separators = {between.strip() or " " for row in rows for between in re.findall(r"\s*[,;]\s*|\s+", row)}
    if len(separators) > 1:
        got = " and ".join(map(repr, sorted(separators, reverse=True)))
        raise KernelFileError(f"{path}: got both {got}, expected one of them.", hint="write 0.5 with a point.")
    return np.loadtxt([re.sub("[,;]", " ", row) for row in rows], ndmin=2) if any(rows) else np.empty((0, 0))
