"""Keras's layers, read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

from convlab.errors import UnsupportedError
from convlab.geometry.geometry import NO_PADDING
from convlab.models.layers.activations import Activation, Affine, Softmax
from convlab.models.layers.joining import Add, Concatenate, Multiply
from convlab.models.layers.layer import LOWEST, BatchNorm, Convolution, Dense, Dropout, Flatten, Layer, Pad, Unflatten
from convlab.models.layers.pooling import GlobalPool, Pool
from convlab.models.layers.reading import (
    Model,
    Part,
    chained,
    consumers,
    known,
    loose_array,
    loose_code,
    replaces,
    unbuilt,
    walk,
)
from convlab.truth.precision import rounded

from .. import private
from ..layers import Conv2D, LowestPadding2D
from .graph import graph_of

FORMATS = {"channels_last": "NHWC", "channels_first": "NCHW"}


def read(model: kl.Layer, inputs: Any = None) -> Model:
    """See `convlab.models.adapters.Models`."""
    parts, with_code = walk(model, _inside, _parts, _is_chain, "/")
    layouts = {layout(part.native) for part in parts} - {None}
    one_layout, why = len(layouts) <= 1, {}
    if with_code and one_layout:
        try:
            graph = graph_of(model, lambda layer, path: [*_parts(layer, path)], JOINING, _shape(model, inputs, layouts))
            return Model("tensorflow", [*_with_order(graph)], True, model, _image(model))
        except UnsupportedError as error:
            why = {"": str(error).rstrip(".")}
    whole = not with_code and one_layout
    parts = [*_with_order(chained(parts))] if whole else parts
    loose = _loose(model, {} if whole else with_code or {"": model}, why)
    return Model("tensorflow", parts, whole, model, _image(model), loose)


def _with_order(parts: Sequence[Part]) -> Iterator[Part]:
    """The parts, where a flattening behind a permutation of an image's axes is one, channel by channel."""
    takers = consumers(parts)
    before: dict[str, Part] = {}
    for part in parts:
        first = before.pop(part.inputs[0], None)
        if first is not None and isinstance(part.layer, Flatten):
            both = keras.Sequential([first.native, part.native])
            yield Part(part.path, both, Flatten("CHW"), "Flatten", first.inputs, part.value)
            continue
        if first is not None:
            yield first
        permutes = isinstance(part.native, kl.Permute) and tuple(part.native.dims) == (3, 1, 2)
        if permutes and len(takers.get(part.value, [])) == 1:
            before[part.value] = part
        else:
            yield part
    yield from before.values()


def _shape(model: kl.Layer, inputs: Any, layouts: set[str | None]) -> Sequence[int | None] | None:
    """The shape of the images that a model with a `call` of its own takes, with the batch."""
    if inputs is not None:
        n, *image = np.shape(inputs) if np.ndim(inputs) == 4 else (1, *np.shape(inputs))
        return (n, *image) if "NCHW" in layouts else (n, *image[1:], image[0])
    built = (model.get_build_config() or {}) if model.built else {}
    shape = built.get("input_shape")
    return shape if isinstance(shape, (tuple, list)) else None


def _inside(layer: kl.Layer) -> list[tuple[str, kl.Layer]]:
    """The layers inside a container, by name."""
    return [] if isinstance(layer, tuple(_READERS)) else [(child.name, child) for child in children(layer)]


def _image(model: kl.Layer) -> tuple[int | None, ...] | None:
    """The shape of the one image that a model says it takes, (C, H, W)."""
    inputs = getattr(model, "inputs", None) if isinstance(model, keras.Model) else None
    if not inputs or len(inputs) != 1:
        return None
    shape = tuple(inputs[0].shape[1:])
    nhwc = (layout(model) or FORMATS[keras.config.image_data_format()]) == "NHWC"
    return (shape[2], shape[0], shape[1]) if len(shape) == 3 and nhwc else shape


def _loose(model: kl.Layer, with_code: Mapping[str, kl.Layer], why: Mapping[str, str]) -> dict[str, str]:
    """Weights and operations that belong to no known layer."""
    loose: dict[str, str] = {}

    def visit(layer: kl.Layer, path: str) -> None:
        inside = _inside(layer)
        if not inside and _read(layer)[0] is not None:
            return
        below = {id(variable) for _, child in inside for variable in child.weights}
        for variable in layer.weights:
            if id(variable) not in below:
                loose[f"{path}/{variable.name}".lstrip("/")] = loose_array("weight", variable.shape)
        for name, child in inside:
            visit(child, f"{path}/{name}" if path else name)

    visit(model, "")
    for path, layer in with_code.items():
        loose[f"{path}/call()".lstrip("/")] = loose_code(layer, "call", [why[path]] if path in why else [])
    return loose


def children(layer: kl.Layer) -> list[kl.Layer]:
    """The layers right inside a layer."""
    return [child for child in private.layers_inside(layer) if not isinstance(child, kl.InputLayer)]


def _is_chain(layer: kl.Layer) -> bool:
    """Whether a layer calls its children once each, one after another, and does nothing else."""
    if isinstance(layer, keras.Sequential):
        return not replaces(layer, keras.Sequential, "call")
    functional: Any = private.functional_class()
    if not isinstance(layer, functional) or replaces(layer, functional, "call"):
        return False
    calls = private.calls(layer)
    if calls is None:
        return False
    layers = [call.operation for call in calls if isinstance(call.operation, kl.Layer)]
    return (
        len(layer.inputs) == len(layer.outputs) == 1
        and len(calls) == len(layers) == len(set(map(id, layers)))
        and all(len(call.input_tensors) == 1 for call in calls)
        and all(value is None for call in calls for value in call.arguments.kwargs.values())
    )


def _parts(layer: kl.Layer, path: str) -> Iterator[Part]:
    """The part that a layer is, or two if there is an activation inside; none for a layer that does nothing."""
    activation = None if isinstance(layer, kl.Activation) else getattr(layer, "activation", None)
    if isinstance(layer, _WEIGHTED) and not layer.built:
        raise unbuilt(path, layer, "call it once")
    read_layer, note = _read(layer)
    if read_layer is None or activation in _NOTHING:
        if not _does_nothing(layer):
            yield Part(path, layer, read_layer, note)
        return
    yield Part(path, _without_activation(layer), read_layer, note)
    native = activation if isinstance(activation, kl.Layer) else kl.Activation(activation, autocast=False)
    yield Part(path, native, *_read(native))


def _does_nothing(layer: kl.Layer) -> bool:
    if isinstance(layer, kl.Activation):
        return layer.activation in _NOTHING
    return type(layer) in (kl.Identity, kl.InputLayer)


def _without_activation(layer: kl.Layer) -> kl.Layer:
    other = type(layer).from_config({**layer.get_config(), "activation": None})
    other.build_from_config(layer.get_build_config())
    other.set_weights(layer.get_weights())
    return other


def _read(layer: kl.Layer) -> tuple[Layer | None, str]:
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return None, f"{type(layer).__name__}: its kernel isn't one array, but quantized or adapted (LoRA)"
    return known(layer, _READERS, "call")


def array_of(variable: Any) -> np.ndarray:
    """A variable's or a tensor's values; bfloat16 widened to float32."""
    array = np.asarray(keras.ops.convert_to_numpy(variable))
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def oihw(layer: kl.Layer, array: np.ndarray) -> np.ndarray:
    """A layer's kernel, or the gradient of it, as OIHW."""
    if isinstance(layer, Conv2D):
        return Convolution.ours(layer.spec, array, None, "float32").kernel
    if isinstance(layer, kl.DepthwiseConv2D):
        h, w, channels, multiplier = array.shape
        return array.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, h, w)
    return array.transpose(3, 2, 0, 1)


def _convolution(m: Any) -> Layer:
    return Convolution.of(
        oihw(m, _computed(m, m.kernel)),
        None if m.bias is None else _computed(m, m.bias),
        m.compute_dtype,
        m.kernel.shape[2] if isinstance(m, kl.DepthwiseConv2D) else m.groups,
        stride=m.strides,
        padding=m.padding,
        dilation=m.dilation_rate,
    )


def _computed(m: kl.Layer, variable: Any) -> np.ndarray:
    """A layer's weights as it computes with them, which under a mixed policy is in a narrower dtype."""
    array = array_of(variable)
    if m.compute_dtype == m.variable_dtype:
        return array
    return rounded(array, m.compute_dtype).astype("float32" if m.compute_dtype == "bfloat16" else m.compute_dtype)


def _ours(m: Conv2D) -> Layer:
    bias = None if m.bias is None else _computed(m, m.bias)
    return Convolution.ours(m.spec, _computed(m, m.weight), bias, m.compute_dtype)


def _dense(m: kl.Dense) -> Layer:
    if m.built and len(m.get_build_config()["input_shape"]) != 2:
        raise UnsupportedError("it is applied to each pixel and not to whole images")
    return Dense(_computed(m, m.kernel).T, None if m.bias is None else _computed(m, m.bias), m.compute_dtype)


def _batch_norm(m: kl.BatchNormalization) -> Layer:
    if m.compute_dtype != m.variable_dtype:
        raise UnsupportedError(f"it keeps {m.variable_dtype} and computes in {m.compute_dtype}")
    if m.input_spec.ndim != 4 or m.axis % m.input_spec.ndim == 2:
        raise UnsupportedError(f"it normalises axis {m.axis}, which isn't that of the channels")
    mean, variance = array_of(m.moving_mean), array_of(m.moving_variance)
    scale = array_of(m.gamma) if m.scale else np.ones_like(mean)
    shift = array_of(m.beta) if m.center else np.zeros_like(mean)
    return BatchNorm(mean, variance, scale, shift, m.epsilon, m.momentum, m.moving_mean.dtype)


def _pool(function: str) -> Callable[[Any], Layer]:
    def read(m: Any) -> Layer:
        padding = NO_PADDING if m.padding == "valid" else m.padding
        return Pool(function, tuple(m.pool_size), tuple(m.strides), padding)

    return read


def _dropout(m: kl.Dropout) -> Layer:
    if m.noise_shape is not None and tuple(m.noise_shape) != IMAGES:
        raise UnsupportedError(f"its noise_shape is {m.noise_shape}, expected None or {IMAGES}, whole images")
    return Dropout(m.rate, images=m.noise_shape is not None)


def _reshape(m: kl.Reshape) -> Layer:
    if len(m.target_shape) == 1:
        return Flatten("HWC")
    if len(m.target_shape) != 3 or tuple(m.target_shape[:2]) != (1, 1) or len(m.input.shape) != 2:
        raise UnsupportedError(f"it gives the shape {m.target_shape}, expected (numbers,), or (1, 1, numbers) of rows")
    return Unflatten()


def _relu(m: kl.ReLU) -> Layer:
    if m.threshold or (m.max_value is not None and (m.max_value != 6 or m.negative_slope)):
        raise UnsupportedError("only Keras has a ReLU with its threshold or max_value")
    if m.max_value is not None:
        return Activation("relu6")
    return _leaky(m.negative_slope) if m.negative_slope else Activation("relu")


def _softmax(m: kl.Softmax) -> Layer:
    if m.axis != -1:
        raise UnsupportedError(f"its axis is {m.axis}, expected -1, the channels")
    return Softmax()


def _leaky(slope: float) -> Activation:
    return Activation("leaky_relu", float(np.float32(slope)))  # TensorFlow holds it in float32, whatever the dtype


@keras.saving.register_keras_serializable(package="convlab")  # type: ignore[untyped-decorator]
def gelu_tanh(x: Any) -> Any:
    """GELU with tanh in the place of the normal distribution."""
    return keras.activations.gelu(x, approximate=True)


def _functions() -> list[tuple[Any, Layer]]:
    """The functions that `activation=` may be, and the activation that each is."""
    pairs: list[tuple[Any, Layer]] = [(gelu_tanh, Activation("gelu_tanh")), (keras.ops.gelu, Activation("gelu_tanh"))]
    pairs += [(module.gelu, Activation("gelu")) for module in (keras.activations, tf.nn)]
    names = ("relu", "relu6", "sigmoid", "tanh", "softplus", "silu", "hard_sigmoid", "mish", "selu")
    layers = [Activation(name) for name in names]
    for activation in (*layers, _leaky(0.2), Activation("elu", 1.0)):
        modules = [module for module in (keras.activations, keras.ops, tf.nn) if hasattr(module, activation.function)]
        pairs += [(getattr(module, activation.function), activation) for module in modules]
    pairs += [(module.hard_silu, Activation("hard_swish")) for module in (keras.activations, keras.ops)]
    for layer, name in ((Softmax(), "softmax"), (Softmax(log=True), "log_softmax")):
        pairs += [(getattr(module, name), layer) for module in (keras.activations, keras.ops, tf.nn)]
    return [*pairs, (tf.tanh, Activation("tanh")), (tf.sigmoid, Activation("sigmoid"))]


_FUNCTIONS = _functions()
_NOTHING = (None, keras.activations.linear)


def _activation(m: kl.Activation) -> Layer:
    if isinstance(m.activation, kl.Layer):
        layer, note = _read(m.activation)
    else:
        layer = next((layer for function, layer in _FUNCTIONS if function is m.activation), None)
        note = getattr(m.activation, "__name__", str(m.activation))
    if layer is None:
        raise UnsupportedError(f"convlab doesn't know the function {note}")
    return layer


def _rescaling(m: kl.Rescaling) -> Layer:
    if np.ndim(m.scale) or np.ndim(m.offset):
        raise UnsupportedError("its scale or offset isn't one number")
    return Affine(float(m.scale), float(m.offset))


def _concatenate(m: kl.Concatenate) -> Layer:
    if m.axis not in (-1, 3):
        raise UnsupportedError(f"it concatenates along axis {m.axis}, expected -1, the channels")
    return Concatenate()


# The noise_shape of a dropout of whole images.
IMAGES = (None, 1, 1, 1)
CONVOLUTIONS = (Conv2D, kl.Conv2D, kl.DepthwiseConv2D)
_WEIGHTED = (*CONVOLUTIONS, kl.BatchNormalization, kl.Dense)
_READERS: dict[type, Callable[[Any], Layer]] = {
    Conv2D: _ours,
    kl.Conv2D: _convolution,
    kl.DepthwiseConv2D: _convolution,
    kl.BatchNormalization: _batch_norm,
    kl.MaxPooling2D: _pool("max"),
    kl.AveragePooling2D: _pool("average"),
    kl.GlobalMaxPooling2D: lambda m: GlobalPool("max", m.keepdims),
    kl.GlobalAveragePooling2D: lambda m: GlobalPool("average", m.keepdims),
    LowestPadding2D: lambda m: Pad(m.padding, LOWEST),
    kl.ZeroPadding2D: lambda m: Pad((tuple(m.padding[0]), tuple(m.padding[1]))),
    kl.Flatten: lambda m: Flatten("HWC"),  # its data_format makes no difference
    kl.Dense: _dense,
    kl.Dropout: _dropout,
    kl.Reshape: _reshape,
    kl.Activation: _activation,
    kl.ReLU: _relu,
    kl.Softmax: _softmax,
    kl.LeakyReLU: lambda m: _leaky(m.negative_slope),
    kl.ELU: lambda m: Activation("elu", float(m.alpha)),
    kl.Rescaling: _rescaling,
    kl.Add: lambda m: Add(),
    kl.Multiply: lambda m: Multiply(),
    kl.Concatenate: _concatenate,
}
JOINING = (kl.Add, kl.Multiply, kl.Concatenate)


def layout(native: kl.Layer) -> str | None:
    """How a layer's images are laid out; None where it doesn't matter to it."""
    if isinstance(native, Conv2D):
        return str(native.spec.data_format)
    if isinstance(native, kl.BatchNormalization):
        spec = native.input_spec
        return None if spec is None or spec.ndim != 4 else "NCHW" if native.axis % 4 == 1 else "NHWC"
    if hasattr(native, "data_format"):
        return FORMATS[native.data_format]
    return next(filter(None, map(layout, children(native))), None)
