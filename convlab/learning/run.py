"""A run of `learn_kernel` whose arguments are checked: it reads the images, takes the steps and makes the result."""

from __future__ import annotations

import contextlib
import functools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from textwrap import shorten
from typing import Any, Literal, NamedTuple

import numpy as np

from ..contract.framework import Framework
from ..correlation.on_host import kernels_take, worth_loading
from ..errors import DataError, DivergedError, GeometryError, UnsupportedError
from ..registry import framework as load_framework
from .checkpoint import Checkpoint, digest
from .descent import Descent, ReproducibleDescent, Walk
from .moments import ExactMoments, Factor, Moments, StatisticsKind
from .problem import LearningProblem, finite, residuals_of, statistics, unblocks
from .quadratic import QuadraticDescent, largest_rate, solve

Method = Literal["autograd", "gram", "lstsq"]


@dataclass(frozen=True)
class LearnedKernel:
    """The result of `learn_kernel`.

    Attributes:
        kernel: the learned kernel, a tensor of X's framework: (h, w), OIHW, or with data_format="NHWC" HWIO.
        losses: the loss before each step's update, one number for each step; for "lstsq" the loss of the kernel.
        bias: shape (1,) or (O,), with use_bias=True.
        lr: the learning rate, also if lr="auto" chose it.
        converged: whether `tol` ended the run.
        rank: for "lstsq", how many of the unknowns the images determine.
        condition: for "lstsq", the condition number of the matrix of X's windows; inf if it lacks rank.
    """

    kernel: Any
    losses: list[float]
    bias: Any = None
    lr: float | None = None
    converged: bool = False
    rank: int | None = None
    condition: float | None = None


class Images(NamedTuple):
    """Images X and Y, and the weights of Y's pixels or None; errors call them X`name` and Y`name`."""

    name: str
    x: Any
    y: Any
    weights: Any


class Settings(NamedTuple):
    """The arguments of `learn_kernel` that aren't about the problem and the images."""

    num_steps: int
    lr: float | Literal["auto"]
    method: Method
    optimizer: Any
    ridge: float
    tol: float | None
    init: Any
    seed: int | None
    log_every: int
    callback: Callable[[int, float, Any], object] | None
    progress: bool
    checkpoint: Any
    checkpoint_every: int


_STATISTICS: dict[StatisticsKind, Any] = {"moments": Moments, "factor": Factor, "reproducible": ExactMoments}


class Training:
    """One run of `learn_kernel`.

    Attributes:
        framework: where to compute.
        problem: what to learn.
        settings: how to learn it.
        images: the images, to be read once.
        again: reads the images again; None if they can't be.
        like: a tensor on whose device the kernel is to be.
        show: updates the progress bar, if there is one.
    """

    def __init__(
        self,
        framework: Framework,
        problem: LearningProblem,
        settings: Settings,
        images: Iterator[Images],
        again: Callable[[], Iterator[Images]] | None,
        like: Any,
    ) -> None:
        self.framework, self.problem, self.settings, self.like = framework, problem, settings, like
        self.images, self.again = images, again
        self._optimizer = None if settings.optimizer is None else self._described(settings.optimizer)
        self.show: Callable[..., object] = lambda **columns: None

    def learn(self, start: np.ndarray | None) -> LearnedKernel:
        """Learn from a kernel to start from; None stands for the framework's own."""
        settings, checkpoint = self.settings, self._checkpoint(start)
        with self._bar():
            if settings.method == "lstsq":
                return self._solve(checkpoint)
            moments = None
            if settings.method == "gram":
                moments = self._statistics_of_all(
                    "reproducible" if self.problem.reproducible else "moments", checkpoint
                )
                descent: Descent = QuadraticDescent(self.problem, moments, *self._first(start))
            else:
                descent = self._by_autograd(start, checkpoint)
            lr = _half(largest_rate(moments or self._reread())) if settings.lr == "auto" else settings.lr
            return self._walk(descent, lr, checkpoint, moments)

    def _described(self, optimizer: Any) -> str:
        """The text by which a checkpoint knows an optimizer, or an error if it isn't the framework's."""
        training = self.framework.training
        if not hasattr(training, "describe"):
            raise UnsupportedError(
                f"optimizer: the backend {self.framework.name!r} has no optimizers, expected None.",
                hint="learn on a framework that has optimizers.",
            )
        try:
            return str(training.describe(optimizer))
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise GeometryError(
                f"optimizer: got {shorten(repr(optimizer), 80)}, expected {training.OPTIMIZER} ({why}).",
                hint="the optimizer must take its steps from gradients alone, without the loss.",
            ) from error

    def _first(self, start: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """The kernel and the bias to start from, in the problem's dtype or a wider one."""
        problem = self.problem
        bias = np.zeros(problem.oihw[0]) if problem.use_bias else None
        if start is None:
            oihw, bias = self.framework.training.draw(
                problem.oihw, problem.geometry.groups, problem.use_bias, problem.dtype
            )
            start = problem.from_oihw(oihw)
        return start.astype(_wide(problem.dtype)), bias

    def _by_autograd(self, start: np.ndarray | None, checkpoint: Checkpoint | None) -> Descent:
        """The descent that looks at all images at every step; it keeps them."""
        kept = [self._without_missing(images) for images in self.images]
        self.again = lambda: iter(kept)
        if checkpoint:
            read = ""
            for images in kept:
                read = digest(read, *self._identity(images))
            checkpoint.begin(len(kept), read)
        framework, problem = self.framework, self.problem
        if problem.reproducible and (self._lazy or self._faster_on_numpy(kept)):
            # The order of a reproducible sum is that of whole images, and its bits are the same everywhere.
            framework = load_framework("numpy")
            kept = [Images(images.name, *finite(problem, *self._arrays(images), images.name)) for images in kept]
        pairs = [[tensor for tensor in images[1:] if tensor is not None] for images in kept]
        if problem.reproducible:
            return ReproducibleDescent(framework.ops, problem, pairs, *self._first(start))
        descent: Descent = framework.training.Descent(problem, pairs, *self._first(start), self.settings.optimizer)
        return descent

    def _faster_on_numpy(self, kept: Sequence[Images]) -> bool:
        """Whether the compiled kernels serve each reproducible step, which then needs no framework."""
        ops, problem = self.framework.ops, self.problem
        # NumPy may have no bfloat16.
        if problem.dtype == "bfloat16" or not all(kernels_take(ops, images.x, images.y) for images in kept):
            return False
        pixels = sum(math.prod(ops.sizes(images.y)) for images in kept)
        return worth_loading(pixels * math.prod(problem.oihw[1:]))

    def _walk(
        self, descent: Descent, lr: float, checkpoint: Checkpoint | None, moments: Moments | None
    ) -> LearnedKernel:
        """Take the steps of a descent."""
        settings = self.settings
        losses = checkpoint.resume(descent, settings.num_steps) if checkpoint else []
        self.show(total=settings.num_steps, completed=len(losses))

        def callback(step: int, loss: float) -> None:
            assert settings.callback is not None
            settings.callback(step, loss, self._native(descent.found[0]))

        after_step = callback if settings.callback else None
        walk = Walk(settings.num_steps, lr, settings.tol, settings.log_every, after_step, checkpoint)
        end = walk(descent, losses, lambda steps: self.show(advance=steps))
        grown = len(losses) > 1 and losses[-1] > losses[0] and settings.optimizer is None
        if end == "diverged" or grown:
            self._diverged(lr, losses, end == "diverged", moments)
        kernel, bias = self._result(*descent.found)
        return LearnedKernel(kernel, losses, bias, None if settings.optimizer else lr, end == "converged")

    def _diverged(self, lr: float, losses: list[float], surely: bool, moments: Moments | None) -> None:
        """Raise `DivergedError` for a rate that isn't stable, and for any if the descent diverged surely."""
        grew = f"the loss went from {losses[0]:.4g} to {losses[-1]:.4g} in {len(losses)} steps"
        if self.settings.optimizer is not None:
            raise DivergedError(f"optimizer: {grew}.", hint="give it a smaller learning rate.")
        most = largest_rate(moments or self._reread())
        if lr > most:
            raise DivergedError(
                f"lr: got {lr:.4g}, with which {grew}, expected at most {most:.4g}, the largest stable rate.",
                hint=f"lr='auto' takes {_half(most):.4g}.",
            )
        if surely:
            raise DivergedError(
                f"X, Y: {grew}, although lr={lr:.4g} is stable: "
                f"{self.problem.dtype} can't hold the numbers on the way.",
                hint="learn in a wider dtype, by method='gram', or from smaller numbers.",
            )

    def _solve(self, checkpoint: Checkpoint | None) -> LearnedKernel:
        # A factor is slower than moments, but images that can't be read again leave no second chance for accuracy.
        kind: StatisticsKind = "factor" if self.again is None else "moments"
        summed = self._statistics_of_all(kind, checkpoint)
        factor = functools.partial(self._reread, "factor")
        solution = solve(self.problem, summed, self.settings.ridge, factor, None if self._lazy else self._residuals)
        oihw, bias = unblocks(self.problem, solution.unknowns)
        kernel, bias = self._result(self.problem.from_oihw(oihw), bias)
        return LearnedKernel(kernel, [solution.loss], bias, rank=solution.rank, condition=solution.condition)

    def _result(self, kernel: Any, bias: Any) -> tuple[Any, Any]:
        """The kernel and the bias for the user, both finite."""
        tensors = self._native(kernel), self._native(bias)
        for tensor in tensors:
            if tensor is not None and not np.isfinite(self.framework.to_numpy(tensor)).all():
                raise DivergedError(
                    f"kernel: got numbers that {self.problem.dtype} can't hold.",
                    hint="learn in a wider dtype, with a smaller learning rate, or from smaller numbers.",
                )
        return tensors

    def _native(self, values: Any) -> Any:
        """A tensor of the images' framework and device; a NumPy array where tensors are lazy."""
        if isinstance(values, np.ndarray):
            # An overflow shows as an infinity, which `_result` refuses.
            with np.errstate(over="ignore"):
                values = values.astype(_wide(self.problem.dtype))
                if self._lazy:
                    return values.astype(self.problem.dtype)
            values = self.framework.ops.asarray(values, self.problem.dtype, like=self.like)
        return None if values is None else self.framework.ops.native(values, self.like)

    def _arrays(self, images: Images) -> tuple[Any, Any, Any]:
        """X, Y and the weights as NumPy arrays."""
        read, weights = self.framework.to_numpy, images.weights
        return read(images.x), read(images.y), None if weights is None else read(weights)

    @property
    def _lazy(self) -> bool:
        """Whether images mustn't be read as a whole."""
        return hasattr(self.framework.training, "statistics")

    def _identity(self, images: Images) -> list[Any]:
        """The arrays by which a checkpoint knows images."""
        return list(self.framework.training.identity(images[1:]) if self._lazy else self._arrays(images))

    def _without_missing(self, images: Images) -> Images:
        """The images with zeros for pixels that aren't finite and don't count; lazy images as they are."""
        if self._lazy:
            return images
        x, y, weights = self._arrays(images)
        cleaned = finite(self.problem, x, y, weights, images.name)
        if cleaned[0] is x and cleaned[1] is y:
            return images
        x, y = (self.framework.ops.asarray(array, self.problem.dtype, like=self.like) for array in cleaned[:2])
        return Images(images.name, x, y, images.weights)

    def _statistics(self, images: Images, kind: StatisticsKind) -> Any:
        if self._lazy:
            return self.framework.training.statistics(self.problem, *images[1:], kind, images.name)
        x, y, weights = self._arrays(images)
        return statistics(self.problem, x, y, weights, kind, images.name)

    def _statistics_of_all(self, kind: StatisticsKind, checkpoint: Checkpoint | None) -> Any:
        """The statistics of all images, read once; those of images that the checkpoint knows aren't computed again."""
        total: Any = _STATISTICS[kind].unpack(checkpoint.arrays) if checkpoint and checkpoint.done else None
        read, count = "", 0
        for count, images in enumerate(self.images, 1):
            self.show(description=f"{self.settings.method} on {self.framework.name}, images {count}")
            if checkpoint:
                read = digest(read, *self._identity(images))
                if checkpoint.known(count, read):
                    continue
            added = self._statistics(images, kind)
            total = added if total is None else total + added
            if checkpoint:
                checkpoint.read(count, read, total.pack())
        if checkpoint:
            checkpoint.finish(count)
        return _bounded(total.rounded() if kind == "reproducible" else total)

    def _reread(self, kind: StatisticsKind = "moments") -> Any:
        """The statistics of all images, read once more."""
        assert self.again is not None
        return _bounded(functools.reduce(operator.add, (self._statistics(images, kind) for images in self.again())))

    def _residuals(self, unknowns: np.ndarray) -> tuple[np.ndarray, float]:
        """See `convlab.learning.window_sums.residuals`: of all images, read once more."""
        assert self.again is not None
        parts = [residuals_of(self.problem, *self._arrays(images), unknowns, images.name) for images in self.again()]
        return np.sum([slope for slope, _ in parts], axis=0), math.fsum(loss for _, loss in parts)

    def _checkpoint(self, start: np.ndarray | None) -> Checkpoint | None:
        if self.settings.checkpoint is None:
            return None
        settings = self.settings
        about = asdict(self.problem) | {
            "method": settings.method,
            "lr": settings.lr,
            "ridge": settings.ridge,
            "init": None if start is None else digest("", start),
            "optimizer": self._optimizer,
            "backend": self.framework.name if settings.method == "autograd" else None,
        }
        return Checkpoint(settings.checkpoint, settings.checkpoint_every, about)

    @contextlib.contextmanager
    def _bar(self) -> Iterator[None]:
        """Within the block, `show` updates a progress bar on stderr, if the settings ask for it."""
        if not self.settings.progress:
            yield
            return
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(f"{self.settings.method} on {self.framework.name}", total=None)
            self.show = functools.partial(bar.update, task)
            yield


def _bounded(summed: Any) -> Any:
    """Statistics, or a `DataError` if they aren't finite."""
    if not np.isfinite(summed.gram).all():
        raise DataError(
            "X, Y: got numbers whose squares float64 can't hold, expected smaller ones.", hint="scale them."
        )
    return summed


def _half(largest: float) -> float:
    """Half of the largest stable rate, to three digits: machines whose eigenvalues differ in the last digit agree."""
    return float(f"{largest / 2:.3g}") if np.isfinite(largest) else 1.0


def _wide(dtype: str) -> str:
    """The dtype through which float64 numbers are rounded to a dtype: float32 for all narrower ones."""
    return "float64" if dtype == "float64" else "float32"
