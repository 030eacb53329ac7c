"""The numbers of Keras's variables."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

from .. import private


def array_of(variable: Any) -> np.ndarray:
    """A variable's or a tensor's values, not copied; bfloat16 widened to float32."""
    tensor = tf.convert_to_tensor(variable)
    return np.asarray(tf.cast(tensor, tf.float32) if tensor.dtype == tf.bfloat16 else tensor)


def own_variables(layer: kl.Layer, path: str = "") -> dict[int, str]:
    """The paths of the variables that a layer, or one inside it, has as attributes, by the variables' ids."""
    start = f"{path}/" if path else ""
    own = {id(value): start + name for name, value in vars(layer).items() if isinstance(value, keras.Variable)}
    for inside in private.layers_inside(layer):
        own |= own_variables(inside, start + inside.name)
    return own
