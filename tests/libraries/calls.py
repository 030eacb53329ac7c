"""The calls of SciPy, OpenCV and scikit-image in docs/how-to, each beside its equal in convlab.

A row is (their call on a float64 image, our call on `lab`'s tensor x). OpenCV computes in float32.
"""

from __future__ import annotations

import cv2
import numpy as np
import scipy.ndimage as nd
import skimage.filters as sf
import skimage.restoration as sr

from convlab import filters

K = np.array([[1.0, -2.0, 0.0, 3.0], [2.0, 1.0, -1.0, 0.0], [0.0, 4.0, 2.0, -3.0]])
ROW = np.array([1.0, 3.0, -2.0, 5.0])
SAME = {"padding": "same", "origin": 0}
SCIPY_BORDER = {**SAME, "padding_mode": "symmetric"}
OPENCV_BORDER = {**SAME, "padding_mode": "reflect"}
NEAREST = {**SAME, "padding_mode": "nearest"}


def corr2d(kernel, **options):
    """Our call, whose kernel isn't made inside of what is compiled."""
    return lambda lab, x: lab.corr2d(x, kernel, **options)


def conv2d(kernel, **options):
    return lambda lab, x: lab.conv2d(x, kernel, **options)


SCIPY = {
    "correlate": (lambda x: nd.correlate(x, K), corr2d(K, **SCIPY_BORDER)),
    "correlate, constant": (
        lambda x: nd.correlate(x, K, mode="constant", cval=2.0),
        corr2d(K, **SAME, padding_mode="constant", padding_value=2.0),
    ),
    "correlate, origin": (
        lambda x: nd.correlate(x, K, mode="nearest", origin=(-1, 1)),
        corr2d(K, padding="same", padding_mode="nearest", origin=(-1, 1)),
    ),
    "convolve": (lambda x: nd.convolve(x, K), conv2d(K, **SCIPY_BORDER)),
    "convolve, origin": (
        lambda x: nd.convolve(x, K, mode="mirror", origin=(1, -1)),
        conv2d(K, padding="same", padding_mode="mirror", origin=(1, -1)),
    ),
    "correlate1d": (
        lambda x: nd.correlate1d(x, ROW, axis=1),
        corr2d(ROW[None], **SCIPY_BORDER),
    ),
    "correlate1d, axis 0": (
        lambda x: nd.correlate1d(x, ROW, axis=0, mode="wrap"),
        corr2d(ROW[:, None], **SAME, padding_mode="wrap"),
    ),
    "convolve1d": (
        lambda x: nd.convolve1d(x, ROW, axis=1),
        conv2d(ROW[None], **SCIPY_BORDER),
    ),
    "gaussian_filter": (
        lambda x: nd.gaussian_filter(x, 1.5, truncate=3.0),
        corr2d(filters.gaussian_blur(1.5, truncate=3.0), **SCIPY_BORDER),
    ),
    "gaussian_filter, two sigmas": (
        lambda x: nd.gaussian_filter(x, (0.8, 2.0)),
        corr2d(filters.gaussian_blur((0.8, 2.0)), **SCIPY_BORDER),
    ),
    "gaussian_filter, order": (
        lambda x: nd.gaussian_filter(x, 1.2, order=(1, 2)),
        corr2d(filters.gaussian_derivative(1.2, (1, 2)), **SCIPY_BORDER),
    ),
    "sobel": (lambda x: nd.sobel(x, 0), corr2d(filters.sobel(0), **SCIPY_BORDER)),
    "prewitt": (lambda x: nd.prewitt(x, 1), corr2d(filters.prewitt(1), **SCIPY_BORDER)),
    "laplace": (lambda x: nd.laplace(x), corr2d(filters.laplacian(), **SCIPY_BORDER)),
    "gaussian_laplace": (
        lambda x: nd.gaussian_laplace(x, 1.5),
        corr2d(filters.laplacian_of_gaussian(1.5), **SCIPY_BORDER),
    ),
    "uniform_filter": (
        lambda x: nd.uniform_filter(x, (4, 3)),
        corr2d(filters.box_blur((4, 3)), **SCIPY_BORDER),
    ),
}


def _opencv(function):
    """Their function on float32."""
    return lambda x: function(x.astype(np.float32))


OPENCV = {
    "filter2D": (
        _opencv(lambda x: cv2.filter2D(x, -1, K)),
        corr2d(K, **OPENCV_BORDER),
    ),
    "filter2D, anchor": (
        _opencv(lambda x: cv2.filter2D(x, -1, K, anchor=(1, 0), borderType=cv2.BORDER_REPLICATE)),
        corr2d(K, padding="same", origin=(0 - 3 // 2, 1 - 4 // 2), padding_mode="replicate"),
    ),
    "filter2D, delta": (
        _opencv(lambda x: cv2.filter2D(x, -1, K, delta=7, borderType=cv2.BORDER_CONSTANT)),
        corr2d(K, bias=7, **SAME),
    ),
    "sepFilter2D": (
        _opencv(lambda x: cv2.sepFilter2D(x, -1, ROW, ROW[:3], borderType=cv2.BORDER_REFLECT)),
        corr2d(np.outer(ROW[:3], ROW), **SAME, padding_mode="BORDER_REFLECT"),
    ),
    "Sobel": (
        _opencv(lambda x: cv2.Sobel(x, -1, 1, 0, ksize=5)),
        corr2d(filters.sobel(1, size=5), **OPENCV_BORDER),
    ),
    "Sobel, dy": (
        _opencv(lambda x: cv2.Sobel(x, -1, 0, 1)),
        corr2d(filters.sobel(0), **OPENCV_BORDER),
    ),
    "Scharr": (
        _opencv(lambda x: cv2.Scharr(x, -1, 0, 1)),
        corr2d(filters.scharr(0), **OPENCV_BORDER),
    ),
    "GaussianBlur": (
        _opencv(lambda x: cv2.GaussianBlur(x, (7, 7), 1.4)),
        corr2d(filters.gaussian_blur(1.4, size=7), **OPENCV_BORDER),
    ),
    "boxFilter": (
        _opencv(lambda x: cv2.boxFilter(x, -1, (4, 3))),
        corr2d(filters.box_blur((3, 4)), **OPENCV_BORDER),
    ),
    "blur": (
        _opencv(lambda x: cv2.blur(x, (5, 5), borderType=cv2.BORDER_REFLECT)),
        corr2d(filters.box_blur(5), **SCIPY_BORDER),
    ),
    "Laplacian": (
        _opencv(lambda x: cv2.Laplacian(x, -1)),
        corr2d(filters.laplacian(), **OPENCV_BORDER),
    ),
    "Laplacian, ksize 3": (
        _opencv(lambda x: cv2.Laplacian(x, -1, ksize=3)),
        corr2d(2 * (filters.laplacian(8) - filters.laplacian()), **OPENCV_BORDER),
    ),
}

SKIMAGE = {
    "gaussian": (
        lambda x: sf.gaussian(x, 1.5),
        corr2d(filters.gaussian_blur(1.5), **NEAREST),
    ),
    "sobel_h": (lambda x: sf.sobel_h(x), corr2d(filters.sobel(0) / 4, **SCIPY_BORDER)),
    "sobel_v": (lambda x: sf.sobel_v(x), corr2d(filters.sobel(1) / 4, **SCIPY_BORDER)),
    "scharr_v": (lambda x: sf.scharr_v(x), corr2d(filters.scharr(1) / 16, **SCIPY_BORDER)),
    "prewitt_h": (lambda x: sf.prewitt_h(x), corr2d(filters.prewitt(0) / 3, **SCIPY_BORDER)),
    "laplace": (lambda x: sf.laplace(x), corr2d(-filters.laplacian(), **SCIPY_BORDER)),
    "difference_of_gaussians": (
        lambda x: sf.difference_of_gaussians(x, 1.0, 2.0),
        corr2d(filters.difference_of_gaussians(1.0, 2.0), **NEAREST),
    ),
    "unsharp_mask": (
        lambda x: sf.unsharp_mask(x, 1.2, 0.7, preserve_range=True),
        corr2d(filters.unsharp_mask(1.2, 0.7), **SCIPY_BORDER),
    ),
    "wiener": (
        lambda x: sr.wiener(x, K / K.sum(), 0.1, clip=False),
        lambda lab, x: filters.wiener(x, K / K.sum(), 0.1, convolution=True),
    ),
    "richardson_lucy": (
        lambda x: sr.richardson_lucy(x, filters.gaussian_blur(1.0), 5, clip=False),
        lambda lab, x: filters.richardson_lucy(x, filters.gaussian_blur(1.0), 5, convolution=True),
    ),
}
