"""The chapter's training loop in TensorFlow/Keras, with convlab's layer.

A tape watches TensorFlow's variables only: Keras 3 has them in `.value`, for its own layers, too.
"""

# ruff: noqa: E741  # the chapter's own names
from __future__ import annotations

import tensorflow as tf
from chapters import EDGES, TARGET, check

from convlab import tensorflow as lab


def test_the_loop() -> None:
    conv2d = lab.Conv2D((1, 2), out_channels=1, use_bias=False, data_format="NHWC")
    X = tf.reshape(EDGES, (1, 6, 8, 1))
    Y = tf.reshape(TARGET, (1, 6, 7, 1))
    lr = 3e-2  # Learning rate
    Y_hat = conv2d(X)
    start, losses = conv2d.get_weights()[0], []
    for i in range(10):
        with tf.GradientTape(watch_accessed_variables=False) as g:
            g.watch(conv2d.weights[0].value)
            Y_hat = conv2d(X)
            l = (abs(Y_hat - Y)) ** 2
            # Update the kernel
            update = tf.multiply(lr, g.gradient(l, conv2d.weights[0].value))
            weights = conv2d.get_weights()
            weights[0] = conv2d.weights[0] - update
            conv2d.set_weights(weights)
            if (i + 1) % 2 == 0:
                print(f"epoch {i + 1}, loss {tf.reduce_sum(l):.3f}")
            losses.append(float(tf.reduce_sum(l)))
    check(start, conv2d.get_weights()[0], losses)
