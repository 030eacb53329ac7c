"""Planned calls under TensorFlow: tapes, tf.function with and without XLA, saved models, unknown sizes."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import convlab
from convlab.testing import oracle_gradients
from convlab.truth.oracle import oracle

X = np.random.default_rng(0).standard_normal((2, 24, 26)).astype(np.float32)
K = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
PLANNED = ["taps", "fft", "phase"]


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("algorithm", PLANNED)
def test_functions_and_their_gradients(algorithm, xla) -> None:
    @tf.function(jit_compile=xla)
    def run(x, k):
        with tf.GradientTape() as tape:
            tape.watch((x, k))
            y = convlab.corr2d(x, k, algorithm=algorithm)
            loss = tf.reduce_sum(y * y)
        return y, *tape.gradient(loss, (x, k))

    y, dx, dk = run(tf.constant(X), tf.constant(K))
    true = oracle(X, K)
    gradients = oracle_gradients(X, K, 2 * true)
    np.testing.assert_allclose(y, true, atol=1e-4)
    np.testing.assert_allclose(dx, gradients.X, atol=1e-3)
    np.testing.assert_allclose(dk, gradients.K, atol=1e-2)


@pytest.mark.parametrize("algorithm", ["host", "fft", "taps"])
def test_second_derivatives_on_tapes(algorithm) -> None:
    x, k = tf.constant(X[0]), tf.Variable(K)
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            loss = tf.reduce_sum(convlab.corr2d(x, k, algorithm=algorithm) ** 2)
        slope = inner.gradient(loss, k)
        length = tf.reduce_sum(slope**2)
    twice = outer.gradient(length, k)
    first = oracle_gradients(X[0], K, 2 * oracle(X[0], K)).K
    np.testing.assert_allclose(slope, first, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(twice, oracle_gradients(X[0], K, 2 * oracle(X[0], 2 * first)).K, rtol=1e-3, atol=1)


def test_gradients_are_recorded_by_any_tape() -> None:
    x = tf.constant(np.ones((300, 300), np.float32))
    k = tf.constant(np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32))
    for _ in range(3):  # remembered calls too
        convlab.corr2d(x, k)
        with tf.GradientTape() as tape:
            tape.watch(k)
            y = tf.reduce_sum(convlab.corr2d(x, k))
        np.testing.assert_allclose(tape.gradient(y, k), np.full((3, 3), 298.0**2))


def test_unknown_batches_and_saved_models(tmp_path) -> None:
    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 64, 64)), tf.TensorSpec((21, 21))])
        def known(self, x, k):
            return convlab.corr2d(x, k)

        @tf.function(input_signature=[tf.TensorSpec((1, 200, 200)), tf.TensorSpec((31, 31))])
        def planned(self, x, k):
            return convlab.corr2d(x, k)

    module, path = Module(), str(tmp_path / "model")
    tf.saved_model.save(module, path)
    loaded = tf.saved_model.load(path)
    for name, shape, size in (("known", (3, 64, 64), 21), ("planned", (1, 200, 200), 31)):
        x, k = np.random.default_rng(0).standard_normal(shape), np.random.default_rng(1).standard_normal((size, size))
        x, k = x.astype(np.float32), k.astype(np.float32)
        for one in (module, loaded):
            np.testing.assert_allclose(getattr(one, name)(x, k), oracle(x, k), atol=2e-3)


def test_eager_results_own_their_memory() -> None:
    x, k = tf.random.normal((300, 300)), tf.random.normal((5, 5))
    first = convlab.corr2d(x, k, algorithm="host")
    kept = first.numpy().copy()
    for _ in range(3):
        convlab.corr2d(x + 1, k, algorithm="host")
    np.testing.assert_array_equal(first, kept)
    assert "CPU" in first.device
