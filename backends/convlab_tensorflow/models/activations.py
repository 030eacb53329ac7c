"""Keras's layers for activations, and the functions that its layers have for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

from convlab.models.layers.across_channels import GatedLinearUnit
from convlab.models.layers.activations import Activation, Clip, Softmax
from convlab.models.layers.layer import Layer

from .. import image_layers


def leaky(slope: float) -> Activation:
    """A leaky ReLU."""
    return Activation("leaky_relu", float(np.float32(slope)))  # TensorFlow holds it in float32, whatever the dtype


@keras.saving.register_keras_serializable(package="convlab")  # type: ignore[untyped-decorator]
def gelu_tanh(x: Any) -> Any:
    """GELU with tanh in the place of the normal distribution."""
    return keras.activations.gelu(x, approximate=True)


# Further functions of no parameter, and those whose parameter has a default.
_NAMED = ("softsign", "log_sigmoid", "tanh_shrink", "sparse_plus", "sparse_sigmoid")
_AT_DEFAULTS = (Activation("soft_shrink", 0.5), Activation("hard_shrink", 0.5), Activation("squareplus", 4.0))


def _functions() -> list[tuple[Any, Layer]]:
    """The functions that `activation=` may be, and the activation that each is."""
    pairs: list[tuple[Any, Layer]] = [(gelu_tanh, Activation("gelu_tanh")), (keras.ops.gelu, Activation("gelu_tanh"))]
    pairs += [(module.gelu, Activation("gelu")) for module in (keras.activations, tf.nn)]
    names = ("relu", "relu6", "sigmoid", "tanh", "softplus", "silu", "hard_sigmoid", "mish", "selu", *_NAMED)
    layers = [Activation(name) for name in names]
    for activation in (*layers, leaky(0.2), Activation("elu", 1.0), *_AT_DEFAULTS):
        modules = [module for module in (keras.activations, keras.ops, tf.nn) if hasattr(module, activation.function)]
        pairs += [(getattr(module, activation.function), activation) for module in modules]
    pairs += [(module.hard_silu, Activation("hard_swish")) for module in (keras.activations, keras.ops)]
    for layer, name in ((Softmax(), "softmax"), (Softmax(log=True), "log_softmax")):
        pairs += [(getattr(module, name), layer) for module in (keras.activations, keras.ops, tf.nn)]
    for name, other in {"celu": Activation("elu", 1.0), "hard_tanh": Clip(-1.0, 1.0), "glu": GatedLinearUnit()}.items():
        modules = [module for module in (keras.activations, keras.ops) if hasattr(module, name)]  # not in old ones
        pairs += [(getattr(module, name), other) for module in modules]
    others = {
        "log_sigmoid": [tf.math.log_sigmoid],
        "abs": [tf.abs],
        "sqrt": [tf.sqrt],
        "exp": [tf.exp, keras.activations.exponential],
        "log": [tf.math.log],
        "reciprocal": [tf.math.reciprocal],
    }
    for name, functions in {**others, "tanh": [tf.tanh], "sigmoid": [tf.sigmoid]}.items():
        own = [getattr(keras.ops, name)] if hasattr(keras.ops, name) else []
        pairs += [(function, Activation(name)) for function in (*functions, *own)]
    return pairs


FUNCTIONS = _functions()
NOTHING = (None, keras.activations.linear)


def build_activation(layer: Activation, style: str) -> list[kl.Layer]:
    """Keras's layers for an activation."""
    constructors: dict[str, Callable[..., kl.Layer]] = {
        "relu": kl.ReLU,
        "relu6": lambda **options: kl.ReLU(6.0, **options),
        "leaky_relu": lambda **options: kl.LeakyReLU(layer.parameter, **options),
        "elu": lambda **options: kl.ELU(layer.parameter, **options),
        "gelu_tanh": lambda **options: kl.Activation(gelu_tanh, **options),
    }
    if layer.function in constructors:
        return [constructors[layer.function](autocast=False)]
    ours = (*image_layers.ELEMENTWISE, "celu", "threshold")
    at_default = any((layer.function, layer.parameter) == (each.function, each.parameter) for each in _AT_DEFAULTS)
    name = {"hard_swish": "hard_silu"}.get(layer.function, layer.function)
    lacks = not hasattr(keras.activations, name)  # as old ones do
    if layer.function in ours or (layer.parameter and not at_default) or lacks:
        return [image_layers.Elementwise(layer.function, layer.parameter, autocast=False)]
    return [kl.Activation(name, autocast=False)]


def build_clip(layer: Clip, style: str) -> list[kl.Layer]:
    """Keras's layers for limits."""
    least, most = layer.finite_limits
    return [image_layers.Clip(least, most, autocast=False)]


def build_softmax(layer: Softmax, style: str) -> list[kl.Layer]:
    """Keras's layers for a softmax."""
    return [kl.Activation("log_softmax", autocast=False) if layer.log else kl.Softmax(autocast=False)]
