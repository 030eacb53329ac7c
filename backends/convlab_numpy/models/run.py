"""NumPy's layer, run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..layers import Conv2D
from ..ops import ops


def run(natives: Sequence[Conv2D], x: np.ndarray, dtype: str) -> np.ndarray:
    """See `convlab.models.adapters.Models`."""
    y = ops.asarray(x, dtype)
    for native in natives:
        nhwc = native.spec.data_format == "NHWC" and native.weight is not None and native.weight.ndim == 4
        y = native(np.moveaxis(y, 1, -1) if nhwc else y)
        y = np.moveaxis(y, -1, 1) if nhwc else y
    return ops.to_numpy(y)


def gradients(natives: Sequence[Conv2D], x: np.ndarray, dy: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """See `convlab.models.adapters.Models`: none, for NumPy has no autograd."""
    return {}
