"""The examples of the chapter "Convolutions for Images" of *Dive into Deep Learning*, as NumPy arrays."""

from __future__ import annotations

import numpy as np

# Section 7.2.3: detects edges between horizontally neighbouring pixels; 1 from white to black, -1 back.
EDGE_KERNEL = np.array([[1.0, -1.0]], dtype=np.float32)


def edge_image(height: int = 6, width: int = 8) -> np.ndarray:
    """White, with a black band in columns 2 to 5 of 8: the chapter's image.

    >>> edge_image()[0]
    array([1., 1., 0., 0., 0., 0., 1., 1.], dtype=float32)
    """
    image = np.ones((height, width), dtype=np.float32)
    image[:, width // 4 : width - width // 4] = 0.0
    return image


def diagonal_image(size: int = 8) -> np.ndarray:
    """White below the main diagonal and on it, black above (exercise 1).

    The kernel [1, -1] finds its edge; so it does in the transpose, with the opposite sign; so does the transposed
    kernel, with the opposite sign again.

    >>> diagonal_image(3)
    array([[1., 0., 0.],
           [1., 1., 0.],
           [1., 1., 1.]], dtype=float32)
    """
    return np.tri(size, dtype=np.float32)
