"""Keras's layers, read and built: see `convlab.models`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl
from keras.src.models.functional import Functional  # there is no public name for it

from convlab.errors import UnsupportedError
from convlab.geometry import NO_PADDING, Pads
from convlab.layers import LayerSpec
from convlab.models.activations import Activation
from convlab.models.adapters import ROLES
from convlab.models.layers import BatchNorm, Convolution, Dense, Dropout, Flatten, Layer, Pad, padding_in
from convlab.models.pooling import GlobalPool, Pool
from convlab.models.reading import Model, Part, known

from .layers import Conv2D

SAME = True  # whether its convolution pads by the image's size
LAYOUT = "NHWC"
FILES = (".weights.h5",)

_FORMATS = {"channels_last": "NHWC", "channels_first": "NCHW"}
_OURS = 'layers="convlab" has it.'


def read(model: kl.Layer, inputs: Any = None) -> Model:
    """See `convlab.models.adapters`."""
    whole = True

    def parts(layer: kl.Layer, path: str) -> Iterator[Part]:
        nonlocal whole
        children = [] if isinstance(layer, tuple(_READERS)) else _children(layer)
        if not children:
            yield from _parts(layer, path)
            return
        whole = whole and _is_chain(layer)
        for child in children:
            yield from parts(child, f"{path}/{child.name}" if path else child.name)

    found = list(parts(model, ""))
    layouts = {_layout(part.native) for part in found} - {None}
    return Model("tensorflow", found, whole and len(layouts) <= 1, model)


def _children(layer: kl.Layer) -> list[kl.Layer]:
    found = layer._flatten_layers(include_self=False, recursive=False)
    return [each for each in found if not isinstance(each, kl.InputLayer)]


def _is_chain(layer: kl.Layer) -> bool:
    """Whether a layer calls its children once each, one after another, and does nothing else."""
    if isinstance(layer, keras.Sequential):
        return type(layer).call is keras.Sequential.call
    if not isinstance(layer, Functional) or type(layer).call is not Functional.call:
        return False
    nodes = [node for level in layer._nodes_by_depth.values() for node in level if not node.is_input]
    called = [node.operation for node in nodes if isinstance(node.operation, kl.Layer)]
    return (
        len(layer.inputs) == len(layer.outputs) == 1
        and len(nodes) == len(called) == len(set(map(id, called)))
        and all(len(node.input_tensors) == 1 for node in nodes)
        and all(value is None for node in nodes for value in node.arguments.kwargs.values())
    )


def _parts(layer: kl.Layer, path: str) -> Iterator[Part]:
    """A layer as one part, or, if there is an activation inside, two; what does nothing is none."""
    activation = None if isinstance(layer, kl.Activation) else getattr(layer, "activation", None)
    found, note = _read(layer)
    if found is None or activation in _NOTHING:
        if not _does_nothing(layer):
            yield Part(path, layer, found, note)
        return
    yield Part(path, _without_activation(layer), found, note)
    native = activation if isinstance(activation, kl.Layer) else kl.Activation(activation, autocast=False)
    yield Part(path, native, *_read(native))


def _does_nothing(layer: kl.Layer) -> bool:
    if isinstance(layer, kl.Activation):
        return layer.activation in _NOTHING
    return isinstance(layer, (kl.Identity, kl.InputLayer))


def _without_activation(layer: kl.Layer) -> kl.Layer:
    other = type(layer).from_config({**layer.get_config(), "activation": None})
    other.build_from_config(layer.get_build_config())
    other.set_weights(layer.get_weights())
    return other


def _read(layer: kl.Layer) -> tuple[Layer | None, str]:
    name = type(layer).__name__
    kind = next((kind for kind in _READERS if isinstance(layer, kind)), None)
    if kind and type(layer).call is not kind.call:
        return None, f"{name}: it is a {kind.__name__} with a call of its own"
    if kind in _WEIGHTED and not layer.built:
        return None, f"{name}: it isn't built; call it once"
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return None, f"{name}: its kernel isn't one array, but quantized or adapted (LoRA)"
    return known(layer, _READERS)


def _array(variable: Any) -> np.ndarray | None:
    if variable is None:
        return None
    array = np.asarray(keras.ops.convert_to_numpy(variable))
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _kernel(layer: kl.Layer, array: np.ndarray) -> np.ndarray:
    """The OIHW kernel of a layer's, or of its gradient."""
    if isinstance(layer, Conv2D):
        return Convolution.ours(layer.spec, array, None, "float32").kernel
    if isinstance(layer, kl.DepthwiseConv2D):
        h, w, channels, each = array.shape
        return array.transpose(2, 3, 0, 1).reshape(channels * each, 1, h, w)
    return array.transpose(3, 2, 0, 1)


def _convolution(m: Any) -> Layer:
    array = _array(m.kernel)
    return Convolution.of(
        _kernel(m, array),
        _array(m.bias),
        m.kernel.dtype,
        array.shape[2] if isinstance(m, kl.DepthwiseConv2D) else m.groups,
        stride=m.strides,
        padding=m.padding,
        dilation=m.dilation_rate,
    )


def _ours(m: Conv2D) -> Layer:
    return Convolution.ours(m.spec, _array(m.weight), _array(m.bias), m.weight.dtype)


def _dense(m: kl.Dense) -> Layer:
    if m.built and len(m.get_build_config()["input_shape"]) != 2:
        raise UnsupportedError("it is applied to each pixel")
    return Dense(_array(m.kernel).T, _array(m.bias), m.kernel.dtype)


def _batch_norm(m: kl.BatchNormalization) -> Layer:
    if m.input_spec.ndim not in (2, 4) or m.axis % m.input_spec.ndim == 2:
        raise UnsupportedError(f"axis {m.axis} isn't the channels'")
    mean, variance = _array(m.moving_mean), _array(m.moving_variance)
    scale = _array(m.gamma) if m.scale else np.ones_like(mean)
    shift = _array(m.beta) if m.center else np.zeros_like(mean)
    return BatchNorm(mean, variance, scale, shift, m.epsilon, m.momentum, m.moving_mean.dtype)


def _pool(function: str) -> Callable[[Any], Layer]:
    def read(m: Any) -> Layer:
        padding = NO_PADDING if m.padding == "valid" else m.padding
        return Pool(function, tuple(m.pool_size), tuple(m.strides), padding)

    return read


def _dropout(m: kl.Dropout) -> Layer:
    if m.noise_shape is not None:
        raise UnsupportedError("noise_shape is Keras's alone")
    return Dropout(m.rate)


def _relu(m: kl.ReLU) -> Layer:
    if m.threshold or (m.max_value is not None and (m.max_value != 6 or m.negative_slope)):
        raise UnsupportedError("its threshold or max_value is Keras's alone")
    if m.max_value is not None:
        return Activation("relu6")
    return _leaky(m.negative_slope) if m.negative_slope else Activation("relu")


def _leaky(slope: float) -> Activation:
    return Activation("leaky_relu", float(np.float32(slope)))  # which is how TensorFlow holds it, whatever the dtype


@keras.saving.register_keras_serializable(package="convlab")
def gelu_tanh(x: Any) -> Any:
    """GELU with tanh in the place of the normal distribution."""
    return keras.activations.gelu(x, approximate=True)


def _functions() -> list[tuple[Any, Activation]]:
    """What `activation=` may be, beside its name, and what it then is."""
    found = [(gelu_tanh, Activation("gelu_tanh")), (keras.ops.gelu, Activation("gelu_tanh"))]
    found += [(module.gelu, Activation("gelu")) for module in (keras.activations, tf.nn)]
    layers = [Activation(name) for name in ("relu", "relu6", "sigmoid", "tanh", "softplus", "silu")]
    for layer in (*layers, _leaky(0.2), Activation("elu", 1.0)):
        found += [(getattr(module, layer.function), layer) for module in (keras.activations, keras.ops, tf.nn)]
    return [*found, (tf.tanh, Activation("tanh")), (tf.sigmoid, Activation("sigmoid"))]


_FUNCTIONS = _functions()
_NOTHING = (None, keras.activations.linear)


def _activation(m: kl.Activation) -> Layer:
    if isinstance(m.activation, kl.Layer):
        layer, note = _read(m.activation)
    else:
        layer = next((layer for function, layer in _FUNCTIONS if function is m.activation), None)
        note = getattr(m.activation, "__name__", str(m.activation))
    if layer is None:
        raise UnsupportedError(f"{note} is none of convlab's functions")
    return layer


_WEIGHTED = (Conv2D, kl.Conv2D, kl.DepthwiseConv2D, kl.BatchNormalization, kl.Dense)
_READERS: dict[type, Callable[[Any], Layer]] = {
    Conv2D: _ours,
    kl.Conv2D: _convolution,
    kl.DepthwiseConv2D: _convolution,
    kl.BatchNormalization: _batch_norm,
    kl.MaxPooling2D: _pool("max"),
    kl.AveragePooling2D: _pool("average"),
    kl.GlobalMaxPooling2D: lambda m: GlobalPool("max", m.keepdims),
    kl.GlobalAveragePooling2D: lambda m: GlobalPool("average", m.keepdims),
    kl.ZeroPadding2D: lambda m: Pad(tuple(map(tuple, m.padding))),
    kl.Flatten: lambda m: Flatten("HWC"),  # channels_first or not
    kl.Dense: _dense,
    kl.Dropout: _dropout,
    kl.Activation: _activation,
    kl.ReLU: _relu,
    kl.LeakyReLU: lambda m: _leaky(m.negative_slope),
    kl.ELU: lambda m: Activation("elu", float(m.alpha)),
}


def build(layer: Layer, style: str) -> list[kl.Layer]:
    """See `convlab.models.adapters`."""
    return _BUILDERS[type(layer)](layer, style)


def _filled(layer: kl.Layer, shape: Sequence[int | None], *arrays: np.ndarray | None) -> kl.Layer:
    layer.build(tuple(shape))
    layer.set_weights([array for array in arrays if array is not None])
    return layer


def _build_convolution(layer: Convolution, style: str) -> list[kl.Layer]:
    spec = layer.spec
    shape = (None, None, None, spec.in_channels)
    if style == "convlab":
        options, weight = layer.ours_for("NHWC")
        return [_filled(Conv2D(**options), shape, weight, layer.bias)]
    if max(spec.stride) > 1 and max(spec.dilation) > 1:
        raise UnsupportedError(f"Keras has no stride {spec.stride} with dilation {spec.dilation}.", hint=_OURS)
    padding, before = _padding(spec)
    options = {"strides": spec.stride, "padding": padding, "dilation_rate": spec.dilation}
    options |= {"use_bias": spec.use_bias, "data_format": "channels_last", "dtype": spec.dtype}
    if layer.depthwise and spec.stride[0] == spec.stride[1]:
        each = spec.out_channels // spec.groups
        kernel = layer.kernel.reshape(spec.groups, each, *spec.kernel_size).transpose(2, 3, 0, 1)
        conv = kl.DepthwiseConv2D(spec.kernel_size, depth_multiplier=each, **options)
    else:
        kernel = layer.kernel.transpose(2, 3, 1, 0)
        conv = kl.Conv2D(spec.out_channels, spec.kernel_size, groups=spec.groups, **options)
    return [*before, _filled(conv, shape, kernel, layer.bias)]


def _padding(spec: LayerSpec) -> tuple[str, list[kl.Layer]]:
    """Keras's padding of a convolution, and what pads before it."""
    enough = 2 * max(spec.kernel_size) * max(spec.dilation) + 1
    pads = padding_in(spec, (enough, enough))
    if spec.kernel_size == (1, 1) and isinstance(spec.padding, str):
        return "valid", []
    if spec.padding_mode != "zeros" and (spec.padding in ("same", "same_lower") or pads != NO_PADDING):
        raise UnsupportedError(f"Keras pads with zeros, this convolution pads {spec.padding_mode}.", hint=_OURS)
    if spec.padding == "same":
        return "same", []
    if spec.padding == "same_lower" and max(spec.stride) > 1:
        raise UnsupportedError(f"Keras has no padding same_lower with stride {spec.stride}.", hint=_OURS)
    return _named(spec, pads) or ("valid", _build_pad(Pad(pads), "builtin"))


def _named(spec: LayerSpec, pads: Pads) -> tuple[str, list[kl.Layer]] | None:
    """Keras's name for the padding of a convolution or a window, if it has one."""
    if pads == NO_PADDING:
        return "valid", []
    same = LayerSpec(spec.kernel_size, stride=spec.stride, padding="same", dilation=spec.dilation)
    return ("same", []) if spec.stride == (1, 1) and padding_in(same, (1, 1)) == pads else None


def _build_pad(layer: Pad, style: str) -> list[kl.Layer]:
    if layer.mode != "zeros" and layer.pads != NO_PADDING:
        raise UnsupportedError(f"Keras pads with zeros, this layer pads {layer.mode}.")
    return [kl.ZeroPadding2D(layer.pads, data_format="channels_last", autocast=False)]


def _build_pool(layer: Pool, style: str) -> list[kl.Layer]:
    if layer.ceil:
        raise UnsupportedError("Keras's pooling has no windows beyond the edge (ceil).")
    spec = LayerSpec(layer.size, stride=layer.stride)
    counted = layer.count_padding and layer.padding != NO_PADDING and layer.function == "average"
    if isinstance(layer.padding, str):
        padding, before = layer.padding, []
        if counted or padding not in ("valid", "same"):
            raise UnsupportedError(f"Keras's pooling has no padding {padding!r} like this.")
    elif counted:
        padding, before = "valid", _build_pad(Pad(layer.padding), style)
    elif named := _named(spec, layer.padding):
        padding, before = named
    else:
        raise UnsupportedError(f"Keras's pooling has no padding {layer.padding}.", hint="pad before it.")
    kind = kl.MaxPooling2D if layer.function == "max" else kl.AveragePooling2D
    return [*before, kind(layer.size, layer.stride, padding, data_format="channels_last", autocast=False)]


def _build_global_pool(layer: GlobalPool, style: str) -> list[kl.Layer]:
    kind = kl.GlobalMaxPooling2D if layer.function == "max" else kl.GlobalAveragePooling2D
    return [kind(data_format="channels_last", keepdims=layer.keepdims, autocast=False)]


def _build_batch_norm(layer: BatchNorm, style: str) -> list[kl.Layer]:
    norm = kl.BatchNormalization(-1, layer.momentum, layer.epsilon, dtype=layer.dtype)
    arrays = layer.scale, layer.shift, layer.mean, layer.variance
    return [_filled(norm, (None, None, None, len(layer.mean)), *arrays)]


def _build_flatten(layer: Flatten, style: str) -> list[kl.Layer]:
    if layer.order != "HWC":
        raise UnsupportedError("Keras flattens images pixel by pixel, this one channel by channel.")
    return [kl.Flatten(data_format="channels_last", autocast=False)]


def _build_dense(layer: Dense, style: str) -> list[kl.Layer]:
    outputs, inputs = layer.kernel.shape
    dense = kl.Dense(outputs, use_bias=layer.bias is not None, dtype=layer.dtype)
    return [_filled(dense, (None, inputs), layer.kernel.T, layer.bias)]


def _build_activation(layer: Activation, style: str) -> list[kl.Layer]:
    made = {
        "relu": kl.ReLU,
        "relu6": lambda **options: kl.ReLU(6.0, **options),
        "leaky_relu": lambda **options: kl.LeakyReLU(layer.parameter, **options),
        "elu": lambda **options: kl.ELU(layer.parameter, **options),
        "gelu_tanh": lambda **options: kl.Activation(gelu_tanh, **options),
    }
    other = lambda **options: kl.Activation(layer.function, **options)  # noqa: E731
    return [made.get(layer.function, other)(autocast=False)]


# Without autocast a layer that has no numbers of its own computes in the dtype of what it gets.
_BUILDERS: dict[type[Layer], Callable[[Any, str], list[kl.Layer]]] = {
    Convolution: _build_convolution,
    Pad: _build_pad,
    Pool: _build_pool,
    GlobalPool: _build_global_pool,
    BatchNorm: _build_batch_norm,
    Dropout: lambda layer, style: [kl.Dropout(layer.rate, autocast=False)],
    Flatten: _build_flatten,
    Dense: _build_dense,
    Activation: _build_activation,
}


def assemble(steps: Sequence[tuple[str, kl.Layer]]) -> keras.Sequential:
    """See `convlab.models.adapters`."""
    natives, names = [native for _, native in steps], set[str]()
    dtype = next((each.dtype_policy.name for each in natives if each.weights), None)
    for wanted, native in steps:
        name = wanted.replace(".", "_").replace("/", "_") or "layer"
        native.name = next(each for n in count() if (each := f"{name}_{n}" if n else name) not in names)
        names.add(native.name)
        if dtype and not native.weights:
            native.dtype_policy = dtype
    shape = next(filter(None, map(_input_shape, natives)), None)
    if shape is None:
        model = keras.Sequential(natives)
        model.built = True  # there is nothing to build
        return model
    return keras.Sequential([keras.Input(shape, dtype=dtype), *natives])


def _input_shape(layer: kl.Layer) -> tuple[int | None, ...] | None:
    if layer.weights:
        return tuple(layer.get_build_config()["input_shape"][1:])
    return (None, None, None) if isinstance(layer, (kl.Flatten, *_GLOBAL)) else None


_GLOBAL = (kl.GlobalMaxPooling2D, kl.GlobalAveragePooling2D)


def _layout(native: kl.Layer) -> str | None:
    """How a layer's images are laid out; None where it doesn't matter to it."""
    if isinstance(native, Conv2D):
        return str(native.spec.data_format)
    if isinstance(native, kl.BatchNormalization):
        spec = native.input_spec
        return None if spec is None or spec.ndim != 4 else "NCHW" if native.axis % 4 == 1 else "NHWC"
    if hasattr(native, "data_format"):
        return _FORMATS[native.data_format]
    return next(filter(None, map(_layout, _children(native))), None)


def run(natives: Sequence[kl.Layer], x: np.ndarray, dtype: str) -> np.ndarray:
    """See `convlab.models.adapters`."""
    return np.asarray(_array(_through(natives, _tensor(x, dtype))))


def _tensor(x: np.ndarray, dtype: str) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(np.ascontiguousarray(x)), dtype)


def _through(natives: Sequence[kl.Layer], x: tf.Tensor) -> tf.Tensor:
    for native in natives:
        layout = _layout(native) or _FORMATS[keras.config.image_data_format()]
        x = tf.transpose(x, (0, 2, 3, 1)) if layout == "NHWC" and x.shape.rank == 4 else x
        x = native(x, training=False)
        x = tf.transpose(x, (0, 3, 1, 2)) if layout == "NHWC" and x.shape.rank == 4 else x
    return x


def gradients(natives: Sequence[kl.Layer], x: np.ndarray, dy: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """See `convlab.models.adapters`."""
    owner = next((each for each in natives if isinstance(each, _WEIGHTED[:3])), None)
    named = {name: getattr(owner, name, None) for name in ("weight", "kernel", "bias")}
    leaves = {name: variable.value for name, variable in named.items() if variable is not None}

    def slopes(x: tf.Tensor, dy: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch((x, leaves))
            y = _through(natives, x)
        return tape.gradient(y, [x, *leaves.values()], output_gradients=dy)  # type: ignore[no-any-return]

    if _needs_compiler(owner):
        slopes = tf.function(slopes, jit_compile=True, autograph=False)
    found = zip(("X", *leaves), slopes(_tensor(x, dtype), _tensor(dy, dtype)), strict=True)
    arrays = {name: _array(each) for name, each in found}
    return {
        ROLES.get(name, name): _kernel(owner, each) if ROLES.get(name) == "K" else each for name, each in arrays.items()
    }


def _needs_compiler(owner: Any) -> bool:
    """Whether TensorFlow's CPU kernels for the gradient are wrong: see `convlab_tensorflow.ops`."""
    return isinstance(owner, (kl.Conv2D, kl.DepthwiseConv2D)) and max(*owner.strides, *owner.dilation_rate) > 1


def weights(model: kl.Layer) -> dict[str, np.ndarray]:
    """See `convlab.models.adapters`."""
    return dict(zip(_paths(model), model.get_weights(), strict=True))


def _paths(model: kl.Layer) -> list[str]:
    found: list[str] = []
    for path in (each.path for each in model.weights):
        found.append(next(each for n in count() if (each := f"{path}_{n}" if n else path) not in found))
    return found


def with_weights(model: kl.Layer, weights: Any) -> kl.Layer:
    """See `convlab.models.adapters`."""
    other = _copy(model)
    other.set_weights([weights[path] for path in _paths(model)] if isinstance(weights, dict) else weights)
    return other


def _copy(model: kl.Layer) -> kl.Layer:
    """The same layers, built, with weights of their own."""
    try:
        known = isinstance(model, (keras.Sequential, Functional))
        other = keras.models.clone_model(model) if known else type(model).from_config(model.get_config())
    except (TypeError, NotImplementedError) as error:
        raise UnsupportedError(
            f"{type(model).__name__}: Keras can't copy it, since its class has no get_config.",
            hint="load the weights into a new one by Keras.",
        ) from error
    _build_like(other, model)
    return other


def _build_like(new: kl.Layer, old: kl.Layer) -> None:
    for pair in zip(_children(new), _children(old), strict=True):
        _build_like(*pair)
    if old.built and not new.built and old.get_build_config():
        new.build_from_config(old.get_build_config())
    new.built = old.built


def _with_files(model: kl.Layer) -> keras.Model:
    if isinstance(model, keras.Model):
        return model
    alone = keras.Sequential([model])
    alone.built = True
    return alone


def save(model: kl.Layer, path: Path) -> None:
    """See `convlab.models.adapters`."""
    _with_files(model).save_weights(path)


def load(path: Path, model: kl.Layer) -> Any:
    """See `convlab.models.adapters`; the file is HDF5, in which there is no code."""
    other = _copy(model)
    _with_files(other).load_weights(path)
    return dict(zip(_paths(model), other.get_weights(), strict=True))
