"""TensorFlow's side of the contract."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import tensorflow as tf

from convlab.algorithms.taps import by_taps, too_long
from convlab.compiled import kernels
from convlab.contract.call import Call, Variant
from convlab.contract.operations import Mode, Operations
from convlab.contract.rule import Part, Rule
from convlab.correlation.compute import compute, gradients_of_rule
from convlab.correlation.on_host import reproducible_on_host
from convlab.dtypes import COMPLEX
from convlab.geometry.geometry import Geometry, Pair
from convlab.planning.execute import choose_for

from . import adapter, private
from .convolution import convolve, convolve_transposed, fitted, reshaped

# An operation on a small tensor takes 10 us eagerly, and compiling 0.2 s: XLA soon pays from so many products on.
_COMPILED_FROM = 2**20


class TensorFlowOperations(Operations):
    adapter = adapter
    apply_seconds = 5e-4

    @property
    def version(self) -> str:
        return tf.__version__  # type: ignore[no-any-return]

    def devices(self) -> list[str]:
        return [device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices()]

    def is_concrete(self, x: Any) -> bool:
        return tf.executing_eagerly() and hasattr(x, "numpy")

    def shape(self, x: Any) -> tuple[int | None, ...] | None:
        return None if x.shape.rank is None else tuple(x.shape)

    def sizes(self, x: Any) -> tuple[Any, ...]:
        known = self.known_rank(x)
        if None not in known:
            return known
        dynamic = tf.shape(x)
        return tuple(dynamic[axis] if n is None else n for axis, n in enumerate(known))

    def dtype(self, x: Any) -> str:
        return tf.as_dtype(x.dtype).name  # type: ignore[no-any-return]

    def asarray(self, array: np.ndarray, dtype: str, like: Any = None) -> Any:
        return tf.cast(tf.convert_to_tensor(array), dtype)

    def to_numpy(self, x: Any) -> np.ndarray:
        x = tf.convert_to_tensor(x)
        return (tf.cast(x, tf.float32) if x.dtype == tf.bfloat16 else x).numpy()  # type: ignore[no-any-return]

    def cast(self, x: Any, dtype: str | None) -> Any:
        x = tf.convert_to_tensor(x)
        return x if dtype is None else tf.cast(x, dtype)

    def reshape(self, x: Any, shape: Sequence[Any]) -> Any:
        return reshaped(x, tuple(shape)) if all(type(n) is int for n in shape) else tf.reshape(x, shape)

    def transpose(self, x: Any, axes: Sequence[int]) -> Any:
        return tf.transpose(x, axes)

    def pad(self, x: Any, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Any:
        if not value:
            return tf.pad(x, widths)
        constant = tf.constant(np.asarray(value).astype(x.dtype.as_numpy_dtype), x.dtype)
        return tf.pad(x, widths, constant_values=constant)

    def flip(self, x: Any, axes: Sequence[int]) -> Any:
        return tf.reverse(x, axes)

    def take(self, x: Any, index: Sequence[int] | np.ndarray, axis: int) -> Any:
        return tf.gather(x, np.asarray(index), axis=axis)

    def border(self, x: Any, axis: int, pads: tuple[int, int], mode: str) -> Any:
        n = tf.shape(x)[axis]
        index = tf.range(-pads[0], n + pads[1])
        if mode == "circular":
            index = index % n
        elif mode == "replicate":
            index = tf.clip_by_value(index, 0, n - 1)
        elif mode == "symmetric":
            index = tf.minimum(index % (2 * n), (-1 - index) % (2 * n))
        else:
            period = tf.maximum(2 * (n - 1), 1)
            index = tf.minimum(index % period, -index % period)
        return tf.gather(x, index, axis=axis)

    def pad_same(self, x: Any, axis: int, extent: int, stride: int, mode: str, lower: bool, value: float = 0.0) -> Any:
        total = tf.maximum(extent - 1 - (tf.shape(x)[axis] - 1) % stride, 0)
        small = total // 2
        pads = (total - small, small) if lower else (small, total - small)
        if mode != "zeros":
            return self.border(x, axis, pads, mode)
        widths: list[tuple[Any, Any]] = [(0, 0)] * len(x.shape)
        widths[axis] = pads
        return tf.pad(x, widths, constant_values=tf.cast(value, x.dtype))

    def stack(self, tensors: Sequence[Any], axis: int) -> Any:
        return tf.stack(tensors, axis)

    def where(self, condition: Any, x: Any, y: Any) -> Any:
        return tf.where(condition, x, y)

    def zeros(self, shape: Sequence[Any], like: Any) -> Any:
        return tf.zeros(shape, like.dtype)

    def number(self, value: float, like: Any) -> Any:
        return tf.constant(value, like.dtype)

    def sum(self, x: Any, axes: tuple[int, ...]) -> Any:
        return tf.reduce_sum(x, axes)

    def rfft2(self, x: Any, size: Pair) -> Any:
        return tf.signal.rfft2d(x, size)

    def irfft2(self, spectrum: Any, size: Pair) -> Any:
        return tf.signal.irfft2d(spectrum, size)

    def conj(self, x: Any) -> Any:
        return tf.math.conj(x)

    def floor(self, x: Any) -> Any:
        return tf.floor(x)

    def every(self, condition: Any) -> Any:
        answer = tf.reduce_all(condition)
        return bool(answer) if tf.executing_eagerly() else answer

    def choose(self, condition: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
        return super().choose(condition, yes, no) if isinstance(condition, bool) else tf.cond(condition, yes, no)

    def mode(self, *tensors: Any) -> Mode:
        if not all(self.is_concrete(x) for x in tensors):
            return "other" if tf.config.list_physical_devices("GPU") else "traced"
        return "eager" if all("CPU" in x.device for x in tensors) else "other"

    def as_host(self, x: Any) -> np.ndarray:
        return np.asarray(memoryview(x))

    def host_empty(self, shape: Sequence[int], dtype: Any) -> np.ndarray:
        return kernels.aligned(shape, dtype)

    def from_host(self, array: np.ndarray, like: Any) -> Any:
        if array.ctypes.data % 64 or not array.size:  # TensorFlow aborts the process when it computes with such memory
            return tf.convert_to_tensor(array)
        return tf.experimental.dlpack.from_dlpack(array.__dlpack__())

    def records(self, *tensors: Any) -> bool:
        return private.could_record()

    def signature(self, x: Any, k: Any, b: Any) -> Hashable | None:
        kinds = {type(x), type(k), type(x if b is None else b)}
        if len(kinds) > 1 or not private.is_eager_tensor(x) or not tf.executing_eagerly():
            return None
        return tuple((tuple(y.shape), y.dtype, y.device) for y in (x, k, b) if y is not None), self.records()

    def prepare(self, call: Call) -> Callable[..., Any] | None:
        g = call.geometry
        n, _, *size = call.canonical_shapes()[0]
        if call.algorithm != "native" or g.padding_mode != "zeros" or call.dtype in COMPLEX or too_long(size, g):
            return None
        convolution = fitted(g._replace(data_format="NHWC"), (size[0], size[1]))
        if len(call.kernel) == 2:
            return self._prepared_image(call, n, convolution)
        if len(call.image) != 4 or g.data_format == "NCHW":
            return None
        return lambda x, k, b: convolution(x, k) if b is None else convolution(x, k) + b

    def _prepared_image(self, call: Call, n: int, convolution: Callable[..., Any]) -> Callable[..., Any]:
        shapes: list[Any] = [call.image, call.kernel]
        image, kernel = (n, *shapes[0][-2:], 1), (*shapes[1], 1, 1)
        result = (*shapes[0][:-2], *call.geometry.output_size(shapes[0][-2:]))

        def run(x: Any, k: Any, b: Any) -> Any:
            y = reshaped(convolution(reshaped(x, image), reshaped(k, kernel)), result)
            return y if b is None else y + b

        return run

    def part(self, x: Any, start: Any, size: int, axis: int) -> Any:
        # XLA knows the size of this slice, unlike that of one from start to start + size.
        begin, sizes = [0] * len(x.shape), [-1 if n is None else n for n in x.shape]
        begin[axis], sizes[axis] = start, size
        return tf.slice(x, begin, sizes)

    def fold(self, function: Callable[[Any, Any], Any], total: Any, count: Any) -> Any:
        if tf.executing_eagerly():
            return super().fold(function, total, int(count))
        _, total = tf.while_loop(
            lambda index, total: index < count,
            lambda index, total: (index + 1, tf.ensure_shape(function(total, index), total.shape)),
            (tf.constant(0), total),
        )
        return total

    def apply(self, rule: Rule, *inputs: Any) -> Any:
        run: Callable[..., Any] = partial(compute, self, rule)
        if tf.executing_eagerly() and self._compiles(rule, inputs):
            run = _compiled(rule, inputs[0].dtype.name, *(tuple(x.shape) for x in inputs))

        if tf.executing_eagerly() and not self.records():
            return run(*inputs)

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def function(*inputs: Any) -> Any:
            needed = (True,) * len(inputs)
            return run(*inputs), lambda dy: gradients_of_rule(self, rule, inputs, dy, needed)

        return function(*inputs)

    def _compiles(self, rule: Rule, inputs: Sequence[Any]) -> bool:
        if rule.algorithm != "reproducible":
            variant = choose_for(self, rule, *inputs).variant
            return variant is not Variant.NATIVE and not variant.on_host
        if reproducible_on_host(self, rule, *inputs):
            return False
        return rule.products(*(tuple(x.shape) for x in inputs)) >= _COMPILED_FROM

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return tf.function(function, jit_compile=True, autograph=False)  # type: ignore[no-any-return]

    def conv_gradient(self, part: Part, a: Any, b: Any, geometry: Geometry, size: Pair) -> Any:
        plain = (geometry.stride, geometry.dilation, geometry.groups) == ((1, 1), (1, 1), 1)
        if not plain or too_long(size, geometry):
            return super().conv_gradient(part, a, b, geometry, size)
        options = {"strides": (1, 1, 1, 1), "padding": "VALID"}
        rows, columns = (n + sum(pads) for n, pads in zip(size, geometry.padding, strict=True))
        (top, _), (left, _) = geometry.padding
        if part == "x":
            k, dy = tf.transpose(b, (2, 3, 1, 0)), tf.transpose(a, (0, 2, 3, 1))
            shape = (a.shape[0], rows, columns, b.shape[1])
            dx = tf.raw_ops.Conv2DBackpropInput(input_sizes=shape, filter=k, out_backprop=dy, **options)
            return tf.transpose(dx, (0, 3, 1, 2))[:, :, top : top + size[0], left : left + size[1]]
        x = tf.transpose(tf.pad(a, ((0, 0), (0, 0), *geometry.padding)), (0, 2, 3, 1))
        shape = (*geometry.kernel_size, a.shape[1], b.shape[1])
        dy = tf.transpose(b, (0, 2, 3, 1))
        dk = tf.raw_ops.Conv2DBackpropFilter(input=x, filter_sizes=shape, out_backprop=dy, **options)
        return tf.transpose(dk, (3, 2, 0, 1))

    def vjp(self, function: Callable[..., Any], inputs: Sequence[Any], dy: Any) -> tuple[Any, ...]:
        inputs = [tf.convert_to_tensor(x) for x in inputs]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y = function(*inputs)
        return tuple(tape.gradient(y, inputs, output_gradients=dy))

    def conv(self, x: Any, kernel: Any, geometry: Geometry) -> Any:
        if x.dtype.is_complex:
            return self._of_parts(lambda x, kernel: self.conv(x, kernel, geometry), x, kernel)
        if too_long(x.shape[2:] if geometry.data_format == "NCHW" else x.shape[1:3], geometry):
            return by_taps(self, x, kernel, geometry)
        if geometry.data_format == "NCHW":  # TensorFlow has this convolution on GPUs only
            y = self.conv(
                tf.transpose(x, (0, 2, 3, 1)),
                tf.transpose(kernel, (2, 3, 1, 0)),
                geometry._replace(data_format="NHWC"),
            )
            return tf.transpose(y, (0, 3, 1, 2))
        return convolve(x, kernel, geometry)

    def conv_transpose(self, y: Any, kernel: Any, geometry: Geometry, output_padding: Pair) -> Any:
        if y.dtype.is_complex:
            return self._of_parts(lambda y, kernel: self.conv_transpose(y, kernel, geometry, output_padding), y, kernel)
        if geometry.data_format == "NCHW":
            y, kernel = tf.transpose(y, (0, 2, 3, 1)), tf.transpose(kernel, (2, 3, 1, 0))
            return tf.transpose(convolve_transposed(y, kernel, geometry, output_padding), (0, 3, 1, 2))
        return convolve_transposed(y, kernel, geometry, output_padding)

    def _of_parts(self, convolution: Callable[[Any, Any], Any], x: Any, kernel: Any) -> Any:
        """A convolution of complex numbers by that of real ones, the only one that TensorFlow has."""
        parts = tf.concat([tf.math.real(x), tf.math.imag(x)], 0)
        by_real, by_imaginary = (
            tf.split(convolution(parts, part), 2) for part in (tf.math.real(kernel), tf.math.imag(kernel))
        )
        return tf.complex(by_real[0] - by_imaginary[1], by_imaginary[0] + by_real[1])


@lru_cache(256)  # bounded, since each function holds a compiled program
def _compiled(rule: Rule, dtype: str, *shapes: tuple[int, ...]) -> Callable[..., Any]:
    """A rule for tensors of one dtype and shape: one function for each, so that TensorFlow traces none again."""
    function = ops.compiled(partial(compute, ops, rule))
    return lambda *inputs: function(*map(tf.stop_gradient, inputs))  # `apply` gives it the rule's gradient


ops = TensorFlowOperations()
