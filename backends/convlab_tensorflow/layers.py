"""convlab's layer as a `keras.layers.Layer`."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import keras

from convlab.contract.layer import LayerArguments, LayerSpec
from convlab.contract.native_layer import NativeLayer
from convlab.correlation.corr2d import corr2d
from convlab.errors import BackendBroken
from convlab.geometry.geometry import Pair

from . import private

# What each argument becomes in Keras's own words: a function, an initialiser, a regulariser or a constraint.
_MODULES = {
    "activation": keras.activations,
    "kernel_initializer": keras.initializers,
    "bias_initializer": keras.initializers,
    "kernel_regularizer": keras.regularizers,
    "bias_regularizer": keras.regularizers,
    "kernel_constraint": keras.constraints,
    "bias_constraint": keras.constraints,
}
# What any Keras layer takes.
_OF_LAYERS = ("activity_regularizer", "name", "trainable", "dtype", "autocast", "input_shape", "batch_input_shape")

NATIVE = NativeLayer(
    "keras.layers.Conv2D",
    (
        "filters",
        "kernel_size",
        "strides",
        "padding",
        "data_format",
        "dilation_rate",
        "groups",
        "activation",
        "use_bias",
        "kernel_initializer",
        "bias_initializer",
        "kernel_regularizer",
        "bias_regularizer",
        "activity_regularizer",
        "kernel_constraint",
        "bias_constraint",
    ),
    own=(*_MODULES, *_OF_LAYERS),
)


class LowestPadding(keras.layers.Layer):  # type: ignore[misc]
    """A border of -inf round images NHWC, which no maximum takes; Keras's `ZeroPadding2D` has zeros.

    Args:
        padding: ((top, bottom), (left, right)), or as many pairs as there are axes.
    """

    data_format = "channels_last"

    def __init__(self, padding: Any, **names: Any) -> None:
        super().__init__(**names)
        self.padding = tuple(tuple(ends) for ends in padding)

    def call(self, x: Any) -> Any:
        """The image with its border."""
        return keras.ops.pad(x, ((0, 0), *self.padding, (0, 0)), constant_values=-math.inf)

    def get_config(self) -> dict[str, Any]:
        """See `keras.layers.Layer`."""
        return {**super().get_config(), "padding": self.padding}


@keras.saving.register_keras_serializable(package="convlab")
class LowestPadding1D(LowestPadding):
    """The border of sequences (N, L, C)."""


@keras.saving.register_keras_serializable(package="convlab")
class LowestPadding2D(LowestPadding):
    """The border of images (N, H, W, C)."""


@keras.saving.register_keras_serializable(package="convlab")
class LowestPadding3D(LowestPadding):
    """The border of volumes (N, D, H, W, C)."""


# By the number of axes less 1.
LOWEST_PADDING = (LowestPadding1D, LowestPadding2D, LowestPadding3D)


class Arguments(LayerArguments, total=False):
    """The keyword arguments of `Conv2D`: convlab's, and those of `keras.layers.Conv2D`."""

    filters: int
    strides: Any
    dilation_rate: Any
    activation: Any
    kernel_initializer: Any
    bias_initializer: Any
    kernel_regularizer: Any
    bias_regularizer: Any
    activity_regularizer: Any
    kernel_constraint: Any
    bias_constraint: Any
    name: str | None
    trainable: bool
    autocast: bool
    input_shape: Any
    batch_input_shape: Any


@keras.saving.register_keras_serializable(package="convlab")
class Conv2D(keras.layers.Layer):  # type: ignore[misc]
    """`corr2d` with weights `weight` and `bias`; see `convlab.Conv2D` for the arguments.

    Those of `keras.layers.Conv2D` are taken too: `Conv2D(8, 3, activation="relu")`, initialisers, regularisers and
    constraints, `name`, `trainable` and `dtype` (a dtype or a Keras dtype policy). An initialiser is asked for an HWIO
    kernel in either layout; regularisers and constraints see the weight as it lies, OIHW with "NCHW".

    >>> layer = Conv2D(3, out_channels=8, padding="same", data_format="NHWC", seed=0)
    >>> layer(keras.ops.ones((1, 5, 5, 3))).shape
    TensorShape([1, 5, 5, 8])
    """

    def __init__(self, *sizes: Any, **arguments: Unpack[Arguments]) -> None:
        check_keras()
        options, own = NATIVE.arguments(sizes, arguments)
        super().__init__(**{name: value for name, value in own.items() if name in _OF_LAYERS and value is not None})
        # Keras decides on the weights' dtype, and convlab which dtypes there are.
        self.spec = replace(LayerSpec(**options, dtype=self.variable_dtype), dtype=None)
        given = {name: own.get(name) for name in _MODULES}
        self.activation = None if given["activation"] is None else keras.activations.get(given["activation"])
        self.kernel_initializer = keras.initializers.get(given["kernel_initializer"])
        self.bias_initializer = keras.initializers.get(given["bias_initializer"] or "zeros")
        self.kernel_regularizer = keras.regularizers.get(given["kernel_regularizer"])
        self.bias_regularizer = keras.regularizers.get(given["bias_regularizer"])
        self.kernel_constraint = keras.constraints.get(given["kernel_constraint"])
        self.bias_constraint = keras.constraints.get(given["bias_constraint"])

    @private.raises_as_they_are
    def build(self, input_shape: Any) -> None:
        """Create the weights for inputs of this shape."""
        spec = self.spec.fit(tuple(input_shape))
        self.weight = self.add_weight(
            name="weight",
            shape=spec.weight_shape(),
            initializer=partial(_initial, spec, self.kernel_initializer),
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias = None
        if spec.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=spec.bias_shape,
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    @private.raises_as_they_are
    def call(self, X: Any) -> Any:
        """corr2d(X, weight, bias=bias) with the layer's geometry, and then the activation."""
        y = corr2d(X, self.weight, bias=self.bias, backend="tensorflow", **self.spec.call)
        return y if self.activation is None else self.activation(y)

    @private.raises_as_they_are
    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """The output's shape; sizes that aren't known stay None."""
        return self.spec.output_shape(tuple(input_shape))

    @property
    def filters(self) -> int | None:
        """The number of output channels, as Keras calls it."""
        return self.spec.out_channels

    @property
    def kernel_size(self) -> Pair:
        """The kernel's rows and columns."""
        rows, columns = self.spec.kernel_size
        return rows, columns

    @property
    def strides(self) -> Pair:
        """The stride, as Keras calls it."""
        down, right = self.spec.stride
        return down, right

    @property
    def dilation_rate(self) -> Pair:
        """The dilation, as Keras calls it."""
        down, right = self.spec.dilation
        return down, right

    @property
    def data_format(self) -> str:
        """The layout, as Keras calls it."""
        return "channels_first" if self.spec.data_format == "NCHW" else "channels_last"

    @property
    def groups(self) -> int:
        """The number of groups of channels."""
        return self.spec.groups

    @property
    def use_bias(self) -> bool:
        """Whether there is a bias."""
        return self.spec.use_bias

    @property
    def kernel(self) -> Any:
        """The weight, as Keras calls it."""
        return self.weight

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs to make the same layer."""
        config = self.spec.config()
        del config["dtype"]
        own = {name: module.serialize(getattr(self, name)) for name, module in _MODULES.items() if getattr(self, name)}
        return {**super().get_config(), **config, **own}


def _initial(spec: LayerSpec, initializer: Any, shape: Any, dtype: Any = None) -> Any:
    """The values that an initialiser gives (by default Keras's customary one, Glorot uniform), or the seed's."""
    if spec.seed is not None:
        return keras.ops.convert_to_tensor(spec.seeded(), dtype)
    oihw = len(shape) == 4 and spec.data_format == "NCHW"
    drawn = (initializer or keras.initializers.GlorotUniform())(spec.hwio_shape, dtype)
    return keras.ops.transpose(drawn, (3, 2, 0, 1)) if oihw else keras.ops.reshape(drawn, shape)


def check_keras() -> None:
    """Raise `BackendBroken` if Keras runs on something other than TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise BackendBroken(
            f"backend 'tensorflow': Keras runs on {keras.backend.backend()}, expected TensorFlow.",
            hint="set KERAS_BACKEND=tensorflow before Keras is imported.",
        )
