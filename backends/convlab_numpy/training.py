"""Gradient descent with the gradient written out."""

from __future__ import annotations

from typing import Any

import numpy as np

from convlab.learning.problem import prepared_images
from convlab.learning.without_autograd import PlainDescent, draw, slopes

__all__ = ["Descent", "draw"]


class Descent(PlainDescent):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.tiles = [prepared_images(self.problem, *pair, *[None] * (3 - len(pair))) for pair in self.pairs]

    def slopes(self) -> np.ndarray:
        return np.sum([slopes(tile, self.kernel, self.bias) for tile in self.tiles], 0)  # type: ignore[no-any-return]
