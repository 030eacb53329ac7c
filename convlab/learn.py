"""`learn_kernel`: find a kernel from input and output images by gradient descent."""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np

from .contract import Operations
from .dtypes import COMPLEX, check_numeric
from .errors import DTypeError, GeometryError, ShapeError
from .geometry import Pair, boolean, choice, integer, options, output_shape
from .layers import seeded_kernel
from .operands import admit, as_array
from .registry import owner, resolve
from .reproducible import descend

METHODS = ("autograd",)


@dataclass(frozen=True)
class LearnedKernel:
    """What `learn_kernel` found.

    Attributes:
        kernel: the learned kernel, shape `kernel_size`, a tensor of X's framework.
        losses: the loss before each step's update, one number a step.
    """

    kernel: Any
    losses: list[float]


class Descent(Protocol):
    """One run of gradient descent, in an adapter's `training` module: the framework's built-in convolution class,
    without bias, its squared error summed, and its own autograd.

    Made from the images X (N, 1, H, W) and Y (N, 1, H', W') — or (N, H, W, 1), the adapter's `image_layout` — the
    kernel size and the initial kernel, a NumPy array (h, w); None is the framework's own initialisation.
    """

    def step(self, lr: float) -> Any:
        """Compute the loss, update the kernel by -lr times the gradient, return the loss before the update."""

    @property
    def kernel(self) -> Any:
        """The kernel now, a tensor of shape (h, w)."""


def learn_kernel(
    X: Any,
    Y: Any,
    kernel_size: int | Pair,
    *,
    num_steps: int = 10,
    lr: float = 3e-2,
    method: Literal["autograd"] = "autograd",
    init: Any = None,
    seed: int | None = None,
    reproducible: bool = False,
    log_every: int = 0,
    callback: Callable[[int, float, Any], object] | None = None,
    backend: str | None = None,
) -> LearnedKernel:
    """Learn the kernel that turns X into Y, the chapter's way.

    The framework's built-in convolution layer without bias starts from some kernel; each step adds up the squared
    error of `corr2d(X, kernel)` against Y and moves the kernel by -lr times its gradient.

    >>> import numpy as np
    >>> from convlab import chapter, corr2d
    >>> X = chapter.edge_image()
    >>> found = learn_kernel(X, corr2d(X, chapter.EDGE_KERNEL), (1, 2), init=[[0.0, 0.0]], log_every=5)
    epoch 5, loss 0.338
    epoch 10, loss 0.004
    >>> found.kernel.round(2)
    array([[ 0.99, -0.99]], dtype=float32)

    Args:
        X: (..., H, W), one image or several; integers are taken as float32.
        Y: (..., H - h + 1, W - w + 1), what the kernel should make of X.
        kernel_size: h and w, an int or a pair.
        num_steps: how many steps to take.
        lr: the learning rate. Too large a one diverges: the losses grow to inf and nan.
        method: "autograd".
        init: the kernel to start from, shape (h, w).
        seed: start from the same random kernel on every backend. Without init and seed the framework's own
            initialiser draws it.
        reproducible: the same bits on every backend for each loss and the kernel, by the sums that
            `convlab.reproducible` defines; without init and seed, seed is 0. A loss and a kernel are rounded to the
            images' dtype, the learning rate to float32 (for float64 images not).
        log_every: print a line `epoch 2, loss 16.481` every so many steps; 0 prints nothing.
        callback: called after each step with (step from 0, loss, kernel).
        backend: where to compute if X and Y belong to no framework.

    Raises:
        ShapeError: Y's shape isn't the one that X and kernel_size give.
        GeometryError, DTypeError, MixedBackendsError: an argument that makes no sense.
    """
    choice("method", method, METHODS)
    boolean("reproducible", reproducible)
    steps, every = integer("num_steps", num_steps, 0), integer("log_every", log_every, 0)
    if isinstance(lr, bool) or not isinstance(lr, numbers.Real) or not math.isfinite(lr):
        raise GeometryError(f"lr: got {lr!r}, expected a finite number.", hint="lr=3e-2 is the chapter's.")
    size = options(kernel_size)[0].kernel_size
    start = _start(init, 0 if reproducible and init is None and seed is None else seed, size)
    lab = resolve(backend, X=X, Y=Y, init=start)
    (x, y), dtype = admit(lab, {"X": X, "Y": Y}, floating=True)
    if dtype in COMPLEX:
        raise DTypeError(f"X, Y: got dtype {dtype}, expected real images.", hint="learn from real parts.")
    if 0 in lab.ops.known_rank(x):
        raise ShapeError(f"X: got shape {lab.ops.shape(x)}, expected at least one image.", hint="give some pixels.")
    expected, given = output_shape(lab.ops.shape(x), size), lab.ops.shape(y)
    if given != expected:
        raise ShapeError(
            f"Y: got shape {given}, expected {expected}: X and a kernel of {size[0]}x{size[1]}, no padding.",
            hint="convlab.corr2d(X, kernel) makes such a Y.",
        )
    layout, to_images = "NCHW" if reproducible else lab.adapter.image_layout, lab.ops.to_images
    begin = partial(_ReproducibleDescent, lab.ops) if reproducible else lab.training.Descent
    losses: list[float] = []
    with lab.ops.scope(dtype):
        images = to_images(x, layout), to_images(y, layout)
        kernel = None if start is None else _real("init", lab.to_numpy(start))
        descent: Descent = begin(*images, size, kernel)
        for step in range(steps):
            losses.append(float(descent.step(float(lr))))
            if every and (step + 1) % every == 0:
                print(f"epoch {step + 1}, loss {losses[-1]:.3f}")
            if callback is not None:
                callback(step, losses[-1], lab.ops.native(descent.kernel, X))
        return LearnedKernel(lab.ops.native(descent.kernel, X), losses)


class _ReproducibleDescent:
    """`Descent` with the gradient written out, the same on every backend."""

    def __init__(self, ops: Operations, x: Any, y: Any, size: Pair, init: np.ndarray) -> None:
        self.ops, self.x, self.y = ops, x, y
        self._kernel = ops.asarray(np.reshape(init, (1, 1, *size)), ops.dtype(x) or "", like=x)

    def step(self, lr: float) -> Any:
        with self.ops.scope("float64"):
            rate = self.ops.asarray(np.array(lr), "float64", like=self.x)
            loss, self._kernel = _compiled_step(self.ops)(self.x, self.y, self._kernel, rate)
        return loss

    @property
    def kernel(self) -> Any:
        return self._kernel[0, 0, ...]


@functools.cache
def _compiled_step(ops: Operations) -> Callable[..., Any]:
    return ops.compiled(partial(descend, ops))


def _start(init: Any, seed: int | None, size: Pair) -> Any:
    if init is None:
        return None if seed is None else seeded_kernel(seed, size)
    if seed is not None:
        raise GeometryError("init, seed: got both, expected one of them.", hint="init says where to start already.")
    start = init if owner(init) else as_array("init", init)
    if tuple(start.shape) != size:
        raise ShapeError(
            f"init: got shape {tuple(start.shape)}, expected {size}, the kernel's size.",
            hint="init is the kernel to start from.",
        )
    return start


def _real(name: str, array: np.ndarray) -> np.ndarray:
    check_numeric(name, array.dtype.name)
    if array.dtype.name in COMPLEX:
        raise DTypeError(f"{name}: got dtype {array.dtype.name}, expected real numbers.", hint=f"give {name}.real.")
    return array
