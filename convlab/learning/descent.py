"""Gradient descent, step by step: what an adapter supplies, and what is done between the steps."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np

from ..algorithms.reproducible import channel_sums, halve, narrow, product, widen
from ..contract.operations import Operations
from ..contract.rule import Rule
from ..correlation.compute import compute
from ..geometry.geometry import Geometry
from .checkpoint import Checkpoint
from .problem import LearningProblem

AT_ONCE = 100  # the most steps between two looks at the losses

End = Literal["diverged", "converged", ""]


class Descent(Protocol):
    """One run of gradient descent on the squared error, in an adapter's `training` module.

    It is made from a `LearningProblem`, the images (a list of (X, Y) or (X, Y, weights), tensors of the framework), the
    kernel and the bias (or None) to start from (NumPy arrays; the kernel in `problem.kernel_shape`), and an optimiser
    of the framework's, or None for plain gradient descent.

    Beside it, `training.draw(shape, groups, use_bias, dtype)` draws the kernel (OIHW) and bias that the framework's
    built-in convolution class starts from, as NumPy arrays. If the framework has optimisers, `describe(optimizer)` is a
    text that differs for optimisers that step differently; it raises for anything that `OPTIMIZER` doesn't describe.
    """

    def run(self, steps: int, lr: float) -> Sequence[float]:
        """Take so many steps, at most AT_ONCE, and return the loss before each.

        Without an optimiser, each subtracts lr times the gradient.
        """

    @property
    def found(self) -> tuple[Any, Any]:
        """The kernel and the bias now: tensors that later steps don't change, or NumPy arrays."""

    def state(self) -> dict[str, np.ndarray]:
        """All that the next steps depend on, as named arrays."""

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from a `state`."""


class DescentBase:
    """What the classes that are a `Descent` have in common: how they start, and how plain descent goes on."""

    def __init__(
        self,
        problem: LearningProblem,
        pairs: Sequence[Sequence[Any]],
        kernel: np.ndarray,
        bias: np.ndarray | None,
        optimizer: Any = None,
    ) -> None:
        self.problem = problem
        self.pairs = [self.images(*pair) for pair in pairs]
        self.set_parameters(kernel, bias)
        self.set_optimizer(optimizer)

    def images(self, *pair: Any) -> Sequence[Any]:
        """X and Y, and perhaps weights, as the steps take them."""
        return pair

    def set_parameters(self, kernel: np.ndarray, bias: np.ndarray | None) -> None:
        """Go on from a kernel in `problem.kernel_shape`, and a bias."""
        raise NotImplementedError

    def set_optimizer(self, optimizer: Any) -> None:
        """Begin with an optimiser; None is plain gradient descent."""

    @property
    def found(self) -> tuple[Any, Any]:
        """See `Descent.found`."""
        raise NotImplementedError

    def state(self) -> dict[str, np.ndarray]:
        """See `Descent.state`: that of plain descent."""
        return parameters_state(*self.found)

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """See `Descent.restore`: for plain descent."""
        self.set_parameters(state["kernel"], state.get("bias"))


class ReproducibleDescent(DescentBase):
    """`Descent` with the gradient written out, the same on every backend: `convlab.learning.descent.descend`.

    It serves backends without autograd too: `Descent = partial(ReproducibleDescent, ops)`.
    """

    def __init__(self, ops: Operations, problem: LearningProblem, *arguments: Any) -> None:
        self.ops = ops
        super().__init__(problem, *arguments)

    def set_parameters(self, kernel: np.ndarray, bias: np.ndarray | None) -> None:
        """See `DescentBase.set_parameters`."""
        kernel = self.problem.to_oihw(kernel)
        arrays = [kernel] if bias is None else [kernel, bias]
        like = self.pairs[0][0]
        self.parameters = [self.ops.asarray(each, self.problem.dtype, like=like) for each in arrays]

    def images(self, x: Any, y: Any, weights: Any = None) -> list[Any]:
        """X, Y and weights as N, C, H, W."""
        ops, problem = self.ops, self.problem
        if weights is not None:
            zeros = ops.zeros(ops.sizes(y), y)
            weights = zeros + weights
        tensors = [each for each in (x, y, weights) if each is not None]
        if problem.out_channels is None:
            return [ops.to_images(each, "NCHW") for each in tensors]
        batches = [each if len(ops.sizes(each)) == 4 else each[None, ...] for each in tensors]
        return [ops.transpose(each, (0, 3, 1, 2)) for each in batches] if problem.channels_last else batches

    def run(self, steps: int, lr: float) -> list[float]:
        """See `Descent.run`."""
        losses = []
        with self.ops.scope("float64"):
            rate = self.ops.asarray(np.array(lr), "float64", like=self.pairs[0][0])
            geometries = tuple(self.problem.lowered(self.ops.sizes(x)) for x, *_ in self.pairs)
            for _ in range(steps):
                loss, self.parameters = _compiled(self.ops, geometries)(self.pairs, self.parameters, rate)
                losses.append(float(loss))
        return losses

    @property
    def found(self) -> tuple[np.ndarray, np.ndarray | None]:
        """See `Descent.found`."""
        kernel, *bias = map(self.ops.to_numpy, self.parameters)
        return self.problem.from_oihw(kernel), bias[0] if bias else None


def parameters_state(kernel: np.ndarray, bias: np.ndarray | None) -> dict[str, np.ndarray]:
    """The state of plain gradient descent."""
    return {"kernel": kernel} if bias is None else {"kernel": kernel, "bias": bias}


@functools.cache
def _compiled(ops: Operations, geometries: tuple[Geometry, ...]) -> Callable[..., Any]:
    """`descend` for images of these geometries."""
    return ops.compiled(partial(descend, ops, geometries))


@dataclass
class Walk:
    """The steps of a descent: how many, and what happens between them, as `learn_kernel`'s arguments say."""

    num_steps: int
    lr: float
    tol: float | None
    log_every: int
    callback: Callable[[int, float], object] | None
    checkpoint: Checkpoint | None

    def __call__(self, descent: Descent, losses: list[float], advance: Callable[[int], object]) -> End:
        """Take the steps, append their losses to `losses`, and return how the walk ended.

        `advance` is called with the number of steps that were just taken.
        """
        while len(losses) < self.num_steps and not self._converged(losses):
            steps = self._stride(len(losses))
            losses += map(float, descent.run(steps, self.lr))
            self._report(losses, len(losses) - steps)
            if not all(map(math.isfinite, losses[-steps:])):
                return "diverged"
            ended = len(losses) == self.num_steps or self._converged(losses)
            if self.checkpoint and (len(losses) % self.checkpoint.every == 0 or ended):
                self.checkpoint.save(descent.state(), losses)
            advance(steps)
        return "converged" if self._converged(losses) else ""

    def _converged(self, losses: list[float]) -> bool:
        """Whether the last step gained little. A step that lost, as an optimiser's may, ends nothing."""
        return self.tol is not None and len(losses) > 1 and 0 <= losses[-2] - losses[-1] <= self.tol * losses[0]

    def _stride(self, done: int) -> int:
        """How many steps to take at once, after so many are done."""
        if self.callback or self.tol is not None:
            return 1
        stops = [self.log_every, self.checkpoint.every if self.checkpoint else 0, AT_ONCE]
        return min(self.num_steps - done, *(each - done % each for each in stops if each))

    def _report(self, losses: list[float], first: int) -> None:
        """Print and pass on the losses from the first of these steps on."""
        for step in range(first, len(losses)):
            if self.log_every and (step + 1) % self.log_every == 0:
                print(f"epoch {step + 1}, loss {losses[step]:.3f}")
            if self.callback:
                self.callback(step, losses[step])


def descend(
    ops: Operations, geometries: Sequence[Geometry], pairs: Sequence[Sequence[Any]], parameters: Sequence[Any], lr: Any
) -> tuple[Any, list[Any]]:
    """One step of gradient descent on the summed squared error: the loss and the next kernel and bias.

    Args:
        ops: the backend's operations.
        geometries: one for each pair.
        pairs: (X, Y) or (X, Y, weights), each (N, C, H, W).
        parameters: the kernel (OIHW), or the kernel and the bias (O,), all of one dtype.
        lr: a float64 scalar tensor.
    """
    dtype = ops.dtype(parameters[0]) or ""
    losses, slopes = [], []
    with ops.scope("float64"):
        for geometry, (x, y, *weights) in zip(geometries, pairs, strict=True):
            result = compute(ops, Rule("y", geometry), x, *parameters)
            error = weighted = widen(ops, narrow(ops, widen(ops, result) - widen(ops, y), dtype))
            for weight in weights:
                weighted = widen(ops, narrow(ops, product(ops, error, widen(ops, weight), dtype), dtype))
            losses.append(halve(ops, ops.reshape(channel_sums(ops, product(ops, weighted, error, dtype)), (1, -1))))
            seed = narrow(ops, weighted + weighted, dtype)
            gradients = [compute(ops, Rule("k", geometry), x, seed), compute(ops, Rule("b", geometry), seed)]
            slopes.append([widen(ops, each) for each in gradients[: len(parameters)]])
        if dtype != "float64":
            # The product of a float32 number with the gradient is exact.
            lr = ops.cast(ops.cast(lr, "float32"), "float64")
        totals = [functools.reduce(operator.add, each) for each in zip(*slopes, strict=True)]
        moved = [
            narrow(ops, widen(ops, each) - product(ops, slope, lr, dtype), dtype)
            for each, slope in zip(parameters, totals, strict=True)
        ]
        return ops.reshape(narrow(ops, functools.reduce(operator.add, losses), dtype), ()), moved
