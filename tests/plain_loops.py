"""The documented order of `reproducible=True` in plain loops, which add one Python float after another.

They take their borders from numpy.pad and share no code with convlab.
"""

from __future__ import annotations

import itertools

import numpy as np

from convlab.geometry.geometry import Geometry
from convlab.testing import fill

PAD_MODES = {
    "zeros": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
    "symmetric": "symmetric",
}


def wide(x: np.ndarray) -> np.ndarray:
    """Subnormal numbers are zero; of float64, all below 2^-1000."""
    least = 2.0**-1000 if x.dtype == "float64" else 2.0**-126
    values = x.astype("float64")
    return np.where(abs(values) < least, 0.0, values)


def times(a: float, b: float, dtype: str) -> float:
    product = a * b
    return 0.0 if dtype == "float64" and abs(product) < 2.0**-960 else product


def rounded(total: np.ndarray, dtype: str) -> np.ndarray:
    """Once to the dtype, float16 through float32; what it can't hold is +0, and NaN is NaN."""
    least = 2.0**-1000 if dtype == "float64" else 2.0**-126
    total = np.where(abs(total) < least, 0.0, total)
    total = total if dtype == "float64" else total.astype("float32").astype(dtype)
    return np.where(np.isnan(total), np.array(np.nan, dtype), np.where(total == 0, np.zeros((), dtype), total))


def tree(numbers: list[float]) -> float:
    while len(numbers) > 1:
        half = (len(numbers) + 1) // 2
        numbers = [a + b for a, b in itertools.zip_longest(numbers[:half], numbers[half:], fillvalue=0.0)]
    return numbers[0]


def padded(x: np.ndarray, geometry: Geometry) -> np.ndarray:
    return np.pad(wide(x), ((0, 0), (0, 0), *geometry.padding), PAD_MODES[geometry.padding_mode])


def windows(shape, k_shape, geometry: Geometry):
    """All (image, output channel, row, column, input channel, kernel row and column), with the padded image's place."""
    (n, outputs, rows, columns), (_, per_group, h, w) = shape, k_shape
    (sh, sw), (dh, dw), share = geometry.stride, geometry.dilation, outputs // geometry.groups
    for image, o, i, j, c, p, q in np.ndindex(n, outputs, rows, columns, per_group, h, w):
        yield (image, o, i, j), (o, c, p, q), (image, o // share * per_group + c, i * sh + p * dh, j * sw + q * dw)


def result(x, k, b, geometry: Geometry) -> np.ndarray:
    shape = (len(x), len(k), *geometry.output_size(x.shape[2:]))
    total, image, kernel = np.zeros(shape), padded(x, geometry), wide(k)
    for y_place, k_place, x_place in windows(shape, k.shape, geometry):
        total[y_place] += times(float(kernel[k_place]), float(image[x_place]), str(x.dtype))
    return rounded(total + wide(b).reshape(1, -1, 1, 1), str(x.dtype))


def kernel_gradient(x, dy, k_shape, geometry: Geometry) -> np.ndarray:
    image, seed = padded(x, geometry), wide(dy)
    columns = np.zeros((*k_shape, dy.shape[3]))
    for (n, o, i, j), k_place, x_place in windows(dy.shape, k_shape, geometry):
        columns[(*k_place, j)] += times(float(image[x_place]), float(seed[n, o, i, j]), str(x.dtype))
    total = np.array([tree(line.tolist()) for line in columns.reshape(-1, dy.shape[3])]).reshape(k_shape)
    return rounded(total, str(x.dtype))


def image_gradient(dy, k, x_shape, geometry: Geometry) -> np.ndarray:
    """For a finite dY and K, where the zeros that take part change nothing."""
    sizes = [n + sum(pads) for n, pads in zip(x_shape[2:], geometry.padding, strict=True)]
    total, seed, kernel = np.zeros((*x_shape[:2], *sizes)), wide(dy), wide(k)
    places = sorted(windows(dy.shape, k.shape, geometry), key=lambda each: (each[1][0], [-n for n in each[1][2:]]))
    for y_place, k_place, x_place in places:
        total[x_place] += times(float(kernel[k_place]), float(seed[y_place]), str(dy.dtype))
    for axis in (2, 3):
        total = without_border(total, x_shape[axis], geometry.padding[axis - 2], geometry.padding_mode, axis)
    return rounded(total, str(dy.dtype))


def without_border(total: np.ndarray, n: int, pads, mode: str, axis: int) -> np.ndarray:
    """Add up the positions that hold the same pixel, in their order."""
    pixels = np.pad(np.arange(n), pads, PAD_MODES[mode], **({"constant_values": -1} if mode == "zeros" else {}))
    lines = np.moveaxis(total, axis, 0)
    added: list[np.ndarray | None] = [None] * n
    for line, pixel in zip(lines, pixels, strict=True):
        if pixel >= 0:
            before = added[pixel]
            added[pixel] = line if before is None else before + line
    return np.moveaxis(np.array(added), 0, axis)


def bits(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    return array.dtype.name, array.shape, array.tobytes()


def arrays(problem, dtype: str, kind: str, seed: int):
    x_shape, k_shape, geometry = problem
    rng, shape = np.random.default_rng(seed), (x_shape[0], k_shape[0], *geometry.output_size(x_shape[2:]))
    return [fill(kind, each, dtype, rng) for each in (x_shape, k_shape, k_shape[:1], shape)]


def bias_gradient(dy) -> np.ndarray:
    total = np.zeros(dy.shape[1])
    for image in wide(dy):
        total += [tree([tree(row.tolist()) for row in plane]) for plane in image]
    return rounded(total, str(dy.dtype))
