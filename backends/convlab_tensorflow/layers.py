"""convlab's layer as a `keras.layers.Layer`."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import keras

from convlab.contract.layer import LayerOptions, LayerSpec
from convlab.correlation.corr2d import corr2d
from convlab.errors import BackendBroken
from convlab.geometry.geometry import Pads, Pair


@keras.saving.register_keras_serializable(package="convlab")
class LowestPadding2D(keras.layers.Layer):  # type: ignore[misc]
    """A border of -inf round images NHWC, which no maximum takes; Keras's `ZeroPadding2D` has zeros.

    Args:
        padding: ((top, bottom), (left, right)).
    """

    data_format = "channels_last"

    def __init__(self, padding: Pads, **names: Any) -> None:
        super().__init__(**names)
        rows, columns = padding
        self.padding = tuple(rows), tuple(columns)

    def call(self, x: Any) -> Any:
        """The image with its border."""
        return keras.ops.pad(x, ((0, 0), *self.padding, (0, 0)), constant_values=-math.inf)

    def get_config(self) -> dict[str, Any]:
        """See `keras.layers.Layer`."""
        return {**super().get_config(), "padding": self.padding}


@keras.saving.register_keras_serializable(package="convlab")
class Conv2D(keras.layers.Layer):  # type: ignore[misc]
    """`corr2d` with weights `weight` and `bias`; see `convlab.Conv2D` for the arguments.

    `name`, `trainable` and `dtype` (a dtype or a Keras dtype policy) are Keras's own.

    >>> layer = Conv2D(3, out_channels=8, padding="same", data_format="NHWC", seed=0)
    >>> layer(keras.ops.ones((1, 5, 5, 3))).shape
    TensorShape([1, 5, 5, 8])
    """

    def __init__(  # type: ignore[misc]  # `dtype` is among the options, too
        self,
        kernel_size: int | Pair,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
        **options: Unpack[LayerOptions],
    ) -> None:
        check_keras()
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        # Keras decides on the weights' dtype, and convlab which dtypes there are.
        self.spec = replace(LayerSpec(kernel_size, dtype=self.variable_dtype, **options), dtype=None)

    def build(self, input_shape: Any) -> None:
        """Create the weights for inputs of this shape."""
        spec = self.spec.fit(tuple(input_shape))
        self.weight = self.add_weight(shape=spec.weight_shape(), initializer=partial(_initial, spec), name="weight")
        self.bias = self.add_weight(shape=spec.bias_shape, initializer="zeros", name="bias") if spec.use_bias else None

    def call(self, X: Any) -> Any:
        """corr2d(X, weight, bias=bias) with the layer's geometry."""
        return corr2d(X, self.weight, bias=self.bias, backend="tensorflow", **self.spec.call)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """The output's shape; sizes that aren't known stay None."""
        return self.spec.output_shape(tuple(input_shape))

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs to make the same layer."""
        config = self.spec.config()
        del config["dtype"]
        return {**super().get_config(), **config}


def _initial(spec: LayerSpec, shape: Any, dtype: Any = None) -> Any:
    """Keras's customary initial values (Glorot uniform), or the seed's."""
    if spec.seed is not None:
        return keras.ops.convert_to_tensor(spec.seeded(), dtype)
    oihw = len(shape) == 4 and spec.data_format == "NCHW"
    hwio = (*shape[2:], shape[1], shape[0]) if oihw else (*spec.kernel_size, *(shape[2:] or (1, 1)))
    drawn = keras.initializers.GlorotUniform()(hwio, dtype)
    return keras.ops.transpose(drawn, (3, 2, 0, 1)) if oihw else keras.ops.reshape(drawn, shape)


def check_keras() -> None:
    """Raise `BackendBroken` if Keras runs on something other than TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise BackendBroken(
            f"backend 'tensorflow': Keras runs on {keras.backend.backend()}, expected TensorFlow.",
            hint="set KERAS_BACKEND=tensorflow before Keras is imported.",
        )
