"""Learning from `Moments`: gradient descent that never sees the image again, and the minimiser itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .errors import RankDeficientWarning
from .moments import Factor, Moments
from .problem import Problem, blocks, unblocks

# A's condition number up to which the kernel is found from A: its error is that times 1e-16.
_WELL_CONDITIONED = 1e8


class QuadraticDescent:
    """`convlab.descent.Descent` by moments: the same path as plain gradient descent on the images, in float64.

    With `exact` sums of elementwise products in halving trees, the same on any machine.
    """

    def __init__(self, problem: Problem, moments: Moments, kernel: np.ndarray, bias: np.ndarray | None) -> None:
        self.problem, self.moments = problem, moments
        self.unknowns = blocks(problem, problem.to_oihw(kernel), bias, len(moments.gram))
        self.multiply = _in_trees if problem.reproducible else np.matmul

    def run(self, steps: int, lr: float) -> list[float]:
        """See `convlab.descent.Descent.run`."""
        gram, cross, energy, _ = vars(self.moments).values()
        unknowns, multiply, losses = self.unknowns, self.multiply, []
        add = _tree if self.problem.reproducible else np.sum
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(steps):
                slope = multiply(gram, unknowns) - cross
                losses.append(max(energy + float(add((unknowns * (slope - cross)).ravel())), 0.0))
                unknowns = unknowns - slope * (2 * lr)
        self.unknowns = unknowns
        return losses

    @property
    def found(self) -> tuple[np.ndarray, np.ndarray | None]:
        """See `convlab.descent.Descent.found`."""
        kernel, bias = unblocks(self.problem, self.unknowns)
        return self.problem.from_oihw(kernel), bias

    def state(self) -> dict[str, np.ndarray]:
        """See `convlab.descent.Descent.state`."""
        return {"unknowns": self.unknowns}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """See `convlab.descent.Descent.restore`."""
        self.unknowns = state["unknowns"]


def _tree(x: np.ndarray) -> np.ndarray:
    """The sums over the last axis: the second half is added to the first until one number is left."""
    while x.shape[-1] > 1:
        half = (x.shape[-1] + 1) // 2
        first = x[..., :half].copy()
        first[..., : x.shape[-1] - half] += x[..., half:]
        x = first
    return x[..., 0]


def _in_trees(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _tree(a[:, :, None, :] * b.transpose(0, 2, 1)[:, None])


def largest_rate(moments: Moments) -> float:
    """The learning rate above which gradient descent diverges: 1 / A's largest eigenvalue (2 A is the Hessian)."""
    import scipy.linalg

    n = moments.gram.shape[1]
    greatest = max(scipy.linalg.eigh(a, eigvals_only=True, subset_by_index=(n - 1, n - 1))[0] for a in moments.gram)
    return 1 / greatest if greatest > 0 else np.inf


class Solution(NamedTuple):
    """A minimiser: (blocks, n, outputs in a block), its loss, and V's rank and condition number (the worst block's)."""

    unknowns: np.ndarray
    loss: float
    rank: int
    condition: float


def solve(problem: Problem, moments: Moments, ridge: float, factor: Callable[[], Factor] | None) -> Solution:
    """The kernel of least squared error, plus ridge times the kernel's (not the bias's) sum of squares.

    From A, or, if its condition number, the square of V's, would cost accuracy, from a triangular factor of V, for
    which the images are read once more; `factor` is None if they can't be. Of several minimisers, that of least norm.
    """
    penalty = np.full(moments.gram.shape[1], ridge)
    if problem.use_bias:
        penalty[-1] = 0
    gram = moments.gram + np.diag(penalty)
    values, vectors = np.linalg.eigh(gram)
    condition = float((values[:, -1] / np.maximum(values[:, 0], 0)).max()) if (values[:, 0] > 0).all() else np.inf
    needed = 1e4 if problem.dtype == "float64" else _WELL_CONDITIONED
    if condition <= needed:
        unknowns = vectors @ ((vectors.transpose(0, 2, 1) @ moments.cross) / values[:, :, None])
        return Solution(unknowns, max(moments.loss(unknowns), 0.0), gram.shape[1], condition**0.5)
    if factor is None:
        least = values[:, -1:] * (max(moments.pixels, gram.shape[1]) * 2.0**-52)
        kept = values > np.maximum(least, 0)
        inverse = np.where(kept, 1 / np.where(kept, values, 1), 0)
        unknowns = vectors @ ((vectors.transpose(0, 2, 1) @ moments.cross) * inverse[:, :, None])
        found = Solution(unknowns, max(moments.loss(unknowns), 0.0), int(kept.sum(1).min()), condition**0.5)
    else:
        found = _by_factor(factor(), penalty, moments.pixels)
    if found.rank < gram.shape[1]:
        _warn(found.rank, moments, problem.use_bias)
    return found


def _by_factor(factor: Factor, penalty: np.ndarray, pixels: int) -> Solution:
    n = len(penalty)
    rows = np.zeros((n, factor.triangle.shape[2]))
    rows[:, :n] = np.diag(np.sqrt(penalty))
    penalised = factor + Factor(np.broadcast_to(rows, (len(factor.triangle), *rows.shape)), factor.outputs, 0)
    left, values, right = np.linalg.svd(penalised.triangle[:, :, :n], full_matrices=False)
    kept = values > values[:, :1] * (max(pixels, n) * 2.0**-52)
    inverse = np.where(kept, 1 / np.where(kept, values, 1), 0)
    seen = left.transpose(0, 2, 1) @ penalised.triangle[:, :, n:]
    unknowns = right.transpose(0, 2, 1) @ (seen * inverse[:, :, None])
    rest = factor.triangle[:, :, :n] @ unknowns - factor.triangle[:, :, n:]
    least = np.where(kept, values, np.inf).min(1)
    rank = int(kept.sum(1).min())
    condition = float((values[:, 0] / least).max()) if rank == n else np.inf
    return Solution(unknowns, float((rest * rest).sum()), rank, condition)


def _warn(rank: int, moments: Moments, use_bias: bool) -> None:
    n = moments.gram.shape[1]
    pixels = moments.gram[:, : n - use_bias, : n - use_bias]
    if np.ptp(pixels) <= 1e-12 * np.abs(pixels).max():
        why = "X is constant, so that every window holds the same pixels"
    elif moments.pixels < n:
        why = f"Y has only {moments.pixels} pixels that count"
    else:
        why = "some pixels of X's windows are combinations of others"
    warnings.warn(
        f"rank {rank} of {n}: {why}. Other kernels fit as well; this is the one of least norm. "
        "Hint: ridge= makes it unique, other images determine it.",
        RankDeficientWarning,
        stacklevel=4,
    )
