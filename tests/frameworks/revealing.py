"""A case whose sums show their order, and NumPy's reproducible result of it."""

from __future__ import annotations

import numpy as np

import convlab
from convlab.testing import fill

OPTIONS = {"padding": ((1, 2), (0, 1)), "padding_mode": "reflect", "stride": (2, 1), "groups": 2}


def arrays(dtype: str = "float32", kind: str = "cancelling") -> tuple[np.ndarray, ...]:
    """X, K, bias, the result for OPTIONS, and a gradient with respect to it."""
    rng = np.random.default_rng(0)
    x, k, b = (fill(kind, shape, dtype, rng) for shape in ((2, 4, 8, 9), (6, 2, 3, 2), (6,)))
    y = convlab.corr2d(x, k, bias=b, reproducible=True, **OPTIONS)
    return x, k, b, y, fill(kind, y.shape, dtype, rng)
