"""Keras's layers, read and built: see `convlab.models`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl
from keras.src.models.functional import Functional  # there is no public name for it

from convlab.contract.layer import LayerSpec
from convlab.errors import UnsupportedError
from convlab.geometry.geometry import NO_PADDING, Pads
from convlab.models.adapters import ROLES
from convlab.models.layers.activations import Activation
from convlab.models.layers.layer import LOWEST, BatchNorm, Convolution, Dense, Dropout, Flatten, Layer, Pad, padding_in
from convlab.models.layers.pooling import GlobalPool, Pool
from convlab.models.layers.reading import Model

from .layers import Conv2D, LowestPadding2D
from .reading import CONVOLUTIONS, FORMATS, array_of, children, gelu_tanh, layout, oihw, read

__all__ = [
    "BUILTIN",
    "FILES",
    "LAYOUT",
    "SAME",
    "assemble",
    "build",
    "gradients",
    "load",
    "read",
    "run",
    "save",
    "weights",
    "with_weights",
]

BUILTIN = True
SAME = True  # whether its convolution pads by the image's size
LAYOUT = "NHWC"
FILES = (".weights.h5",)

_OURS = 'layers="convlab" has it.'


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
        kernel = _by_channel(layer)
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
    if layer.mode == LOWEST:
        return [LowestPadding2D(layer.pads, autocast=False)]
    if layer.mode != "zeros" and layer.pads != NO_PADDING:
        raise UnsupportedError(f"Keras pads with zeros, this layer pads {layer.mode}.")
    return [kl.ZeroPadding2D(layer.pads, data_format="channels_last", autocast=False)]


def _build_pool(layer: Pool, style: str) -> list[kl.Layer]:
    if layer.ceil:
        raise UnsupportedError("Keras's pooling has no windows beyond the edge (ceil).")
    spec = LayerSpec(layer.size, stride=layer.stride)
    counted = layer.count_padding and layer.padding not in (NO_PADDING, "valid") and layer.function == "average"
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


def run(natives: Sequence[kl.Layer], x: np.ndarray, dtype: str) -> np.ndarray:
    """See `convlab.models.adapters`."""
    through, given = partial(_through, natives), _tensor(x, dtype)
    return np.asarray(array_of(_compiled(through, given) if _lacks_kernels(natives) else through(given)))


def _compiled(function: Callable[..., Any], *given: tf.Tensor) -> Any:
    """What a function makes of tensors, by XLA; called itself, it would be warned about for being traced each time."""
    return tf.function(function, jit_compile=True, autograph=False).get_concrete_function(*given)(*given)


def _lacks_kernels(natives: Sequence[kl.Layer]) -> bool:
    """Whether there is a convolution inside that TensorFlow has for XLA only."""
    convolutions = [each for native in natives for each in native._flatten_layers() if isinstance(each, kl.Conv2D)]
    return any(layout(each) == "NCHW" and not _has_nchw(each.compute_dtype) for each in convolutions)


@lru_cache
def _has_nchw(dtype: str) -> bool:
    """Whether TensorFlow has a convolution of NCHW here: on CPUs it depends on oneDNN, and so on the processor."""
    one = tf.zeros((1, 1, 1, 1), dtype)
    try:
        tf.nn.conv2d(one, one, 1, "VALID", data_format="NCHW")
    except tf.errors.UnimplementedError:
        return False
    return True


def _tensor(x: np.ndarray, dtype: str) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(np.ascontiguousarray(x)), dtype)


def _through(natives: Sequence[kl.Layer], x: tf.Tensor) -> tf.Tensor:
    for native in natives:
        found = layout(native) or FORMATS[keras.config.image_data_format()]
        x = tf.transpose(x, (0, 2, 3, 1)) if found == "NHWC" and x.shape.rank == 4 else x
        x = native(x, training=False)
        x = tf.transpose(x, (0, 3, 1, 2)) if found == "NHWC" and x.shape.rank == 4 else x
    return x


def gradients(natives: Sequence[kl.Layer], x: np.ndarray, dy: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """See `convlab.models.adapters`."""
    owner = next((each for each in natives if isinstance(each, CONVOLUTIONS)), None)
    named = {name: getattr(owner, name, None) for name in ("weight", "kernel", "bias")}
    leaves = {name: variable.value for name, variable in named.items() if variable is not None}

    def slopes(x: tf.Tensor, dy: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch((x, leaves))
            y = _through(natives, x)
        return tape.gradient(y, [x, *leaves.values()], output_gradients=dy)  # type: ignore[no-any-return]

    given = _tensor(x, dtype), _tensor(dy, dtype)
    compiled = _gradient_is_wrong(owner) or _lacks_kernels(natives)
    found = zip(("X", *leaves), _compiled(slopes, *given) if compiled else slopes(*given), strict=True)
    arrays = {name: array_of(each) for name, each in found}
    return {
        ROLES.get(name, name): oihw(owner, each) if ROLES.get(name) == "K" else each for name, each in arrays.items()
    }


def _gradient_is_wrong(owner: Any) -> bool:
    """Whether TensorFlow's CPU kernels for the gradient are wrong: see `convlab_tensorflow.ops`."""
    return isinstance(owner, (kl.Conv2D, kl.DepthwiseConv2D)) and max(*owner.strides, *owner.dilation_rate) > 1


def fill(model: Model, layers: Mapping[str, Layer]) -> kl.Layer:
    """See `convlab.models.adapters`."""
    other = _copy(model.native)
    other.set_weights(model.native.get_weights())
    for path, layer in layers.items():
        native = other
        for name in filter(None, path.split("/")):
            native = next(each for each in children(native) if each.name == name)
        for name, array in _arrays(native, layer).items():
            if (variable := getattr(native, name, None)) is not None:
                variable.assign(array)
    return other


def _arrays(native: kl.Layer, layer: Any) -> dict[str, np.ndarray]:
    """A layer's arrays by the names and in the layout that a Keras layer has them."""
    if isinstance(layer, BatchNorm):
        return {
            "gamma": layer.scale,
            "beta": layer.shift,
            "moving_mean": layer.mean,
            "moving_variance": layer.variance,
        }
    arrays = {} if layer.bias is None else {"bias": layer.bias}
    if isinstance(layer, Dense):
        return arrays | {"kernel": layer.kernel.T}
    if isinstance(native, Conv2D):
        return arrays | {"weight": layer.ours_for(native.spec.data_format)[1].reshape(native.weight.shape)}
    if isinstance(native, kl.DepthwiseConv2D):
        return arrays | {"kernel": _by_channel(layer)}
    return arrays | {"kernel": layer.kernel.transpose(2, 3, 1, 0)}


def _by_channel(layer: Convolution) -> np.ndarray:
    """A depthwise kernel as Keras has it, (h, w, channels, outputs of each)."""
    spec = layer.spec
    return layer.kernel.reshape(spec.groups, -1, *spec.kernel_size).transpose(2, 3, 0, 1)


def weights(model: kl.Layer) -> dict[str, np.ndarray]:
    """See `convlab.models.adapters`."""
    return dict(zip(_paths(model), model.get_weights(), strict=True))


def _paths(model: kl.Layer) -> list[str]:
    """A name for each of a model's weights, the same in its copies: its layer's path and its own name."""
    found: dict[int, str] = {}

    def walk(layer: kl.Layer, prefix: str) -> None:
        for child in children(layer):
            walk(child, f"{prefix}{child.name}/")
        for variable in layer.weights:
            name = f"{prefix}{variable.name}"
            again = (each for n in count() if (each := f"{name}_{n}" if n else name) not in found.values())
            found.setdefault(id(variable), next(again))

    walk(model, "")
    return [found[id(variable)] for variable in model.weights]


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
    for pair in zip(children(new), children(old), strict=True):
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
