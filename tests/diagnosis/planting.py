"""Wrong results to plant, computed by code that shares nothing with `convlab.testing`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

from convlab.testing import Diagnosis, diagnose

SEEDS = st.integers(0, 2**32 - 1)
LAYOUTS = ["NCHW", "NHWC"]
planted = pytest.mark.parametrize("layout", LAYOUTS)
several = pytest.mark.parametrize("seed", range(3))


def naive(x, k, stride=(1, 1), dilation=(1, 1), groups=1, begin=(0, 0)):
    """The definition in float64, window by window, for a padded image as NCHW."""
    n, _, height, width = x.shape
    o, per_group, h, w = k.shape
    rows = (height - begin[0] - (h - 1) * dilation[0] - 1) // stride[0] + 1
    columns = (width - begin[1] - (w - 1) * dilation[1] - 1) // stride[1] + 1
    y = np.zeros((n, o, rows, columns))
    for i, j in np.ndindex(rows, columns):
        top, left = begin[0] + i * stride[0], begin[1] + j * stride[1]
        down, right = slice(top, top + h * dilation[0], dilation[0]), slice(left, left + w * dilation[1], dilation[1])
        window = x[:, :, down, right][:, :, :h, :w]
        for out in range(o):
            first = out // (o // groups) * per_group
            y[:, out, i, j] = np.einsum("nchw,chw->n", window[:, first : first + per_group], k[out])
    return y


class Plant:
    """Random float32 X and K as NCHW and OIHW, and diagnose in either layout."""

    def __init__(self, seed, layout, x=(2, 3, 8, 9), k=(4, 3, 3, 2), **geometry) -> None:
        rng = np.random.default_rng(seed)
        self.x, self.k = (rng.standard_normal(shape).astype("float32") for shape in (x, k))
        self.bias = rng.standard_normal(k[0]).astype("float32")
        self.layout, self.geometry = layout, geometry

    def padded(self, pads, **how):
        return np.pad(self.x.astype(float), ((0, 0), (0, 0), *pads), **how)

    def laid_out(self, a):
        return np.moveaxis(a, 1, -1) if self.layout == "NHWC" else a

    def diagnose(self, y, bias=None, **options):
        """Diagnose a result as NCHW."""
        return self.raw(self.laid_out(np.asarray(y)), bias, **options)

    def raw(self, y, bias=None, **options):
        """Diagnose a result in the layout of the call."""
        k = self.k.transpose(2, 3, 1, 0) if self.layout == "NHWC" else self.k
        options |= self.geometry
        return diagnose(y.astype("float32"), self.laid_out(self.x), k, bias=bias, data_format=self.layout, **options)


def is_named(diagnosis, name, *, also=()):
    assert isinstance(diagnosis, Diagnosis), diagnosis
    assert (diagnosis.suspect, set(diagnosis.also)) == (name, set(also)), str(diagnosis)
    assert (diagnosis.worst <= 1) == (name != "unexplained")
    assert len(str(diagnosis).splitlines()) == 2 + bool(also)


def float32_loop(x, k):
    """Products added one after another in float32."""
    return serial(x, k, np.float32)


def serial(x, k, dtype, order=None):
    """Products added one after another in a dtype."""
    x, k = x.astype(dtype), k.astype(dtype)
    rows, columns = x.shape[2] - k.shape[2] + 1, x.shape[3] - k.shape[3] + 1
    y = np.zeros((x.shape[0], k.shape[0], rows, columns), dtype)
    terms = list(np.ndindex(*k.shape[1:]))
    for c, p, q in terms if order is None else [terms[i] for i in order]:
        y = y + x[:, None, c, p : p + rows, q : q + columns] * k[None, :, c, p, q, None, None]
    assert y.dtype == dtype
    return y
