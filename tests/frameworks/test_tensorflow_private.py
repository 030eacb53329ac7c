"""The private names of TensorFlow and Keras that the adapter touches, and what it does without them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

import convlab
from convlab import errors
from convlab.models.adapters import read
from convlab_tensorflow import private


@pytest.fixture
def functional():
    image = keras.Input((6, 6, 1))
    return keras.Model(image, kl.ReLU()(kl.Conv2D(2, 3)(image)))


class Pair(kl.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = kl.ReLU(), kl.Flatten()

    def call(self, x):
        return self.second(self.first(x))


def test_a_tape_could_record() -> None:
    assert not private.could_record()
    with tf.GradientTape():
        assert private.could_record()


def test_without_the_name_a_tape_could_always_record_and_results_are_the_same(monkeypatch) -> None:
    x, k = tf.random.normal((1, 1, 5, 6)), tf.random.normal((2, 1, 3, 3))
    y = convlab.corr2d(x, k)
    monkeypatch.setattr(private, "record", None)
    assert private.could_record()
    np.testing.assert_array_equal(convlab.corr2d(x, k), y)


def test_eager_tensors_are_told_from_others() -> None:
    answers = []
    tf.function(lambda x: answers.append(private.is_eager_tensor(x)))(tf.ones(2))
    assert answers == [False]
    assert private.is_eager_tensor(tf.ones(2))
    assert not private.is_eager_tensor(tf.Variable(tf.ones(2)))


def test_without_the_name_no_tensor_is_taken_for_an_eager_one(monkeypatch) -> None:
    monkeypatch.setattr(private, "tf", object())
    assert not private.is_eager_tensor(tf.ones(2))


@pytest.mark.parametrize("there", [True, False])
def test_the_class_of_functional_models(monkeypatch, functional, there) -> None:
    private.functional_class.cache_clear()
    if not there:
        monkeypatch.setattr(private, "Functional", None)
    assert private.functional_class() is type(functional)
    private.functional_class.cache_clear()


def test_layers_inside_a_layer(functional) -> None:
    pair = Pair()
    assert private.layers_inside(pair) == [pair.first, pair.second]
    assert private.layers_inside(functional) == functional.layers


def test_without_the_name_only_models_have_layers_inside(monkeypatch) -> None:
    pair, model = Pair(), keras.Sequential([kl.ReLU()])
    monkeypatch.setattr(kl.Layer, "_flatten_layers", None)
    assert private.layers_inside(pair) == []
    monkeypatch.undo()
    assert private.layers_inside(model) == model.layers


def test_calls_of_a_functional_model(functional) -> None:
    assert {type(call.operation) for call in private.calls(functional)} == {kl.Conv2D, kl.ReLU}
    assert read(functional).whole


def test_without_the_name_a_functional_model_has_code_of_its_own(monkeypatch, functional) -> None:
    monkeypatch.setattr(private, "calls", lambda model: None)
    model = read(functional)
    assert not model.whole
    assert "call of its own" in model.loose["call()"]


def test_a_model_without_calls_tells_none() -> None:
    assert private.calls(kl.ReLU()) is None


class Refusing(kl.Layer):
    def call(self, x):
        raise errors.GeometryError("stride: got 0.")


def test_keras_raises_errors_of_marked_methods_as_they_are(monkeypatch) -> None:
    with pytest.raises(errors.GeometryError, match="Exception encountered when calling"):
        Refusing()(tf.ones(2))
    monkeypatch.setattr(Refusing, "call", private.raises_as_they_are(Refusing.call))
    with pytest.raises(errors.GeometryError, match=r"^stride: got 0\.$"):
        Refusing()(tf.ones(2))
