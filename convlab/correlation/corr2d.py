"""`corr2d` and `conv2d`: check the arguments, pick the backend, compute on its tensors."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar, Unpack

from ..contract.call import Call
from ..contract.framework import Framework
from ..contract.operations import TRACED
from ..contract.rule import ALGORITHMS, Algorithm, RuleAlgorithm
from ..dtypes import itemsize
from ..errors import GeometryError, OptionError
from ..geometry.checks import boolean, choice
from ..geometry.geometry import Padding, Pair
from ..geometry.limits import MOST_BYTES, laid_out, memory, planes
from ..geometry.options import (
    GeometryOptions,
    channels_follow,
    check_shapes,
    flipped_origin,
    kernel_size,
    options,
)
from ..registry import inner_backend, resolve
from .arguments import check_bias, image_shape, kernel_shape, unify
from .call import execute
from .decide import Decision, decide
from .images import padded_by_name, planes_first, planes_last, warn_of_channels, with_value
from .repeated import SIGNATURES, prepared, recall, remember

Tensor = TypeVar("Tensor")
Function = TypeVar("Function", bound=Callable[..., Any])


def untouched_by_autograph(function: Function) -> Function:
    """Mark a function as TensorFlow's AutoGraph marks those it mustn't rewrite, without importing TensorFlow.

    Rewritten, they would be slower to trace and their errors would lose their types.
    """
    function.autograph_info__ = {}  # type: ignore[attr-defined]
    return function


@untouched_by_autograph
def corr2d(
    X: Tensor,
    K: Any,
    *,
    bias: Any = None,
    stride: int | Pair = 1,
    padding: Padding = 0,
    padding_mode: str = "zeros",
    padding_value: float = 0.0,
    origin: int | Pair | None = None,
    dilation: int | Pair = 1,
    groups: int = 1,
    data_format: str | None = None,
    algorithm: Algorithm = "auto",
    reproducible: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Two-dimensional cross-correlation of an image X with a kernel K, on the tensors of any framework.

    >>> corr2d([[0, 1, 2], [3, 4, 5], [6, 7, 8]], [[0, 1], [2, 3]])
    array([[19, 25],
           [37, 43]])

    Y[i, j] is the sum over p, q of X[i * stride + p * dilation, j * stride + q * dilation] * K[p, q], X padded
    first; with channels, also over the input channels of the group.

    Args:
        X: (..., H, W) for a rank-2 kernel, which is applied to each image of the leading axes; with
            `data_format="NHWC"` (..., H, W, C), and it is applied to each channel.
            For a rank-4 kernel (N, C, H, W) or (C, H, W), or with `data_format="NHWC"` (N, H, W, C) or (H, W, C).
        K: (h, w), or rank 4: OIHW (O, C/groups, h, w), or with "NHWC" HWIO (h, w, C/groups, O).
            A NumPy array or a list is fine beside another framework's X.
        bias: a number or shape (1,) for a rank-2 kernel, shape (O,) for rank 4; added to the result.
        stride: steps of the window, an int or (rows, columns).
        padding: elements around X: an int, (rows, columns), ((top, bottom), (left, right)), or
            "valid" (none), "same" (output ceil(n / stride), the odd element at the end: TensorFlow's SAME),
            "same_lower" (the odd one at the start: ONNX's SAME_LOWER), "full" (every overlap).
        padding_mode: the values of those elements: "zeros", "reflect" (d c b | a b c d | c b a), "symmetric"
            (c b a | a b c d | d c b), "replicate" (a a a | a b c d | d d d) or "circular" (b c d | a b c d | a b c).
            What SciPy, NumPy, OpenCV and the frameworks call them is understood where it means one thing only:
            "mirror", "nearest", "edge", "wrap", "constant", "BORDER_REFLECT_101" and others (`convlab.geometry.names`).
        padding_value: the value of those elements with "zeros" (or "constant"), a finite number.
        origin: with `padding="same"`, which element of the kernel lies on the pixel, an int or (rows, columns) from the
            centre size // 2 on: 0 is the default of SciPy and OpenCV. Without it an even kernel is placed as TensorFlow
            does.
        dilation: steps between the kernel's elements, an int or (rows, columns).
        groups: groups of channels convolved apart from one another.
        data_format: the order of X's axes, which also determines the order of K's: "NCHW" ("channels_first"), the
            default, or "NHWC" ("channels_last").
        algorithm: how to compute it, which changes the rounding and never the meaning: "auto" is the fastest known
            for these shapes on this machine (`convlab.plan` says which), exact for integer-valued data; "direct" the
            fastest that only adds and multiplies; `convlab.planning.choose` describes the others.
        reproducible: the same bits on every backend, eager or compiled, for the result and its gradients
            (`convlab.algorithms.reproducible` defines them). It is slower than the framework's own convolution of many
            channels.
        backend: where to compute if X, K and bias belong to no framework, by default NumPy. For a Dask array, the
            backend that computes its chunks.

    Returns:
        A tensor of X's framework on X's device, with gradients. Its dtype follows `convlab.dtypes`: the widest
        floating dtype among X, K and bias; int64, exact, if all are integers.

    Raises:
        ShapeError, GeometryError, DTypeError: an argument that makes no sense.
        MixedBackendsError, MixedDevicesError: tensors of two frameworks or on two devices.
        IntegerOverflowError: an exact integer result that doesn't fit into int64.

    Warns:
        LayoutWarning: X looks like (H, W, C) beside a rank-2 kernel, and `data_format` isn't given.
    """
    key = run = None
    if type(reproducible) is bool and padding_value == 0.0:
        how = algorithm, reproducible
        key, run = recall(
            X, K, bias, stride, padding, padding_mode, origin, dilation, groups, data_format, how, backend
        )
    if run is not None:
        return run(X, K, bias)  # type: ignore[no-any-return]
    return _correlate(  # type: ignore[no-any-return]
        X,
        K,
        False,
        key,
        bias=bias,
        stride=stride,
        padding=padding,
        padding_mode=padding_mode,
        padding_value=padding_value,
        origin=origin,
        dilation=dilation,
        groups=groups,
        data_format=data_format,
        algorithm=algorithm,
        reproducible=reproducible,
        backend=backend,
    )


class CorrelationOptions(GeometryOptions, total=False):
    """The keyword arguments of `corr2d` and their types."""

    bias: Any
    algorithm: Algorithm
    reproducible: bool
    backend: str | None


_OPTIONS = frozenset(CorrelationOptions.__annotations__)
# What other libraries call them.
_ELSEWHERE = {
    "mode": "scipy.signal's mode is padding='same' or 'full', scipy.ndimage's is padding_mode",
    "boundary": "it is padding_mode",
    "fillvalue": "it is padding_value",
    "cval": "it is padding_value",
    "strides": "it is stride",
    "dilation_rate": "it is dilation",
}


@untouched_by_autograph
def conv2d(X: Tensor, K: Any, **options: Unpack[CorrelationOptions]) -> Tensor:
    """Strict convolution: `corr2d` with the kernel flipped on both axes; the same keyword arguments.

    >>> conv2d([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], [[1, 2], [3, 4]])
    array([[1, 2, 0],
           [3, 4, 0]])
    """
    for name in options:
        if name not in _OPTIONS:
            hint = f"{_ELSEWHERE[name]}." if name in _ELSEWHERE else f"there are {', '.join(sorted(_OPTIONS))}."
            raise OptionError(f"{name}: got an argument that conv2d doesn't have.", hint=hint)
    return _correlate(X, K, True, None, **options)  # type: ignore[no-any-return]


def _correlate(X: Any, K: Any, flipped: bool, key: Hashable | None, /, **options: Any) -> Any:
    """A call of `corr2d`, or if flipped of `conv2d`, that isn't remembered; from now on it is, if there is a key."""

    def key_again() -> Hashable | None:
        apart = ("reproducible", "padding_value", "algorithm")
        remembered_by = {name: value for name, value in options.items() if name not in apart}
        return (
            None if flipped else recall(X, K, how=(options["algorithm"], options["reproducible"]), **remembered_by)[0]
        )

    return run_checked(checked(X, K, flipped, **options), X, K, options.get("bias"), key, key_again)


def run_checked(
    checked: Checked, X: Any, K: Any, bias: Any, key: Hashable | None, key_again: Callable[[], Hashable | None]
) -> Any:
    """The result of a checked call of X, K and bias, which is remembered if it has a key.

    A call's key is known only after the first call with tensors of its type: `key_again` gives it then.
    """
    framework, decision, (x, k, b), channels_last = checked
    ops, call = framework.ops, decision.call
    if call.inner and call.part == "y":
        y = ops.correlate(call, x, k, b)
    elif x is X and k is K and b is bias and not call.flipped and ops.signature(x, k, b) is not None:
        if type(X) not in SIGNATURES:
            SIGNATURES[type(X)] = ops.signature
            key = key_again()
        if key is not None:
            # The first call is computed like those after it, so that all have the same bits.
            return remember(key, prepared(ops, call, x, k, b))(x, k, b)
        y = execute(ops, call, x, k, b)
    else:
        y = execute(ops, call, x, k, b)
    return ops.native(planes_last(ops, y) if channels_last else y, X)


class Checked(NamedTuple):
    """A call of corr2d whose arguments are checked.

    Attributes:
        framework: where it is computed.
        decision: how it is computed.
        tensors: X, K and bias as the decision's call takes them.
        channels_last: whether the result (..., C, H, W) of a rank-2 kernel is to become (..., H, W, C).
    """

    framework: Framework
    decision: Decision
    tensors: list[Any]
    channels_last: bool


def checked(
    X: Any,
    K: Any,
    flipped: bool = False,
    *,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    padding_mode: Any = "zeros",
    padding_value: Any = 0.0,
    origin: Any = None,
    dilation: Any = 1,
    groups: Any = 1,
    data_format: Any = None,
    algorithm: Any = "auto",
    reproducible: bool = False,
    backend: str | None = None,
) -> Checked:
    """The call with its arguments checked, planned for the shapes of its tensors.

    Raises:
        The errors of `corr2d`.
    """
    algorithm = _checked_algorithm(algorithm, reproducible)
    framework = resolve(backend, X=X, K=K, bias=bias)
    ops, wraps = framework.ops, framework.adapter.wraps
    (x, k, b), dtype = unify(framework, {"X": X, "K": K, "bias": bias})
    kernel = kernel_shape(ops, k)
    size = kernel_size(kernel, data_format)
    origin = flipped_origin(origin, size) if flipped else origin
    geometry, padding_name = options(
        size, stride, padding, padding_mode, dilation, groups, data_format, padding_value, origin
    )
    shape = image_shape(ops, x, kernel, geometry)
    if len(kernel) == 2:
        warn_of_channels(shape, kernel, data_format)
    if wraps and framework.adapter.is_native(X) and not geometry.padding_value:
        # Each chunk is cast by itself.
        x = X
    channels_last = channels_follow(shape, kernel, geometry)
    if channels_last:
        x, shape = planes_first(ops, x), (*shape[:-3], shape[-1], *shape[-3:-1])
    if len(kernel) == 2:
        geometry = geometry._replace(data_format="NCHW")
    image_size = check_shapes(shape, kernel, geometry)
    padded = padded_by_name(ops, x, image_size, geometry, padding_name) if None in image_size else None
    if padded is not None:
        x, padding_name, shape = padded, "valid", ops.shape(padded) or ()
        geometry, image_size = geometry._replace(padding_value=0.0), check_shapes(shape, kernel, geometry)
    most = 0 if wraps else memory() if ops.mode(x, k) in ("eager", *TRACED) else MOST_BYTES
    geometry = laid_out(geometry, padding_name, image_size, planes(shape, kernel, geometry), itemsize(dtype), most)
    if b is not None:
        check_bias(ops.shape(b), None if len(kernel) == 2 else kernel[0 if geometry.data_format == "NCHW" else 3])
    if geometry.padding_value:
        x, geometry = with_value(ops, x, geometry, dtype, len(kernel))
        shape = ops.known_rank(x)
    call = Call(geometry, shape, kernel, dtype, flipped, algorithm, inner=inner_backend(backend) if wraps else "")
    return Checked(framework, decide(ops, call, x, k), [x, k, b], channels_last)


def _checked_algorithm(algorithm: Any, reproducible: bool) -> RuleAlgorithm:
    """The algorithm of a call's rule."""
    name = choice("algorithm", algorithm, ALGORITHMS)
    if not boolean("reproducible", reproducible):
        return name
    if name != "auto":
        raise GeometryError(
            f"algorithm: got {algorithm!r} with reproducible=True, expected 'auto'.",
            hint="reproducible=True has an algorithm of its own, the same on every backend.",
        )
    return "reproducible"
