"""MXNet's side of the contract, for arrays (`mx.np`, `mx.nd`) and, while hybridizing, for symbols."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np

from convlab.contract.call import Call
from convlab.contract.operations import Mode, Operations
from convlab.contract.rule import Rule
from convlab.correlation.compute import compute, gradients_of_rule
from convlab.correlation.on_host import reproducible_on_host
from convlab.errors import IntegerOverflowError, UnsupportedError
from convlab.geometry.geometry import Geometry

from . import adapter, private
from .convolution import LONG_ROW, convolution_options, convolve_transposed, plain_convolution, sliced, spare_channels
from .facade import import_mxnet

mx: Any = import_mxnet()

_DTYPES = {np.float16: "float16", np.float32: "float32", np.float64: "float64"}  # NumPy takes 6 us for an answer

# The integers that MXNet hasn't got, and the least of its own that hold them; of uint64, those below 2**63.
_HELD_IN = {"int16": "int32", "uint16": "int32", "uint32": "int64", "uint64": "int64"}


class MXNetOperations(Operations):
    """Inside, everything is `mx.np`: `cast` and `native` go to and fro without copying."""

    adapter = adapter
    # A custom operator waits for another thread, forward and backward.
    apply_seconds = 8e-3

    @property
    def version(self) -> str:
        return mx.__version__  # type: ignore[no-any-return]

    def devices(self) -> list[str]:
        return ["cpu(0)", *(f"gpu({i})" for i in range(mx.context.num_gpus()))]

    def device(self, x: Any) -> Hashable | None:
        return None if _symbolic(x) else str(_context(x))

    def is_concrete(self, x: Any) -> bool:
        return not _symbolic(x)

    def scope(self, dtype: str | None) -> AbstractContextManager[Any]:
        # Without NumPy's shapes, MXNet takes sizes of 0 and shapes of () for unknown ones.
        return mx.util.np_shape(True)  # type: ignore[no-any-return]

    def shape(self, x: Any) -> tuple[int | None, ...] | None:
        with mx.util.np_shape(True):
            if not _symbolic(x):
                return x.shape  # type: ignore[no-any-return]
            shape = x.infer_shape_partial()[1][0]
        # A parameter has no size of 0: that is how gluon writes an unknown one without NumPy's semantics.
        return None if shape is None else tuple(None if n <= 0 else n for n in shape)

    def dtype(self, x: Any) -> str | None:
        return None if _symbolic(x) else _DTYPES.get(x.dtype) or np.dtype(x.dtype).name

    def asarray(self, array: np.ndarray, dtype: str, like: Any = None) -> Any:
        if like is not None and _symbolic(like):
            raise UnsupportedError(
                "K: got an array beside a symbol, expected a parameter: MXNet's graphs have no constants.",
                hint="make it a gluon.Constant, or don't hybridize.",
            )
        array, dtype = array.astype(dtype), _HELD_IN.get(dtype, dtype)
        if array.dtype == np.uint64 and array.size and array.max() >= 2**63:
            raise IntegerOverflowError(
                f"array: got {array.max()}, expected integers below 2**63: MXNet has no uint64.",
                hint="convert it to float64.",
            )
        return mx.np.array(array.astype(dtype), dtype=dtype, ctx=None if like is None else _context(like))

    def to_numpy(self, x: Any) -> np.ndarray:
        with mx.util.np_shape(True):
            return _settled(x).asnumpy()  # type: ignore[no-any-return]

    def cast(self, x: Any, dtype: str | None) -> Any:
        x = x.as_np_ndarray()
        return x if dtype is None or self.dtype(x) == dtype else x.astype(_HELD_IN.get(dtype, dtype))

    def native(self, y: Any, like: Any) -> Any:
        legacy = type(like) in (mx.nd.NDArray, mx.sym.Symbol)
        return y.as_nd_ndarray() if legacy else y

    def reshape(self, x: Any, shape: Sequence[int]) -> Any:
        return x.reshape(tuple(shape))

    def transpose(self, x: Any, axes: Sequence[int]) -> Any:
        return _np(x).transpose(x, tuple(axes))

    def pad(self, x: Any, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Any:
        padded = _np(x).pad(x, tuple(widths))
        if not value:
            return padded
        if _symbolic(x):
            raise UnsupportedError(
                f"padding_value: got {value} in a hybridized block, expected 0: MXNet's graphs have no constants.",
                hint="don't hybridize the block, or pad its input before.",
            )
        # MXNet's own argument for the value is lost on the way to its operator.
        sizes = (n if any(width) else 1 for n, width in zip(x.shape, widths, strict=True))
        inside = mx.np.array(np.pad(np.ones([*sizes], bool), widths), dtype="bool", ctx=_context(x))
        # Without the shapes of `mx.np`, MXNet knows no arrays of rank 0.
        constant = mx.np.array(np.full([1] * x.ndim, value), dtype=x.dtype, ctx=_context(x))
        return mx.np.where(inside, padded, constant)

    def flip(self, x: Any, axes: Sequence[int]) -> Any:
        return _np(x).flip(x, tuple(axes))

    def take(self, x: Any, index: Sequence[int] | np.ndarray, axis: int) -> Any:
        return _np(x).take(x, mx.np.array(np.asarray(index), dtype="int64", ctx=_context(x)), axis=axis)

    def sum(self, x: Any, axes: tuple[int, ...]) -> Any:
        return x.sum(axis=axes)

    def filter_spectrum(self, x: Any, response: np.ndarray) -> Any:
        # MXNet has no Fourier transform on CPUs: its sums are products with matrices, which carry gradients.
        height, width = x.shape[2:]
        bins = response.shape[1]

        def waves(n: int, count: int) -> tuple[Any, Any]:
            angles = 2 * math.pi / n * (np.arange(n)[:, None] * np.arange(count) % n)
            return tuple(self.asarray(wave, str(x.dtype), x) for wave in (np.cos(angles), np.sin(angles)))

        (down, down_sine), (right, right_sine) = waves(height, height), waves(width, bins)
        multiply = mx.np.matmul
        real, imaginary = multiply(x, right), -multiply(x, right_sine)
        real, imaginary = (
            multiply(down, real) + multiply(down_sine, imaginary),
            multiply(down, imaginary) - multiply(down_sine, real),
        )
        gain, shift = (self.asarray(part, str(x.dtype), x) for part in (response.real, response.imag))
        real, imaginary = real * gain - imaginary * shift, real * shift + imaginary * gain
        real, imaginary = (
            multiply(down, real) - multiply(down_sine, imaginary),
            multiply(down, imaginary) + multiply(down_sine, real),
        )
        # All frequencies but the first, and the last of an even width, stand for their mirror images, too.
        times = np.full(bins, 2.0)
        times[0], times[width // 2 :] = 1.0, 2.0 if width % 2 else 1.0
        times = self.asarray(times / (height * width), str(x.dtype), x)
        return multiply(real * times, right.T) - multiply(imaginary * times, right_sine.T)

    def border(self, x: Any, axis: int, pads: tuple[int, int], mode: str) -> Any:
        def part(start: int, stop: int | None, *, reverse: bool = False) -> list[Any]:
            pixels = sliced(x, axis, start, stop)
            return [self.flip(pixels, (axis,)) if reverse else pixels]

        before, after = pads
        if mode == "replicate":
            first, last = part(0, 1) * before, part(-1, None) * after
        elif mode == "reflect":
            first = part(1, before + 1, reverse=True) if before else []
            last = part(-after - 1, -1, reverse=True) if after else []
        elif mode == "symmetric":
            first = part(0, before, reverse=True) if before else []
            last = part(-after, None, reverse=True) if after else []
        else:
            first = part(-before, None) if before else []
            last = part(0, after) if after else []
        return mx.sym.np.concatenate([*first, x, *last], axis)

    def stack(self, tensors: Sequence[Any], axis: int) -> Any:
        return mx.np.stack(tensors, axis)

    def where(self, condition: Any, x: Any, y: Any) -> Any:
        return mx.np.where(condition, x, y)

    def zeros(self, shape: Sequence[int], like: Any) -> Any:
        return mx.np.zeros(tuple(shape), dtype=like.dtype, ctx=_context(like))

    def number(self, value: float, like: Any) -> Any:
        # MXNet writes Python's numbers out in decimal and reads them inexactly.
        return mx.np.array(np.asarray(value, like.dtype), dtype=like.dtype, ctx=_context(like))

    def wait(self, y: Any) -> Any:
        y.wait_to_read()
        return y

    def every(self, condition: Any) -> bool:
        return bool(self.to_numpy(condition).all())

    def mode(self, *tensors: Any) -> Mode:
        if any(map(_symbolic, tensors)):  # graphs are saved, and must run where there is no convlab
            return "native"
        return "eager" if all(x.ctx == mx.cpu() for x in tensors) else "other"

    def as_host(self, x: Any) -> np.ndarray:
        # Asking for the data's address makes MXNet put them in order, in place.
        mx.base.check_call(private.library().MXNDArrayGetData(_settled(x).handle, ctypes.byref(ctypes.c_void_p())))
        return np.from_dlpack(_Capsule(mx.nd.to_dlpack_for_read(x)))

    def from_host(self, array: np.ndarray, like: Any) -> Any:
        if not array.size:
            return mx.np.array(array, dtype=array.dtype)
        return mx.nd.from_numpy(array, array_cls=mx.np.ndarray)

    def records(self, *tensors: Any) -> bool:
        return mx.autograd.is_recording()  # type: ignore[no-any-return]

    def signature(self, x: Any, k: Any, b: Any) -> Hashable | None:
        array = mx.np.ndarray
        if type(x) is not array or type(k) is not array or (b is not None and type(b) is not array):
            return None
        pair = x.shape, k.shape, private.kind(x), private.kind(k), self.records()
        return pair if b is None else (*pair, b.shape, private.kind(b))

    def prepare(self, call: Call) -> Callable[..., Any] | None:
        g, (images, weights) = call.geometry, call.canonical_shapes()
        if call.algorithm != "native" or g.padding_mode != "zeros":
            return None
        convolve = plain_convolution(call.dtype, g, images, weights) or partial(self.conv, geometry=g)
        if len(call.kernel) == 4:
            if len(call.image) == 3 or g.data_format == "NHWC":
                return None
            return lambda x, k, b: convolve(x, k) if b is None else convolve(x, k) + b.reshape((-1, 1, 1))
        shape = (*call.image[:-2], *g.output_size(images[2:]))

        def run(x: Any, k: Any, b: Any) -> Any:
            y = convolve(x.reshape(images), k.reshape(weights)).reshape(shape)
            return y if b is None else y + b

        return run

    def apply(self, rule: Rule, *inputs: Any) -> Any:
        planned = rule.algorithm != "reproducible"
        if not mx.autograd.is_recording() and (planned or reproducible_on_host(self, rule, *inputs)):
            return compute(self, rule, *inputs)
        y = _nd(inputs[0]).Custom(
            *(x.as_nd_ndarray() for x in inputs),
            op_type="convlab",
            code=",".join(map(str, rule.encode())),
            inputs=len(inputs),
        )
        return y.as_np_ndarray()

    def vjp(self, function: Callable[..., Any], inputs: Sequence[Any], dy: Any) -> tuple[Any, ...]:
        with mx.util.np_shape(True):
            leaves = [x.copy() for x in inputs]
            for leaf in leaves:
                leaf.attach_grad()
            with mx.autograd.record():
                y = function(*leaves)
            y.backward(dy)
            return tuple(leaf.grad for leaf in leaves)

    def to_images(self, x: Any, data_format: str) -> Any:
        # -2 copies a size, so that a symbol's needn't be known; -1 doesn't work for an image without pixels.
        leading = -1 if _symbolic(x) else math.prod(x.shape[:-2])
        return _npx(x).reshape(x, (leading, 1, -2, -2), reverse=True)

    def from_images(self, y: Any, like: Any, data_format: str) -> Any:
        like = _np(like).expand_dims(like, 0)  # `reshape_like` needs a leading axis to take
        y = _npx(y).reshape_like(y, like, lhs_begin=0, lhs_end=2, rhs_begin=0, rhs_end=-2)
        return _np(y).squeeze(y, 0)

    def conv(self, x: Any, kernel: Any, geometry: Geometry) -> Any:
        if geometry.data_format == "NHWC":
            y = self.conv(
                self.transpose(x, (0, 3, 1, 2)),
                self.transpose(kernel, (3, 2, 0, 1)),
                geometry._replace(data_format="NCHW"),
            )
            return self.transpose(y, (0, 2, 3, 1))
        if self.dtype(x) == "float16" and x.ctx.device_type != "gpu":  # MXNet has float16 on GPUs only
            y = self.conv(x.astype("float32"), kernel.astype("float32"), geometry)
            return y.astype("float16")
        height, width = (n or 0 for n in (self.shape(x) or (0,) * 4)[2:])
        if width > max(height, LONG_ROW):
            y = self.conv(_columns_first(x), _columns_first(kernel), geometry.swapped())
            return _columns_first(y)
        (top, bottom), (left, right) = geometry.padding
        if (top, left) != (bottom, right):
            x = _np(x).pad(x, ((0, 0), (0, 0), *geometry.padding))
            top = left = 0
        outputs, per_group = (self.shape(kernel) or ())[:2]
        assert outputs is not None
        spare = spare_channels(outputs, geometry) if per_group else 0
        if spare:
            kernel = _np(x).pad(kernel, ((0, spare), (0, 0), (0, 0), (0, 0)))
        y = _npx(x).convolution(
            x, kernel, **convolution_options(geometry._replace(padding=((top, top), (left, left))), outputs + spare)
        )
        return sliced(y, 1, 0, outputs) if spare else y

    def conv_transpose(self, y: Any, kernel: Any, geometry: Geometry, output_padding: Any) -> Any:
        return convolve_transposed(self, y, kernel, geometry, output_padding)


def _columns_first(x: Any) -> Any:
    return _np(x).swapaxes(x, 2, 3)


def _settled(x: Any) -> Any:
    """An array, once the engine has done all that it was asked for, so that the array's memory can be read.

    `wait_to_read` isn't enough. While a convolution runs it queues that its kernel be rearranged in place (to oneDNN's
    blocked layout), which waits for the engine's readers only; and DLPack rearranges in place what they may be reading.
    The engine runs custom operators on threads of its own: those must not wait for it, and it keeps their arrays.
    """
    if not private.in_foreign_thread():
        mx.nd.waitall()
    return x


class _Capsule:
    """A DLPack capsule as NumPy takes it."""

    def __init__(self, capsule: Any) -> None:
        self.capsule = capsule

    def __dlpack__(self, **_: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # DLPack's numbers of the CPU


def _context(x: Any) -> Any:
    """The context of an array; the memory that data loaders share or pin is the CPU's."""
    return x.ctx if x.ctx.device_type in ("cpu", "gpu") else mx.cpu()


def _symbolic(x: Any) -> bool:
    return isinstance(x, mx.sym.Symbol)


def _np(x: Any) -> Any:
    return mx.sym.np if _symbolic(x) else mx.np


def _npx(x: Any) -> Any:
    return mx.sym.npx if _symbolic(x) else mx.npx


def _nd(x: Any) -> Any:
    return mx.sym if _symbolic(x) else mx.nd


@mx.util.use_np
class _Apply(mx.operator.CustomOp):  # type: ignore[misc]
    """A rule as an operator; `autograd.Function` would drop gradients and can't be hybridized."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, is_train: bool, req: Any, in_data: Any, out_data: Any, aux: Any) -> None:
        y = compute(ops, self.rule, *(x.as_np_ndarray() for x in in_data))
        self.assign(out_data[0].as_np_ndarray(), req[0], y)

    def backward(self, req: Any, out_grad: Any, in_data: Any, out_data: Any, in_grad: Any, aux: Any) -> None:
        needed, dy = [request != "null" for request in req], out_grad[0].as_np_ndarray()
        slopes = gradients_of_rule(_Inside(), self.rule, [x.as_np_ndarray() for x in in_data], dy, needed)
        for slope, request, place in zip(slopes, req, in_grad, strict=True):
            if slope is not None:
                self.assign(place.as_np_ndarray(), request, slope)


class _Inside(MXNetOperations):
    """The operations within an operator, where other rules are computed at once."""

    def apply(self, rule: Rule, *inputs: Any) -> Any:
        return compute(self, rule, *inputs)


@mx.operator.register("convlab")
class _Operator(mx.operator.CustomOpProp):  # type: ignore[misc]
    def __init__(self, code: str, inputs: str) -> None:
        super().__init__(need_top_grad=True)
        self.rule = Rule.decode([int(number) for number in code.split(",")])
        self.inputs = int(inputs)

    def list_arguments(self) -> list[str]:
        return [f"input{index}" for index in range(self.inputs)]

    def infer_shape(self, in_shape: Any) -> Any:
        return in_shape, [self.rule.output_shape(*in_shape)], []

    def create_operator(self, ctx: Any, shapes: Any, dtypes: Any) -> _Apply:
        return _Apply(self.rule)


ops = MXNetOperations()
