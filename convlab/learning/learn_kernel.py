"""`learn_kernel`: find a kernel, and perhaps a bias, from input and output images."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, Literal

import numpy as np

from ..contract.framework import Framework
from ..contract.layer import seeded_kernel
from ..correlation.arguments import as_array, unify
from ..correlation.images import warn_of_channels
from ..dtypes import COMPLEX, check_numeric
from ..errors import DataError, DTypeError, GeometryError, ShapeError, UnsupportedError
from ..geometry.checks import boolean, choice, integer, real, shown
from ..geometry.geometry import Padding, Pair
from ..geometry.limits import check_held, memory
from ..geometry.options import options
from ..registry import owner, resolve
from .problem import LearningProblem
from .run import Images, LearnedKernel, Method, Settings, Training

METHODS: tuple[Method, ...] = ("autograd", "gram", "lstsq")
LR = 3e-2


def learn_kernel(
    X: Any,
    Y: Any = None,
    kernel_size: int | Pair | None = None,
    *,
    num_steps: int = 10,
    lr: float | Literal["auto"] = LR,
    method: Method = "autograd",
    optimizer: Any = None,
    out_channels: int | None = None,
    use_bias: bool = False,
    stride: int | Pair = 1,
    padding: Padding = 0,
    padding_mode: str = "zeros",
    padding_value: float = 0.0,
    origin: int | Pair | None = None,
    dilation: int | Pair = 1,
    groups: int = 1,
    data_format: str | None = None,
    weights: Any = None,
    ridge: float = 0.0,
    tol: float | None = None,
    init: Any = None,
    seed: int | None = None,
    reproducible: bool = False,
    log_every: int = 0,
    callback: Callable[[int, float, Any], object] | None = None,
    progress: bool = False,
    checkpoint: Any = None,
    checkpoint_every: int = 100,
    backend: str | None = None,
) -> LearnedKernel:
    """Learn the kernel that turns X into Y.

    Starting from some kernel, each step adds up the squared error of `corr2d(X, kernel)` against Y and moves the kernel
    by -lr times its gradient: the chapter's gradient descent.

    >>> import numpy as np
    >>> from convlab import chapter, corr2d
    >>> X = chapter.edge_image()
    >>> Y = corr2d(X, chapter.EDGE_KERNEL)
    >>> learned = learn_kernel(X, Y, (1, 2), init=[[0.0, 0.0]], log_every=5)
    epoch 5, loss 0.338
    epoch 10, loss 0.004
    >>> learned.kernel.round(2)
    array([[ 0.99, -0.99]], dtype=float32)

    `method="gram"` takes the same steps without looking at the images again, and "lstsq" none at all:

    >>> learn_kernel(X, Y, (1, 2), init=[[0.0, 0.0]], num_steps=1000, lr="auto", method="gram").losses[-1] < 1e-9
    True
    >>> learn_kernel(X, Y, (1, 2), method="lstsq").kernel.round(6)
    array([[ 1., -1.]], dtype=float32)

    Args:
        X: (..., H, W), one image or several, or with `data_format="NHWC"` (..., H, W, C), all of whose channels are
            images; with `out_channels` (N, C, H, W) or (C, H, W), or with
            `data_format="NHWC"` (N, H, W, C) or (H, W, C). Integers are taken as float32. Or, without Y, an iterable of
            pairs (X, Y) or triples (X, Y, weights) of any sizes; "gram" and "lstsq" read it once and keep nothing,
            "autograd" keeps it.
        Y: what corr2d should make of X, of the shape that the geometry gives.
        kernel_size: the kernel's rows and columns, an int or a pair.
        num_steps: how many steps to take; "lstsq" takes none.
        lr: the learning rate; "auto" is half of the largest that is stable, computed from the images.
        method: "autograd" is the framework's own gradient, at every step, compiled where the framework compiles;
            "gram" the same path, in float64, from sums over the images that are computed once
            (`convlab.learning.moments`); "lstsq" the kernel of least squared error.
        optimizer: for "autograd", the framework's own instead of plain gradient descent, which then has the learning
            rate: an optax optimiser, one of Keras', or what makes a `torch.optim` optimiser or a gluon Trainer of a
            list of parameters: `functools.partial(torch.optim.Adam, lr=0.1)`.
        out_channels: the number of Y's channels, for a kernel with channels; without it there are none.
        use_bias: learn a bias too.
        stride: as in `corr2d`.
        padding: as in `corr2d`.
        padding_mode: as in `corr2d`.
        padding_value: as in `corr2d`.
        origin: as in `corr2d`.
        dilation: as in `corr2d`.
        groups: as in `corr2d`.
        data_format: as in `corr2d`.
        weights: of Y's pixels in the squared error, broadcast to Y: 0 for a pixel that is missing, whose value then
            doesn't matter.
        ridge: for "lstsq", added to the squared error: ridge times the kernel's sum of squares.
        tol: stop after a step that lowers the loss by no more than tol times the first loss.
        init: the kernel to start from. The bias then starts from 0.
        seed: start from the same random kernel on every backend. Without init and seed the framework's built-in
            convolution layer draws it.
        reproducible: the same bits on every backend for each loss and the kernel: "autograd" by the sums that
            `convlab.algorithms.reproducible` defines, the learning rate rounded to float32 (for float64 images not),
            "gram" by exact ones. Without init and seed, seed is 0.
        log_every: print a line `epoch 2, loss 16.481` every so many steps; 0 prints nothing.
        callback: called after each step with (step from 0, loss, kernel).
        progress: show a bar on stderr.
        checkpoint: a file (safetensors) that is written every `checkpoint_every` steps, and for an iterable after each
            pair; if it exists already, the run continues from it and ends with the bits of an uninterrupted run.
        checkpoint_every: the steps between two checkpoints.
        backend: where to compute if X and Y belong to no framework.

    Raises:
        ShapeError: Y's shape isn't the one that X and the geometry give, or there are no images.
        DataError: a pixel that counts isn't finite, or no pixel counts.
        DivergedError: the loss grew; it names the largest stable learning rate.
        CheckpointError: a file that isn't a checkpoint, or belongs to another problem; it is left as it is.
        GeometryError, DTypeError, MixedBackendsError: an argument that makes no sense.

    Warns:
        RankDeficientWarning: the images don't determine the kernel; "lstsq" then finds the one of least norm.
    """
    settings = _checked_settings(
        Settings(
            num_steps=num_steps,
            lr=lr,
            method=method,
            optimizer=optimizer,
            ridge=ridge,
            tol=tol,
            init=init,
            seed=seed,
            log_every=log_every,
            callback=callback,
            progress=progress,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
        )
    )
    if kernel_size is None:
        raise GeometryError("kernel_size: got None, expected an int or a pair.", hint="kernel_size=(3, 3).")
    geometry, padding_name = options(
        kernel_size, stride, padding, padding_mode, dilation, groups, data_format, padding_value, origin
    )
    outputs = None if out_channels is None else integer("out_channels", out_channels, 1)
    problem = LearningProblem(
        geometry,
        padding_name,
        outputs,
        use_bias=boolean("use_bias", use_bias),
        reproducible=boolean("reproducible", reproducible),
    )
    return _learn(problem, settings, X, Y, weights, backend, data_format)


def _learn(
    problem: LearningProblem,
    settings: Settings,
    X: Any,
    Y: Any,
    weights: Any,
    backend: str | None,
    data_format: str | None,
) -> LearnedKernel:
    """`learn_kernel` once the arguments that don't depend on the images are checked."""
    settings = _checked_start(problem, settings)
    numbered = _numbered(X, Y, weights)
    first = next(numbered, None)
    if first is None:
        raise DataError("X: got an empty iterable, expected pairs (X, Y).", hint="is it used up already?")
    framework = resolve(backend, **{f"X{first.name}": first.x, f"Y{first.name}": first.y}, init=settings.init)
    converted, dtype = _converted(framework, first)
    shape = framework.ops.sizes(converted.x)
    problem = _with_channels(problem, dtype, shape)
    if problem.out_channels is None:
        warn_of_channels(shape, problem.geometry.kernel_size, data_format)
    if settings.method != "autograd" or settings.lr == "auto":
        unknowns = math.prod(problem.oihw[1:])
        check_held("kernel_size", "sums over pairs of windows", (problem.geometry.groups, unknowns, unknowns), 8)
    start = _start(framework, settings, problem)
    convert = partial(_converted, framework)
    images = _checked(framework, problem, chain([(converted, dtype)], map(convert, numbered)))
    only_once = Y is None and iter(X) is X

    def again() -> Iterator[Images]:
        return _checked(framework, problem, map(convert, _numbered(X, Y, weights)))

    with framework.ops.scope(dtype):
        training = Training(framework, problem.plain(), settings, images, None if only_once else again, converted.x)
        return training.learn(start)


def _checked_settings(settings: Settings) -> Settings:
    """The settings in their plain types, or an error that names one of them."""
    lr, method, optimizer = settings.lr, choice("method", settings.method, METHODS), settings.optimizer
    if not (isinstance(lr, str) and lr == "auto"):
        lr = _number("lr", lr, "lr=3e-2 is the chapter's; lr='auto' finds one.", positive=True)
    if optimizer is not None and (method != "autograd" or lr != LR):
        raise GeometryError(
            f"optimizer: got one with method={method!r} and lr={lr!r}, expected method='autograd' and no lr.",
            hint="the optimizer has a learning rate of its own.",
        )
    ridge = _number("ridge", settings.ridge, "ridge=0.0 is plain least squares.")
    if ridge and method != "lstsq":
        raise GeometryError(f"ridge: got {ridge} with method={method!r}, expected 'lstsq'.", hint="method='lstsq'.")
    tol = settings.tol
    if method == "lstsq" and (tol is not None or settings.callback is not None or settings.log_every):
        raise GeometryError(
            "tol, callback, log_every: got one of them with method='lstsq', which takes no steps.",
            hint="method='gram' takes steps, at next to no cost.",
        )
    if settings.callback is not None and not callable(settings.callback):
        raise DTypeError(
            f"callback: got {settings.callback!r}, expected a function of (step, loss, kernel).", hint="callback=print."
        )
    return settings._replace(
        num_steps=integer("num_steps", settings.num_steps, 0),
        lr=lr,
        ridge=ridge,
        tol=None if tol is None else _number("tol", tol, "tol=1e-6 stops when a step gains a millionth."),
        log_every=integer("log_every", settings.log_every, 0),
        progress=boolean("progress", settings.progress),
        checkpoint_every=integer("checkpoint_every", settings.checkpoint_every, 1),
    )


def _checked_start(problem: LearningProblem, settings: Settings) -> Settings:
    """The settings with what the start needs: `init` as an array or a tensor, and a seed for a reproducible run."""
    method, optimizer, init, seed = settings.method, settings.optimizer, settings.init, settings.seed
    if problem.reproducible and (method == "lstsq" or optimizer is not None):
        raise GeometryError(
            f"reproducible: got True with method={method!r} and optimizer={optimizer!r}, expected plain gradient "
            "descent.",
            hint="method='gram' or 'autograd' without an optimizer has the same bits everywhere.",
        )
    if init is not None and seed is not None:
        raise GeometryError("init, seed: got both, expected one of them.", hint="init is the kernel to start from.")
    if init is None and seed is None and problem.reproducible:
        return settings._replace(seed=0)
    return settings if init is None or owner(init) else settings._replace(init=as_array("init", init))


def _number(name: str, value: object, hint: str, positive: bool = False) -> float:
    """A setting as a finite float that isn't negative, or a `GeometryError` that names it."""
    number = real(value)
    if not math.isfinite(number) or number < 0 or (positive and number == 0):
        kind = "a positive finite number" if positive else "a finite number of at least 0"
        raise GeometryError(f"{name}: got {shown(value)}, expected {kind}.", hint=hint)
    return number


def _numbered(X: Any, Y: Any, weights: Any) -> Iterator[Images]:
    """X and Y, or the pairs of an iterable X, each with its number."""
    if Y is not None:
        yield Images("", X, Y, weights)
        return
    if owner(X) or not isinstance(X, Iterable) or isinstance(X, (str, bytes, dict)):
        raise ShapeError(
            f"Y: got None beside X of type {type(X).__name__}, expected images, or an iterable X of pairs (X, Y).",
            hint="learn_kernel(X, Y, kernel_size), or learn_kernel(pairs, kernel_size=kernel_size).",
        )
    if weights is not None:
        raise ShapeError(
            "weights: got weights beside an iterable X, expected None.", hint="give triples (X, Y, weights)."
        )
    for index, item in enumerate(X):
        if not isinstance(item, (tuple, list)) or len(item) not in (2, 3):
            raise ShapeError(
                f"X[{index}]: got {type(item).__name__}, expected a pair (X, Y) or a triple (X, Y, weights).",
                hint="learn_kernel(zip(inputs, outputs), kernel_size=3) makes pairs.",
            )
        yield Images(f"[{index}]", item[0], item[1], item[2] if len(item) == 3 else None)


def _converted(framework: Framework, images: Images) -> tuple[Images, str]:
    """Images as tensors of the backend, and their dtype."""
    name, x, y, weights = images
    (x, y), dtype = unify(framework, {f"X{name}": x, f"Y{name}": y}, floating=True)
    if dtype is None or dtype in COMPLEX:
        raise DTypeError(
            f"X{name}, Y{name}: got dtype {dtype}, expected real images.", hint="learn from the real parts."
        )
    if not framework.adapter.wraps and not (framework.ops.is_concrete(x) and framework.ops.is_concrete(y)):
        raise UnsupportedError(
            f"X{name}, Y{name}: got tensors that are being traced, expected some with values.",
            hint="call learn_kernel outside of jit, grad, vmap or tf.function: it compiles by itself.",
        )
    if weights is None:
        return Images(name, x, y, None), dtype
    with framework.ops.scope(dtype):
        if owner(weights) == framework.name and framework.name != "numpy":
            weights = framework.ops.cast(weights, dtype)
        else:
            weights = framework.ops.asarray(as_array(f"weights{name}", weights), dtype, like=x)
    shape, expected = framework.ops.sizes(weights), framework.ops.sizes(y)
    with contextlib.suppress(ValueError):
        if np.broadcast_shapes(shape, expected) == expected:
            return Images(name, x, y, weights), dtype
    raise ShapeError(
        f"weights{name}: got shape {shape}, expected one that broadcasts to Y{name}'s {expected}.",
        hint="there is a weight for each pixel of Y, which is smaller than X if there is no padding.",
    )


def _checked(
    framework: Framework, problem: LearningProblem, converted: Iterable[tuple[Images, str]]
) -> Iterator[Images]:
    """The images as `problem.plain()` takes them, each checked against the problem first."""
    for images, dtype in converted:
        if dtype != problem.dtype:
            raise DTypeError(
                f"X{images.name}: got dtype {dtype}, expected {problem.dtype}, that of X[0].",
                hint="convert all images to one dtype first.",
            )
        most = 0 if framework.adapter.wraps else memory()
        problem.check_images(images.name, framework.ops.sizes(images.x), framework.ops.sizes(images.y), most)
        yield Images(images.name, *problem.plain_images(framework.ops, images.x, images.y, images.weights))


def _with_channels(problem: LearningProblem, dtype: str, shape: tuple[int, ...]) -> LearningProblem:
    """The problem with the dtype and the channels of images of a shape."""
    if problem.out_channels is None:
        if problem.geometry.groups != 1:
            raise GeometryError(
                f"groups: got {problem.geometry.groups} without out_channels, expected 1.", hint="give out_channels."
            )
        return replace(problem, dtype=dtype)
    if len(shape) not in (3, 4):
        raise ShapeError(
            f"X: got shape {shape} with out_channels={problem.out_channels}, expected (N, C, H, W) or (C, H, W).",
            hint="X[None] makes one channel of an image.",
        )
    channels = shape[-1 if problem.channels_last else -3]
    for name, count in (("X's channels", channels), ("out_channels", problem.out_channels)):
        if count % problem.geometry.groups or not count:
            raise GeometryError(
                f"groups: got {problem.geometry.groups}, expected a divisor of {name}, {count}.",
                hint="each group has the same number of channels.",
            )
    return replace(problem, dtype=dtype, in_channels=channels)


def _start(framework: Framework, settings: Settings, problem: LearningProblem) -> np.ndarray | None:
    """The kernel to start from, in `problem.kernel_shape`; None if the framework draws it."""
    shape = problem.kernel_shape
    if settings.init is None:
        return None if settings.seed is None else problem.from_oihw(seeded_kernel(settings.seed, problem.oihw))
    start = framework.to_numpy(settings.init)
    check_numeric("init", start.dtype.name)
    if start.dtype.name in COMPLEX:
        raise DTypeError(f"init: got dtype {start.dtype.name}, expected real numbers.", hint="give init.real.")
    if not np.isfinite(start).all():
        raise DataError(
            "init: got numbers that are nan or inf, expected finite ones.", hint="start from zeros, or leave out init."
        )
    if start.shape != shape:
        raise ShapeError(
            f"init: got shape {start.shape}, expected {shape}, the kernel's.", hint="init is the kernel to start from."
        )
    return start
