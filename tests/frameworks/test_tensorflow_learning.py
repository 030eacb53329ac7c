"""Keras' optimisers in `learn_kernel`, against loops written with Keras alone; one program for all steps."""

from __future__ import annotations

import keras
import learning
import numpy as np
import pytest
import tensorflow as tf
from learning import OPTIONS, START, X, Y

from convlab import errors
from convlab import tensorflow as lab
from convlab.geometry.geometry import Geometry
from convlab.learning.problem import LearningProblem
from convlab_tensorflow.training import bench_of, program_of

OPTIMISERS = [lambda: keras.optimizers.SGD(1e-4, momentum=0.9), lambda: keras.optimizers.Adam(0.03)]


@pytest.mark.parametrize("optimizer", OPTIMISERS, ids=["sgd", "adam"])
def test_walks_its_path(optimizer) -> None:
    layer, own, losses = keras.layers.Conv2D(4, 3, padding="same"), optimizer(), []
    x, y = X.transpose(0, 2, 3, 1), Y.transpose(0, 2, 3, 1)
    layer.build(x.shape)
    layer.set_weights([START.transpose(2, 3, 1, 0), np.zeros(4)])
    for _ in range(12):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((layer(x) - y) ** 2)
        own.apply(tape.gradient(loss, layer.trainable_weights), layer.trainable_weights)
        losses.append(float(loss))
    learned = lab.learn_kernel(tf.constant(X), tf.constant(Y), 3, optimizer=optimizer(), **OPTIONS)
    kernel, bias = layer.get_weights()
    learning.check_alike(lab, learned, losses, kernel.transpose(3, 2, 0, 1), bias)


@pytest.mark.parametrize("optimizer", OPTIMISERS, ids=["sgd", "adam"])
def test_goes_on_with_its_memory(optimizer, tmp_path) -> None:
    learning.check_resumed(lab, optimizer, tmp_path)


def test_nothing_is_compiled_again_for_images_of_one_shape() -> None:
    rng = np.random.default_rng(0)
    x, y = tf.constant(rng.standard_normal((23, 17))), tf.constant(rng.standard_normal((21, 15)))
    for steps, lr in ((1, 1e-5), (7, 1e-5), (300, 1e-6)):
        lab.learn_kernel(x + 1, y, 3, num_steps=steps, lr=lr, seed=steps)
    assert program_of(LearningProblem(Geometry((3, 3)), dtype="float64"), None).experimental_get_tracing_count() == 1


def test_an_optimiser_serves_again_and_is_compiled_once() -> None:
    own = keras.optimizers.Adam(0.03)
    runs = [lab.learn_kernel(tf.constant(X), tf.constant(Y), 3, optimizer=own, **OPTIONS) for _ in range(2)]
    assert runs[0].losses == runs[1].losses
    assert int(own.iterations) == 0
    problem = LearningProblem(Geometry((3, 3), padding=((1, 1), (1, 1))), "", 4, 3, use_bias=True)
    assert program_of(problem, bench_of(problem, keras.optimizers.Adam(0.03))).experimental_get_tracing_count() == 1


def test_symbols_are_refused() -> None:
    with pytest.raises(errors.UnsupportedError, match="got tensors that are being traced"):
        tf.function(lambda x: lab.learn_kernel(x, x[:, 1:], (1, 2)).losses[0], autograph=False)(tf.ones((4, 5)))


def test_what_is_no_optimiser() -> None:
    for wrong in ("adam", keras.optimizers.Adam):
        with pytest.raises(errors.GeometryError, match=r"optimizer: got .*, expected one of Keras'"):
            lab.learn_kernel(tf.constant(X), tf.constant(Y), 3, optimizer=wrong, **OPTIONS)
