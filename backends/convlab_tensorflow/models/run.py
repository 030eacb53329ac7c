"""Keras's layers, run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

from convlab.models.adapters import ROLES, Arrays, as_arrays
from convlab.models.layers.outputs import arrays_of_results
from convlab.models.layers.spatial import to_first, to_last

from .. import private
from . import attention
from .arrays import array_of
from .calls import as_arguments
from .readers import DEPTHWISE, FORMATS, JOINING, each_rank, kernel_of, layout


def run(natives: Sequence[kl.Layer], x: np.ndarray | Arrays, dtype: str) -> np.ndarray | Arrays:
    """See `convlab.models.adapters.Models`."""
    through = partial(_through, natives)
    given = [_tensor(value, dtype) for value in as_arrays(x)]
    return arrays_of_results(_compiled(through, *given) if _lacks_kernels(natives) else through(*given), array_of)


def _compiled(function: Callable[..., Any], *given: tf.Tensor) -> Any:
    """The result of a function that XLA compiles; TensorFlow would warn of a `tf.function` that is traced each time."""
    return tf.function(function, jit_compile=True, autograph=False).get_concrete_function(*given)(*given)


def _lacks_kernels(natives: Sequence[kl.Layer]) -> bool:
    """Whether there is a convolution inside that TensorFlow has for XLA only."""
    return any(
        (isinstance(native, each_rank("Conv")) and layout(native) == "NCHW" and not _has_nchw(native.compute_dtype))
        or _lacks_kernels(private.layers_inside(native))
        for native in natives
    )


@lru_cache
def _has_nchw(dtype: str) -> bool:
    """Whether TensorFlow has a convolution of NCHW here: on CPUs it depends on oneDNN, and so on the processor."""
    one = tf.zeros((1, 1, 1, 1), dtype)
    try:
        tf.nn.conv2d(one, one, 1, "VALID", data_format="NCHW")
    except tf.errors.UnimplementedError:
        return False
    return True


def _tensor(x: np.ndarray, dtype: str) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(np.ascontiguousarray(x)), dtype)


def _through(natives: Sequence[kl.Layer], *values: Any) -> Any:
    """Call natives one after another, the first with all values."""
    for native in natives:
        last = (layout(native) or FORMATS[keras.config.image_data_format()]) == "NHWC"
        given = [tf.transpose(x, to_last(x.shape.rank - 2)) if last and x.shape.rank > 2 else x for x in values]
        # Keras's layers that join take a list, and no argument for the mode.
        x = native(given) if isinstance(native, JOINING) else native(*as_arguments(native, given), training=False)
        # Tokens, which images become, stay (N, L, C).
        tokens = all(value.shape.rank > 3 for value in given)
        values = (keras.tree.map_structure(partial(_to_nchw, tokens=tokens), x) if last else x,)
    return values[0]


def _to_nchw(x: tf.Tensor, tokens: bool) -> tf.Tensor:
    return tf.transpose(x, to_first(x.shape.rank - 2)) if x.shape.rank > (3 if tokens else 2) else x


def gradients(natives: Sequence[kl.Layer], x: np.ndarray, dy: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """See `convlab.models.adapters.Models`."""
    owner = next((native for native in natives if native.weights), None)
    owner = getattr(owner, "of_tokens", owner)
    attends = isinstance(owner, attention.ATTENTION)
    names = (*ROLES, "scale", "bias")
    variables = _by_number(owner) if attends else {name: getattr(owner, name, None) for name in names}
    leaves = {name: variable.value for name, variable in variables.items() if isinstance(variable, keras.Variable)}

    def slopes(x: tf.Tensor, dy: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch((x, leaves))
            y = _through(natives, x)
        return tape.gradient(y, [x, *leaves.values()], output_gradients=dy)  # type: ignore[no-any-return]

    given = _tensor(x, dtype), _tensor(dy, dtype)
    compiled = _gradient_is_wrong(owner) or _lacks_kernels(natives)
    tensors = _compiled(slopes, *given) if compiled else slopes(*given)
    if attends:
        return {"X": array_of(tensors[0])} | attention.gradients_of(owner, [*map(array_of, tensors[1:])])
    arrays = {ROLES.get(name, name): array_of(slope) for name, slope in zip(("X", *leaves), tensors, strict=True)}
    if "K" in arrays:
        arrays["K"] = kernel_of(owner, arrays["K"])
    if "embedding" in arrays:
        arrays["embedding"] = arrays["embedding"].transpose(2, 0, 1)
    whole = "X", "K", "embedding"
    return {name: array if name in whole else array.reshape(-1) for name, array in arrays.items()}


def _by_number(layer: kl.Layer) -> dict[str, Any]:
    return {str(number): variable for number, variable in enumerate(layer.weights)}


def _gradient_is_wrong(owner: Any) -> bool:
    """Whether TensorFlow's CPU kernels for the gradient are wrong: see `convlab_tensorflow.ops`."""
    convolutions: tuple[Any, ...] = (*each_rank("Conv"), *DEPTHWISE)
    return isinstance(owner, convolutions) and max(*owner.strides, *owner.dilation_rate) > 1
