"""Learning from `Moments`: gradient descent that never sees the image again, and the minimiser itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..errors import RankDeficientWarning, callers_level
from .moments import Factor, Moments
from .problem import LearningProblem, blocks, unblocks

# A's largest condition number for which the kernel is computed from A: its error is that number times 1e-16.
_WELL_CONDITIONED, _WELL_CONDITIONED_FLOAT64 = 1e8, 1e4
# A's largest condition number, times its size, for which such a kernel can be corrected, and the most corrections.
_CORRECTABLE, _CORRECTIONS = 1e15, 5
# `convlab.learning.window_sums.residuals` of all images.
Residuals = Callable[[np.ndarray], tuple[np.ndarray, float]]


class QuadraticDescent:
    """`convlab.learning.descent.Descent` by moments: the same path as plain gradient descent on the images, in float64.

    A reproducible problem's products are computed elementwise and added in halving trees, which is the same on any
    machine.
    """

    def __init__(self, problem: LearningProblem, moments: Moments, kernel: np.ndarray, bias: np.ndarray | None) -> None:
        self.problem, self.moments = problem, moments
        self.unknowns = blocks(problem, problem.to_oihw(kernel), bias, len(moments.gram))
        self.multiply = _multiply_by_halving if problem.reproducible else np.matmul

    def run(self, steps: int, lr: float) -> list[float]:
        """See `convlab.learning.descent.Descent.run`."""
        gram, cross, energy = self.moments.gram, self.moments.cross, self.moments.energy
        unknowns, multiply, losses = self.unknowns, self.multiply, []
        add = _halving_sums if self.problem.reproducible else np.sum
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(steps):
                slope = multiply(gram, unknowns) - cross
                losses.append(max(energy + float(add((unknowns * (slope - cross)).ravel())), 0.0))
                unknowns = unknowns - slope * (2 * lr)
        self.unknowns = unknowns
        return losses

    @property
    def found(self) -> tuple[np.ndarray, np.ndarray | None]:
        """See `convlab.learning.descent.Descent.found`."""
        kernel, bias = unblocks(self.problem, self.unknowns)
        return self.problem.from_oihw(kernel), bias

    def state(self) -> dict[str, np.ndarray]:
        """See `convlab.learning.descent.Descent.state`."""
        return {"unknowns": self.unknowns}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """See `convlab.learning.descent.Descent.restore`."""
        self.unknowns = state["unknowns"]


def _halving_sums(x: np.ndarray) -> np.ndarray:
    """The sums over the last axis: the second half is added to the first until one number is left.

    `convlab.algorithms.reproducible.halve` is the same tree in the operations of any backend. It adds a zero to the
    number that an odd length leaves over, which turns -0 into +0, so that it would change the bits of a kernel here.
    """
    while x.shape[-1] > 1:
        half = (x.shape[-1] + 1) // 2
        first = x[..., :half].copy()
        first[..., : x.shape[-1] - half] += x[..., half:]
        x = first
    return x[..., 0]


def _multiply_by_halving(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The products a @ b of matrices, with each sum in a halving tree."""
    return _halving_sums(a[:, :, None, :] * b.transpose(0, 2, 1)[:, None])


def largest_rate(moments: Moments) -> float:
    """The learning rate above which gradient descent diverges: 1 / A's largest eigenvalue (2 A is the Hessian)."""
    import scipy.linalg

    n = moments.gram.shape[1]
    greatest = max(scipy.linalg.eigh(a, eigvals_only=True, subset_by_index=(n - 1, n - 1))[0] for a in moments.gram)
    return 1 / greatest if greatest > 0 else np.inf


class Solution(NamedTuple):
    """A minimiser of the squared error.

    Attributes:
        unknowns: (blocks, n, outputs in a block).
        loss: its squared error.
        rank: V's rank, the least of all blocks.
        condition: V's condition number, the largest of all blocks.
    """

    unknowns: np.ndarray
    loss: float
    rank: int
    condition: float


def solve(
    problem: LearningProblem,
    statistics: Moments | Factor,
    ridge: float,
    factor: Callable[[], Factor] | None = None,
    residuals: Residuals | None = None,
) -> Solution:
    """The kernel of least squared error, plus ridge times the kernel's (not the bias's) sum of squares.

    It is computed from A. If A's condition number, the square of V's, would cost accuracy, the kernel is corrected by
    what it leaves over, for which `residuals` reads the images again; or it is computed from a triangular factor of V,
    for which `factor` does. Of several minimisers it is that of least norm.
    """
    gram = statistics.gram
    penalty = np.full(gram.shape[1], ridge)
    if problem.use_bias:
        penalty[-1] = 0
    if isinstance(statistics, Moments):
        well_conditioned = _WELL_CONDITIONED_FLOAT64 if problem.dtype == "float64" else _WELL_CONDITIONED
        solution = _by_moments(statistics, penalty, well_conditioned, residuals)
        if solution is not None:
            return solution
        # The statistics of images that can't be read again are a factor already.
        assert factor is not None
        statistics = factor()
    solution = _by_factor(statistics, penalty)
    if solution.rank < gram.shape[1]:
        _warn(solution.rank, gram, statistics.pixels, problem.use_bias)
    return solution


def _by_moments(
    moments: Moments, penalty: np.ndarray, well_conditioned: float, residuals: Residuals | None
) -> Solution | None:
    """The minimiser from A, or None where that isn't accurate.

    Each correction solves the normal equations for what is left over (Björck, "Stability analysis of the method of
    seminormal equations for linear least squares problems", 1987): it divides the error by about 1e15 / A's condition.
    """
    gram = moments.gram + np.diag(penalty)
    values = np.linalg.eigvalsh(gram)
    if not (values[:, 0] > 0).all():
        return None
    condition = float((values[:, -1] / values[:, 0]).max())
    if condition > (well_conditioned if residuals is None else _CORRECTABLE / len(penalty)):
        return None
    unknowns = np.linalg.solve(gram, moments.cross)
    if condition <= well_conditioned:
        return Solution(unknowns, max(moments.loss(unknowns), 0.0), gram.shape[1], condition**0.5)
    assert residuals is not None
    last = float(np.linalg.norm(unknowns))
    for _ in range(_CORRECTIONS):
        slope, loss = residuals(unknowns)
        step = np.linalg.solve(gram, slope - penalty[:, None] * unknowns)
        loss += float((step * (moments.gram @ step - 2 * slope)).sum())
        unknowns = unknowns + step
        size = float(np.linalg.norm(step))
        # The next correction would be smaller by 1e14 / A's condition: less than what V's condition leaves uncertain.
        if 10 * size * condition**0.5 <= np.linalg.norm(unknowns):
            return Solution(unknowns, max(loss, 0.0), gram.shape[1], condition**0.5)
        if size > 0.1 * last:
            return None
        last = size
    return None


def _by_factor(factor: Factor, penalty: np.ndarray) -> Solution:
    """The minimiser of least norm from the singular values of V's triangular factor."""
    n, pixels = len(penalty), factor.pixels
    rows = np.zeros((n, factor.triangle.shape[2]))
    rows[:, :n] = np.diag(np.sqrt(penalty))
    penalised = factor + Factor(np.broadcast_to(rows, (len(factor.triangle), *rows.shape)), factor.outputs, 0)
    left, values, right = np.linalg.svd(penalised.triangle[:, :, :n], full_matrices=False)
    kept = values > values[:, :1] * (max(pixels, n) * 2.0**-52)
    inverse = np.where(kept, 1 / np.where(kept, values, 1), 0)
    coordinates = left.transpose(0, 2, 1) @ penalised.triangle[:, :, n:]
    unknowns = right.transpose(0, 2, 1) @ (coordinates * inverse[:, :, None])
    residual = factor.triangle[:, :, :n] @ unknowns - factor.triangle[:, :, n:]
    least = np.where(kept, values, np.inf).min(1)
    rank = int(kept.sum(1).min())
    condition = float((values[:, 0] / least).max()) if rank == n else np.inf
    return Solution(unknowns, float((residual * residual).sum()), rank, condition)


def _warn(rank: int, gram: np.ndarray, pixels: int, use_bias: bool) -> None:
    """Warn that the images don't determine the kernel, and say why."""
    n = gram.shape[1]
    inner = gram[:, : n - use_bias, : n - use_bias]
    if np.ptp(inner) <= 1e-12 * np.abs(inner).max():
        why = "X is constant, so that every window holds the same pixels"
    elif pixels < n:
        why = f"fewer pixels of Y count than there are unknowns, {pixels}"
    else:
        why = "some pixels of X's windows are combinations of others"
    warnings.warn(
        f"rank {rank} of {n}: {why}. Other kernels fit as well; this is the one of least norm. "
        "Hint: ridge= makes it unique, other images determine it.",
        RankDeficientWarning,
        stacklevel=callers_level(),
    )
