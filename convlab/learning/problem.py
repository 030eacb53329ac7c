"""What `learn_kernel` is to learn: the kernel's shape, how it meets an image, and the checks on the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np

from ..algorithms.border import with_border
from ..contract.operations import Operations
from ..correlation.corr2d import corr2d
from ..correlation.images import planes_first, with_value
from ..dtypes import itemsize
from ..errors import DataError, ShapeError
from ..geometry.geometry import NO_PADDING, Geometry, PaddingName
from ..geometry.limits import laid_out, planes
from ..geometry.lower import lower, output_shape
from ..geometry.options import GEOMETRY_OPTIONS, GeometryOptions, channels_follow, check_shapes
from ..reference import ops as reference
from .moments import StatisticsKind
from .window_sums import PreparedImages, residuals, window_sums


@dataclass(frozen=True)
class LearningProblem:
    """A kernel to learn, without the images.

    Attributes:
        geometry: the checked options; a named padding isn't lowered yet.
        named: the padding's name, "" for a padding in integers.
        out_channels: None for a kernel (h, w) on images (..., H, W).
        in_channels: the images' channels, 1 if out_channels is None.
        use_bias: whether a bias is learned too.
        dtype: the dtype of images, kernel and losses.
        reproducible: whether to compute by sums that are the same everywhere.
    """

    geometry: Geometry
    named: PaddingName | Literal[""] = ""
    out_channels: int | None = None
    in_channels: int = 1
    use_bias: bool = False
    dtype: str = "float32"
    reproducible: bool = False

    @property
    def options(self) -> GeometryOptions:
        """The keyword arguments of `corr2d` that say where the kernel meets the image."""
        checked = {name: getattr(self.geometry, name) for name in GEOMETRY_OPTIONS}
        return cast(GeometryOptions, {**checked, "padding": self.named or self.geometry.padding})

    @property
    def oihw(self) -> tuple[int, int, int, int]:
        """The kernel's shape with all its channels."""
        return (self.out_channels or 1, self.in_channels // self.geometry.groups, *self.geometry.kernel_size)

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """The kernel's shape for the user: (h, w), OIHW, or with NHWC HWIO."""
        if self.out_channels is None:
            return self.geometry.kernel_size
        return self.oihw if self.geometry.data_format == "NCHW" else tuple(self.oihw[i] for i in (2, 3, 1, 0))

    @property
    def channels_last(self) -> bool:
        """Whether channels come last."""
        return self.out_channels is not None and self.geometry.data_format == "NHWC"

    def from_oihw(self, kernel: np.ndarray) -> np.ndarray:
        """A kernel with all its channels in `kernel_shape`."""
        return kernel.transpose(2, 3, 1, 0) if self.channels_last else kernel.reshape(self.kernel_shape)

    def to_oihw(self, kernel: np.ndarray) -> np.ndarray:
        """The inverse of `from_oihw`."""
        return kernel.transpose(3, 2, 0, 1) if self.channels_last else kernel.reshape(self.oihw)

    def loss(self, ops: Operations, pairs: Sequence[Sequence[Any]], kernel: Any, bias: Any) -> Any:
        """The squared error, weighted and summed: a scalar tensor with gradients.

        Args:
            ops: the backend's operations.
            pairs: (X, Y) or (X, Y, weights), tensors in the user's layout.
            kernel: a tensor in `kernel_shape`.
            bias: a tensor (O,), or None.
        """
        total = None
        for x, y, *weights in pairs:
            error = corr2d(x, kernel, bias=bias, **self.options) - y
            squares = error * error
            for weight in weights:
                squares = squares * weight
            summed = ops.sum(squares, tuple(range(len(ops.known_rank(squares)))))
            total = summed if total is None else total + summed
        return total

    def check_images(self, name: str, x: Sequence[int], y: Sequence[int], most: int) -> None:
        """Check the shapes x and y of the images X and Y, called "Xname" and "Yname" in errors.

        `most` is the most bytes of an array on the way, 0 for arrays in pieces (see `limits.laid_out`).

        Raises:
            ShapeError: a kernel of this size doesn't turn images of shape x into images of shape y.
            GeometryError: an array takes more than `most` bytes.
        """
        if 0 in x or 0 in y:
            raise ShapeError(
                f"X{name}: got shape {tuple(x)}, expected at least one image.",
                hint="give at least one image with a pixel.",
            )
        kernel, geometry = self.kernel_shape, self.geometry
        size = check_shapes(x, kernel, geometry)
        laid_out(geometry, self.named, size, planes(x, kernel, geometry), itemsize(self.dtype), most)
        expected = output_shape(x, self.kernel_shape, **self.options)
        if tuple(y) != expected:
            h, w = geometry.kernel_size
            channels = f" with out_channels={self.out_channels}" if self.out_channels else ""
            raise ShapeError(
                f"Y{name}: got shape {tuple(y)}, expected {expected}: X{name} of shape {tuple(x)}, a kernel of "
                f"{h}x{w}{channels}.",
                hint=self._other_size(tuple(x), tuple(y))
                or "convlab.corr2d(X, kernel, ...) makes such a Y; stride, padding, … are learn_kernel's arguments.",
            )

    def _other_size(self, x: tuple[int, ...], y: tuple[int, ...]) -> str:
        """The hint that names the kernel's size by which X and Y would fit, if there is one."""
        if x[-2:] == y[-2:] and not self.channels_last and self.named == "" and self.geometry.padding == NO_PADDING:
            return "padding='same' would fit."
        if len(x) != len(y) or self.named not in ("", "valid") or min(len(x), len(y)) < 2:
            return ""
        geometry, axes = self.geometry, slice(-3, -1) if self.channels_last else slice(-2, None)
        steps = geometry.padding, geometry.stride, geometry.dilation
        sizes = [
            (n + sum(pads) - (out - 1) * stride - 1) // dilation + 1
            for n, out, pads, stride, dilation in zip(x[axes], y[axes], *steps, strict=True)
        ]
        fitting = replace(self, geometry=geometry._replace(kernel_size=(sizes[0], sizes[1])))
        if min(sizes) < 1 or output_shape(x, fitting.kernel_shape, **self.options) != y:
            return ""
        return f"kernel_size=({sizes[0]}, {sizes[1]}) would fit."

    def shares(self, weights: Any) -> bool:
        """Whether weights that broadcast to Y are the same for all its channels."""
        axis = -1 if self.channels_last else -3
        return self.out_channels is not None and (weights.ndim < -axis or weights.shape[axis] == 1)

    def lowered(self, x: Sequence[int]) -> Geometry:
        """The geometry for images of a shape (N, C, H, W)."""
        return lower(self.geometry._replace(data_format="NCHW"), self.named, (x[2], x[3]))

    def unpadded(self) -> LearningProblem:
        """The same problem for images that are padded already."""
        return replace(self, geometry=self.geometry._replace(padding=NO_PADDING, padding_value=0.0), named="")

    def plain(self) -> LearningProblem:
        """The same problem for what `plain_images` makes of its images."""
        geometry = self.geometry._replace(data_format="NCHW") if self.out_channels is None else self.geometry
        problem = replace(self, geometry=geometry)
        return problem.unpadded() if geometry.padding_value else problem

    def plain_images(self, ops: Operations, x: Any, y: Any, weights: Any) -> tuple[Any, Any, Any]:
        """Images X and Y and weights: channels of a kernel without channels come first, and X has its constant border.

        Args:
            ops: the backend's operations.
            x: a tensor in the user's layout.
            y: likewise.
            weights: likewise, of a shape that broadcasts to y's; or None.
        """
        shape, kernel = ops.sizes(x), self.kernel_shape
        geometry = lower(self.geometry, self.named, check_shapes(shape, kernel, self.geometry))
        if channels_follow(shape, kernel, geometry):
            weights = None if weights is None else planes_first(ops, ops.zeros(ops.sizes(y), y) + weights)
            x, y = planes_first(ops, x), planes_first(ops, y)
        x, _ = with_value(ops, x, geometry, self.dtype, len(kernel))
        return x, y, weights


def statistics(
    problem: LearningProblem,
    x: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray | None,
    kind: StatisticsKind = "moments",
    name: str = "",
    workers: int | None = None,
) -> Any:
    """`convlab.learning.window_sums.window_sums` of NumPy images in the user's layout, which errors call by `name`."""
    return window_sums(prepared_images(problem, *finite(problem, x, y, weights, name)), kind, workers)


def residuals_of(
    problem: LearningProblem,
    x: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray | None,
    unknowns: np.ndarray,
    name: str = "",
) -> tuple[np.ndarray, float]:
    """`convlab.learning.window_sums.residuals` of NumPy images in the user's layout, which errors call by `name`."""
    return residuals(prepared_images(problem, *finite(problem, x, y, weights, name)), unknowns)


def prepared_images(
    problem: LearningProblem, x: np.ndarray, y: np.ndarray, weights: np.ndarray | None
) -> PreparedImages:
    """The images as (N, C, H, W), X padded."""
    images = _channels_first(problem, x)
    geometry = problem.lowered(images.shape)
    padded = with_border(reference, images, geometry)
    return PreparedImages(
        padded,
        _channels_first(problem, y),
        None if weights is None else _weights(problem, weights, y.shape),
        geometry._replace(padding=NO_PADDING),
        problem.use_bias,
    )


def _weights(problem: LearningProblem, weights: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Weights of results of a shape as (N, 1 or O, H', W')."""
    by_output = _channels_first(problem, np.broadcast_to(weights, shape))
    return by_output[:, :1] if problem.shares(weights) else by_output


def _channels_first(problem: LearningProblem, images: np.ndarray) -> np.ndarray:
    """Images in the user's layout as (N, C, H, W)."""
    if problem.out_channels is None:
        return images.reshape(-1, 1, *images.shape[-2:])
    images = images if images.ndim == 4 else images[None]
    return images.transpose(0, 3, 1, 2) if problem.channels_last else images


def finite(
    problem: LearningProblem, x: np.ndarray, y: np.ndarray, weights: np.ndarray | None, name: str = ""
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The images with zeros for pixels that aren't finite and have no weight.

    Raises:
        DataError: such a pixel has weight, or a weight is negative or not finite.
    """
    if weights is not None and not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise DataError(
            f"weights{name}: got negative or non-finite numbers, expected 0 for a missing pixel, else a positive one.",
            hint="weights=numpy.isfinite(Y) leaves out the pixels that are missing.",
        )
    missing = ~np.isfinite(y)
    if missing.any():
        counted = missing if weights is None else missing & (np.broadcast_to(weights, y.shape) > 0)
        _refuse(f"Y{name}", counted, counted.sum())
        y = np.where(missing, 0, y)
    missing = ~np.isfinite(x)
    if missing.any():
        affected: Any = _windows_with(problem, missing)
        if weights is not None:
            affected = np.logical_and(affected, _weights(problem, weights, y.shape) > 0)
        _refuse(f"X{name}", missing, affected.sum())
        x = np.where(missing, 0, x)
    if weights is not None and not weights.any():
        raise DataError(f"weights{name}: all are 0, expected some pixels that count.", hint="is the mask inverted?")
    return x, y, weights


def _windows_with(problem: LearningProblem, marked: np.ndarray) -> np.ndarray:
    """The results for which the kernel meets a marked pixel in any channel, as a mask (N, 1, H', W')."""
    images = _channels_first(problem, marked).any(1, keepdims=True).astype(np.float32)
    options: dict[str, Any] = {**problem.options, "groups": 1, "data_format": "NCHW"}
    options |= {"algorithm": "direct", "backend": "numpy"}
    counts = corr2d(images, np.ones((1, 1, *problem.geometry.kernel_size), np.float32), **options)
    return np.asarray(counts > 0.5)


def _refuse(name: str, bad: np.ndarray, results: int) -> None:
    """Raise `DataError` if any results that count depend on bad pixels."""
    if results:
        raise DataError(
            f"{name}: got {int(bad.sum())} pixels that are nan or inf, on which {results} results that count depend, "
            "expected finite ones.",
            hint="weights=, of Y's shape, is 0 where a pixel is missing or a window holds one.",
        )


def blocks(problem: LearningProblem, kernel: np.ndarray, bias: np.ndarray | None, count: int) -> np.ndarray:
    """A kernel (OIHW) and a bias as `Moments` counts them: (blocks, n, outputs in a block), in float64."""
    outputs = len(kernel)
    rows = kernel.reshape(outputs, -1).astype(np.float64)
    if problem.use_bias:
        rows = np.concatenate([rows, np.asarray(bias).reshape(outputs, 1)], 1)
    return rows.reshape(count, outputs // count, -1).transpose(0, 2, 1)


def unblocks(problem: LearningProblem, unknowns: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The inverse of `blocks`."""
    rows = unknowns.transpose(0, 2, 1).reshape(-1, unknowns.shape[1])
    if not problem.use_bias:
        return rows.reshape(problem.oihw), None
    return rows[:, :-1].reshape(problem.oihw), rows[:, -1].copy()
