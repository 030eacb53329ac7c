"""convlab under MirroredStrategy: two logical CPU devices, whose gradients and steps are one device's."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import parallel
import pytest
import tensorflow as tf
from parallel import LEARNING_RATE, STEPS, Problem, problem

from convlab import tensorflow as lab

LAYERS = ("chapter", "NCHW", "NHWC")
WAYS = ("traced", "eager", "fit", "reproducible")


def mirrored(given: Problem, strategy: tf.distribute.Strategy, **options) -> lab.Conv2D:
    with strategy.scope():
        layer = lab.Conv2D(given.size, padding="same", **given.options, **options)
        layer.build((None, *given.images.shape[1:]))
        layer.set_weights([given.weight, given.bias])
    return layer


def fit(layer: lab.Conv2D, strategy: tf.distribute.Strategy, given: Problem, steps: int) -> None:
    with strategy.scope():
        model = keras.Sequential([keras.Input(given.images.shape[1:]), layer])
        model.compile(keras.optimizers.SGD(LEARNING_RATE), "mean_squared_error")
    model.fit(given.images, given.targets, batch_size=len(given.images), epochs=steps, verbose=0)


def on_two_devices() -> None:
    """A process of its own, begun by `results`."""
    from mirrored import strategy, train

    arrays = {}
    for name in LAYERS:
        for kind, counts in STEPS.items():
            for steps, way in ((steps, way) for steps in counts for way in WAYS):
                given = problem(name, kind)
                layer = mirrored(given, strategy, reproducible=way == "reproducible")
                tf.config.run_functions_eagerly(way == "eager")
                if way == "fit":
                    gradients = []  # Keras doesn't tell them
                    fit(layer, strategy, given, steps)
                else:
                    with strategy.scope():
                        optimiser = keras.optimizers.SGD(LEARNING_RATE)
                    gradients = train(layer, optimiser, given.images, given.targets, steps)
                for replica in (0, 1):
                    own = [strategy.experimental_local_results(v.value)[replica] for v in (layer.weight, layer.bias)]
                    arrays |= parallel.saved(f"{name} {kind} {way} {steps} {replica}", *own, gradients)
    np.savez("found.npz", **arrays)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mirrored")
    parallel.example("mirrored.py", folder)
    parallel.run(__file__, folder)
    return folder / "found.npz"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layer", LAYERS)
def test_gradients_and_steps_are_one_devices(results, layer, way) -> None:
    for kind, counts in STEPS.items():
        for steps in counts:
            one, two = (parallel.loaded(results, f"{layer} {kind} {way} {steps} {replica}") for replica in (0, 1))
            parallel.check(problem(layer, kind), steps, one, exact=kind == "integers")
            for name in one:
                assert one[name].tobytes() == two[name].tobytes()


def test_the_documents_example(tmp_path) -> None:
    for line in parallel.run(parallel.example("mirrored.py", tmp_path), tmp_path).splitlines():
        first, second = line.strip("[]").split(", ")
        assert first == second  # both devices' parameters


if __name__ == "__main__":
    on_two_devices()
