"""A kernel from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import ConvlabError

_LARGEST = 4096
_EXAMPLE = 'a text file with the lines "0 1 0", "1 -4 1" and "0 1 0" is an example.'


class KernelFileError(ConvlabError, ValueError):
    """A file that holds no kernel."""


def read_kernel(path: str | Path) -> np.ndarray:
    """A kernel (h, w) in float64: an .npy, or a text of numbers, a row a line, apart by spaces, tabs or commas.

    Raises:
        KernelFileError: no such file, or content that is no matrix of finite numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise KernelFileError(f"{path}: no such file, expected a kernel.", hint="check the path.")
    try:
        if path.suffix.lower() == ".npy":
            kernel = np.load(path, allow_pickle=False)
        else:
            text = path.read_text(encoding="utf-8-sig").replace(",", " ").replace(";", " ")
            kernel = np.loadtxt(text.splitlines() or ["#"], ndmin=2) if text.strip() else np.empty((0, 0))
    except Exception as error:
        raise KernelFileError(f"{path}: not a matrix of numbers ({error}).", hint=_EXAMPLE) from error
    if not isinstance(kernel, np.ndarray) or kernel.dtype.kind not in "uif":
        got = getattr(kernel, "dtype", "several arrays")
        raise KernelFileError(f"{path}: got {got}, expected real numbers.", hint=_EXAMPLE)
    if kernel.ndim != 2 or not 1 <= min(kernel.shape) <= max(kernel.shape) <= _LARGEST:
        raise KernelFileError(
            f"{path}: got shape {kernel.shape}, expected (h, w) of 1 to {_LARGEST} each.", hint=_EXAMPLE
        )
    kernel = kernel.astype(np.float64)
    if not np.isfinite(kernel).all():
        row, column = np.argwhere(~np.isfinite(kernel))[0]
        raise KernelFileError(
            f"{path}: got {kernel[row, column]} in row {row}, column {column}, expected finite numbers.",
            hint="a kernel with NaN would make every pixel NaN.",
        )
    return kernel
