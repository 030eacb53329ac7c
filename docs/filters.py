"""Draws docs/filters.png: each kernel of `convlab.filters` and what it makes of a picture. It needs `convlab[plot]`."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import convlab
from convlab import filters

KERNELS = {
    "edge(30)": filters.edge(30),
    "sobel(1, size=5)": filters.sobel(1, size=5),
    "scharr(0)": filters.scharr(0),
    "prewitt(1)": filters.prewitt(1),
    "laplacian()": filters.laplacian(),
    "laplacian(8)": filters.laplacian(8),
    "laplacian_of_gaussian(2)": filters.laplacian_of_gaussian(2),
    "difference_of_gaussians(2)": filters.difference_of_gaussians(2),
    "gaussian_derivative(2)": filters.gaussian_derivative(2),
    "gabor(8, 45)": filters.gabor(8, 45),
    "box_blur(7)": filters.box_blur(7),
    "gaussian_blur(3)": filters.gaussian_blur(3),
    "gaussian_blur((1, 4), angle=30)": filters.gaussian_blur((1, 4), angle=30),
    "motion_blur(15, 30)": filters.motion_blur(15, 30),
    "sharpen(2)": filters.sharpen(2),
    "unsharp_mask(2, 2)": filters.unsharp_mask(2, 2),
}


def picture(size: int = 128) -> np.ndarray:
    """Stripes of growing width, a disc, a square, small spots and a ramp, between 0 and 1."""
    y, x = np.mgrid[:size, :size] / size
    image = 0.3 + 0.2 * x
    image = np.where(y < 0.35, 0.5 + 0.4 * np.sign(np.sin(2 * np.pi * (2 * x + 12 * x**2))), image)
    image = np.where(np.hypot(y - 0.68, x - 0.27) < 0.2, 0.9, image)
    image = np.where((abs(y - 0.68) < 0.15) & (abs(x - 0.75) < 0.15), 0.05, image)
    for spot in range(5):
        image = np.where(np.hypot(y - 0.68, x - 0.62 - 0.06 * spot) < 0.005 + 0.004 * spot, 0.95, image)
    return image


def main() -> None:
    """Write the picture."""
    image = picture()
    figure, axes = plt.subplots(4, 8, figsize=(14, 7.4), layout="constrained")
    for (name, kernel), (left, right) in zip(KERNELS.items(), axes.reshape(-1, 2), strict=True):
        largest = np.abs(kernel).max()
        left.imshow(kernel, "RdBu", vmin=-largest, vmax=largest)
        left.set_title(name, fontsize=8, loc="left")
        right.imshow(convlab.corr2d(image, kernel, padding="same", origin=0, padding_mode="symmetric"), "gray")
        for each in (left, right):
            each.set_xticks([])
            each.set_yticks([])
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=80)


if __name__ == "__main__":
    main()
