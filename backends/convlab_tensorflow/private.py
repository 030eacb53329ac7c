"""The private names of TensorFlow and Keras that the adapter cannot do without, each behind one function."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import keras
import tensorflow as tf
from keras import layers as kl

from convlab.errors import ConvlabError

Method = TypeVar("Method", bound=Callable[..., Any])

try:
    from tensorflow.python.eager import record
except ImportError:
    record = None
try:
    from keras.src.models.functional import Functional
except ImportError:
    Functional = None


def could_record() -> bool:
    """Whether any gradient tape is active.

    No public name tells. Without the private name the answer is always yes, so that each call gets a gradient of its
    own, which is slower.
    """
    test = getattr(record, "could_possibly_record", None)
    return test is None or bool(test())


def raises_as_they_are(method: Method) -> Method:
    """A method of a layer whose convlab errors Keras raises as they are.

    It would replace them by others that begin with the names of its own calls. No public name prevents that, other than
    for all errors of the process. Without the private name Keras adds its words.
    """

    @functools.wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except ConvlabError as error:
            error._keras_call_info_injected = True  # type: ignore[attr-defined]
            raise

    return run  # type: ignore[return-value]


def is_eager_tensor(x: Any) -> bool:
    """Whether x is a tensor that has values, and no variable.

    The public `tf.Tensor` is the class of symbolic tensors, too. Without the private name the answer is always no, so
    that calls aren't remembered, which is slower.
    """
    kind = getattr(getattr(tf, "__internal__", None), "EagerTensor", None)
    return kind is not None and isinstance(x, kind)


@functools.cache
def functional_class() -> type:
    """The class of the models that `keras.Model(inputs, outputs)` makes.

    It has no public name. Without the private name it is the class of a model made for the purpose, which takes a name
    that Keras would otherwise give to the next one.
    """
    if Functional is not None:
        return Functional  # type: ignore[no-any-return]
    image = keras.Input((1,))
    return type(keras.Model(image, image))


def layers_inside(layer: kl.Layer) -> list[kl.Layer]:
    """The layers right inside a layer, each once.

    Only models have a public `layers`. Without the private name other layers have none inside, so that they are read
    as one layer, which convlab doesn't know.
    """
    inside = getattr(layer, "_flatten_layers", None)
    return list(getattr(layer, "layers", []) if inside is None else inside(include_self=False, recursive=False))


def calls(model: keras.Model) -> list[Any] | None:
    """The calls that a functional model is made of, without its inputs; None where Keras has lost the name.

    The public `operations` tells neither what a call takes nor how often an operation is called. Without the private
    name a functional model is read as one with code of its own, and ported in parts.
    """
    by_depth = getattr(model, "_nodes_by_depth", None)
    if by_depth is None:
        return None
    return [node for level in by_depth.values() for node in level if not node.is_input]


def dense_layers_of_attention(layer: Any) -> list[Any]:
    """Those of a `MultiHeadAttention` for queries, keys, values, and behind their mean; it doesn't name them."""
    return [getattr(layer, f"_{name}_dense") for name in ("query", "key", "value", "output")]
