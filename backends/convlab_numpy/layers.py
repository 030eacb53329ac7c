"""convlab's layer for NumPy."""

from __future__ import annotations

from convlab.learning.without_autograd import PlainConv2D


class Conv2D(PlainConv2D):
    """`corr2d` with a weight and a bias. Without a seed the initial weight is drawn from NumPy's global generator.

    >>> import numpy as np
    >>> layer = Conv2D((1, 2), seed=0)
    >>> layer.weight = np.array([[1.0, -1.0]])
    >>> layer(np.array([[1.0, 0.0, 0.0]]))
    array([[1., 0.]])
    """

    backend = "numpy"
