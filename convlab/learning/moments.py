"""What squared error needs to know about images: sums over their windows, added up strip by strip.

Squared error is a quadratic in the kernel. With V the matrix of X's windows, one row for each pixel of Y (and a column
of ones, if there is a bias), and W the diagonal matrix of the weights, it is

    loss(K) = K' A K - 2 b' K + c,    A = V' W V,    b = V' W Y,    c = Y' W Y,

so that its gradient, 2 (A K - b), costs what the kernel costs and not what the image costs. A, b and c (`Moments`) are
sums over pixels: those of two strips, images or machines are added by `+`. Exact sums (`ExactMoments`) are also added
by `+`, whatever the order, and so are the triangular factors of V (`Factor`), which don't square its condition number.

`convlab.learning.window_sums` computes them from images that are padded already. It multiplies matrices or, for one
channel of input, transforms: but for the image's border, A depends only on the distance of two pixels of the window,
and it is corrected for the border.

A lazy backend (Dask) supplies two functions in its `training` module. `statistics(problem, x, y, weights, kind, name)`
is the sum of `convlab.learning.problem.statistics` over parts of its images in the user's layout. Each part has the
pixels around it, so that it is padded already (`problem.unpadded()`); y and weights are cut alike. `identity(images)`
gives the arrays by which a checkpoint knows lazy images. `learn_kernel` needs no more of the backend: "gram" and
"lstsq" continue from these sums, and their kernel is a NumPy array.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .exact_sums import ExactSum

StatisticsKind = Literal["moments", "factor", "reproducible"]


@dataclass(frozen=True)
class Moments:
    """A, b and c, as the module defines them; groups of channels, or outputs with their own weights, are blocks of A.

    Attributes:
        gram: A, (blocks, n, n), n = channels in a group * h * w, plus 1 with a bias.
        cross: b, (blocks, n, outputs in a block).
        energy: c, the weighted sum of Y's squares.
        pixels: how many of Y's numbers have weight.
    """

    gram: np.ndarray
    cross: np.ndarray
    energy: float
    pixels: int

    def __add__(self, other: Moments) -> Moments:
        a, b = _alike(self, other)
        return Moments(a.gram + b.gram, a.cross + b.cross, a.energy + b.energy, a.pixels + b.pixels)

    def by_output(self) -> Moments:
        """The same with a block for each output."""
        n, outputs = self.cross.shape[1:]
        cross = self.cross.transpose(0, 2, 1).reshape(-1, n, 1)
        return Moments(np.repeat(self.gram, outputs, 0), cross, self.energy, self.pixels)

    def pack(self) -> dict[str, np.ndarray]:
        """The statistics as named arrays."""
        return {f"moments/{name}": np.array(value) for name, value in vars(self).items()}

    @classmethod
    def unpack(cls, arrays: dict[str, np.ndarray]) -> Moments:
        """The inverse of `pack`."""
        energy, pixels = float(arrays["moments/energy"]), int(arrays["moments/pixels"])
        return cls(arrays["moments/gram"], arrays["moments/cross"], energy, pixels)

    def loss(self, kernel: np.ndarray) -> float:
        """The squared error of a kernel, (blocks, n, outputs in a block)."""
        return float(self.energy + (kernel * (self.gram @ kernel - 2 * self.cross)).sum())


@dataclass(frozen=True)
class ExactMoments:
    """Moments as exact sums."""

    gram: ExactSum
    cross: ExactSum
    energy: ExactSum
    pixels: int

    def __add__(self, other: ExactMoments) -> ExactMoments:
        a, b = _alike(self, other)
        return ExactMoments(a.gram + b.gram, a.cross + b.cross, a.energy + b.energy, a.pixels + b.pixels)

    def by_output(self) -> ExactMoments:
        """See `Moments.by_output`."""
        n, outputs = next(iter(self.cross.parts.values())).shape[1:]
        cross = self.cross.map(lambda part: part.transpose(0, 2, 1).reshape(-1, n, 1))
        gram = self.gram.map(lambda part: np.repeat(part, outputs, 0))
        return ExactMoments(gram, cross, self.energy, self.pixels)

    def rounded(self) -> Moments:
        """The moments, each number rounded once."""
        energy = float(self.energy.rounded()[0, 0, 0])
        return Moments(self.gram.rounded(), self.cross.rounded(), energy, self.pixels)

    def pack(self) -> dict[str, np.ndarray]:
        """The statistics as named arrays."""
        sums = {"gram": self.gram, "cross": self.cross, "energy": self.energy}
        arrays = {f"exact/{name}/{e}": part for name, total in sums.items() for e, part in total.parts.items()}
        return arrays | {"exact/pixels": np.array(self.pixels)}

    @classmethod
    def unpack(cls, arrays: dict[str, np.ndarray]) -> ExactMoments:
        """The inverse of `pack`."""
        parts: dict[str, dict[int, np.ndarray]] = {"gram": {}, "cross": {}, "energy": {}}
        for key, array in arrays.items():
            kind, _, place = key.partition("/")
            name, _, e = place.partition("/")
            if kind == "exact" and e:
                parts[name][int(e)] = array
        gram, cross, energy = (ExactSum(each) for each in parts.values())
        return cls(gram, cross, energy, int(arrays["exact/pixels"]))


@dataclass(frozen=True)
class Factor:
    """The triangular factors of [V Y], scaled by the roots of the weights: one for each block.

    Attributes:
        triangle: (blocks, at most n + outputs, n + outputs).
        outputs: the outputs in a block.
        pixels: how many of Y's numbers have weight.
    """

    triangle: np.ndarray
    outputs: int
    pixels: int

    @property
    def gram(self) -> np.ndarray:
        """A: see `Moments`."""
        v = self.triangle[:, :, : -self.outputs]
        return times_transposed(v.transpose(0, 2, 1), v.transpose(0, 2, 1))

    def pack(self) -> dict[str, np.ndarray]:
        """The statistics as named arrays."""
        return {f"factor/{name}": np.array(value) for name, value in vars(self).items()}

    @classmethod
    def unpack(cls, arrays: dict[str, np.ndarray]) -> Factor:
        """The inverse of `pack`."""
        return cls(arrays["factor/triangle"], int(arrays["factor/outputs"]), int(arrays["factor/pixels"]))

    def __add__(self, other: Factor) -> Factor:
        a, b = _alike(self, other)
        return Factor(triangular_factors(np.concatenate([a.triangle, b.triangle], 1)), a.outputs, a.pixels + b.pixels)

    def by_output(self) -> Factor:
        """The same with a block for each output."""
        v, y = np.split(np.repeat(self.triangle, self.outputs, 0), [-self.outputs], 2)
        own = np.arange(len(y)) % self.outputs
        return Factor(np.concatenate([v, y[np.arange(len(y)), :, own][:, :, None]], 2), 1, self.pixels)


def _alike(a: Any, b: Any) -> tuple[Any, Any]:
    """Statistics with the same blocks: some images' weights may differ by output, others' not."""
    blocks = [len(each.gram) for each in (a, b)]
    return a.by_output() if blocks[0] < blocks[1] else a, b.by_output() if blocks[1] < blocks[0] else b


def times_transposed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b' for (blocks, n, pixels) and (blocks, m, pixels)."""
    return a @ b.transpose(0, 2, 1)  # type: ignore[no-any-return]


def triangular_factors(rows: np.ndarray) -> np.ndarray:
    """The triangular factors R of matrices (blocks, rows, columns)."""
    return np.asarray(np.linalg.qr(rows, "r"))
