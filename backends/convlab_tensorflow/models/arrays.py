"""The numbers of Keras's variables."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf


def array_of(variable: Any) -> np.ndarray:
    """A variable's or a tensor's values, not copied; bfloat16 widened to float32."""
    tensor = tf.convert_to_tensor(variable)
    return np.asarray(tf.cast(tensor, tf.float32) if tensor.dtype == tf.bfloat16 else tensor)
