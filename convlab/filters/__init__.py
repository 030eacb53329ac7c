"""Well-known kernels, and how to undo a blur.

Each kernel is a NumPy float64 array of shape (h, w) for `corr2d`, beside an image of any framework, whose dtype it
takes (on NumPy give `kernel.astype(image.dtype)`, or the result is float64). A separable one is computed row by row and
column by column where that is faster.
"""

from .blurs import box_blur, gaussian_blur, motion_blur, sharpen, unsharp_mask
from .edges import (
    derivative,
    difference_of_gaussians,
    edge,
    gabor,
    gaussian_derivative,
    laplacian,
    laplacian_of_gaussian,
    prewitt,
    scharr,
    sobel,
)
from .parse import parse
from .restoration import richardson_lucy, wiener

__all__ = [
    "box_blur",
    "derivative",
    "difference_of_gaussians",
    "edge",
    "gabor",
    "gaussian_blur",
    "gaussian_derivative",
    "laplacian",
    "laplacian_of_gaussian",
    "motion_blur",
    "parse",
    "prewitt",
    "richardson_lucy",
    "scharr",
    "sharpen",
    "sobel",
    "unsharp_mask",
    "wiener",
]
