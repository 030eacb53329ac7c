"""convlab's layer for Dask: a callable whose weight and bias are NumPy arrays, and whose results are lazy."""

from __future__ import annotations

from convlab.learning.without_autograd import PlainConv2D


class Conv2D(PlainConv2D):
    """`corr2d` with a weight and a bias. Without a seed the initial weight is drawn from NumPy's global generator.

    >>> import dask.array as da
    >>> layer = Conv2D((1, 2), seed=0)
    >>> layer(da.zeros((6, 8), chunks=4))
    dask.array<corr2d, shape=(6, 7), dtype=float64, chunksize=(4, 4), chunktype=numpy.ndarray>
    """

    backend = "dask"
