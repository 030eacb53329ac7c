"""The chapter's training loop with `keras.layers.Conv2D`."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from convlab.geometry import Pair

from .layers import check_keras


class Descent:
    def __init__(self, x: Any, y: Any, size: Pair, init: np.ndarray | None) -> None:
        check_keras()
        self.x, self.y = x, y
        self.layer = keras.layers.Conv2D(1, size, use_bias=False, data_format="channels_last", dtype=x.dtype.name)
        self.layer.build(x.shape)
        if init is not None:
            self.layer.set_weights([np.reshape(init, (*size, 1, 1))])

    def step(self, lr: float) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((self.layer(self.x) - self.y) ** 2)
        weight = self.layer.trainable_weights[0]
        weight.assign_sub(tf.constant(lr, loss.dtype) * tape.gradient(loss, weight.value))
        return loss

    @property
    def kernel(self) -> Any:
        return tf.convert_to_tensor(self.layer.trainable_weights[0].value)[:, :, 0, 0]
