"""Learning with TensorFlow's autograd and Keras' optimisers: all steps in one XLA program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from convlab.descent import AT_ONCE, parameters_state
from convlab.problem import Problem

from .layers import check_keras
from .ops import ops


def draw(shape: tuple[int, ...], groups: int, use_bias: bool, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The numbers that `keras.layers.Conv2D` starts from."""
    check_keras()
    outputs, per_group, *size = shape
    layer = keras.layers.Conv2D(
        outputs, size, groups=groups, use_bias=use_bias, data_format="channels_last", dtype=dtype
    )
    layer.build((None, *size, per_group * groups))
    kernel, *bias = (ops.to_numpy(tf.convert_to_tensor(each.value)) for each in layer.trainable_weights)
    return kernel.transpose(3, 2, 0, 1), bias[0] if bias else None


OPTIMIZER = "one of Keras', such as keras.optimizers.Adam(0.1)"


def describe(optimizer: keras.optimizers.Optimizer) -> str:
    """See `convlab.descent.Descent`."""
    return f"{type(optimizer).__name__} {optimizer.get_config()}"


class Descent:
    """`optimizer` is one of Keras': `keras.optimizers.Adam(0.1)`."""

    def __init__(
        self,
        problem: Problem,
        pairs: Sequence[Sequence[Any]],
        kernel: np.ndarray,
        bias: np.ndarray | None,
        optimizer: Any = None,
    ) -> None:
        check_keras()
        self.problem, self.pairs = problem, [tuple(pair) for pair in pairs]
        # One of this run's own: it remembers its variables.
        self.optimizer = optimizer and type(optimizer).from_config(optimizer.get_config())
        self._set(kernel, bias)
        if optimizer is not None:
            self.variables = [keras.Variable(each, dtype=problem.dtype) for each in self.parameters]
            self.optimizer.build(self.variables)
            self.step = tf.function(self._step, jit_compile=True)

    def _set(self, kernel: np.ndarray, bias: np.ndarray | None) -> None:
        arrays = parameters_state(kernel, bias).values()
        self.parameters = [ops.asarray(each, self.problem.dtype) for each in arrays]

    def run(self, steps: int, lr: float) -> list[float]:
        if self.optimizer is not None:
            return [float(self.step(self.pairs)) for _ in range(steps)]
        rate = tf.constant(lr, self.problem.dtype)
        self.parameters, losses = _program(self.problem)(self.pairs, self.parameters, rate, tf.constant(steps))
        return ops.to_numpy(losses)[:steps].tolist()  # type: ignore[no-any-return]

    def _step(self, pairs: Any) -> Any:
        loss, slopes = _slopes(self.problem, pairs, [tf.convert_to_tensor(each.value) for each in self.variables])
        self.optimizer.apply(slopes, self.variables)
        return loss

    @property
    def found(self) -> tuple[Any, Any]:
        if self.optimizer is not None:
            self.parameters = [tf.convert_to_tensor(each.value) for each in self.variables]
        kernel, *bias = self.parameters
        return kernel, bias[0] if bias else None

    def state(self) -> dict[str, np.ndarray]:
        kernel, bias = self.found
        found = parameters_state(ops.to_numpy(kernel), None if bias is None else ops.to_numpy(bias))
        memory = self.optimizer.variables if self.optimizer is not None else []
        return found | {f"optimizer/{i}": np.asarray(each) for i, each in enumerate(memory)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._set(state["kernel"], state.get("bias"))
        if self.optimizer is not None:
            for variable, each in zip(self.variables, self.parameters, strict=True):
                variable.assign(each)
            for i, variable in enumerate(self.optimizer.variables):
                variable.assign(state[f"optimizer/{i}"])


def _slopes(problem: Problem, pairs: Any, parameters: list[Any]) -> tuple[Any, list[Any]]:
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        kernel, *bias = parameters
        loss = problem.loss(ops, pairs, kernel, bias[0] if bias else None)
    return loss, tape.gradient(loss, parameters)


@functools.lru_cache(maxsize=64)
def _program(problem: Problem) -> Callable[..., Any]:
    """A function that takes steps; TensorFlow compiles it once for images of a shape."""

    def run(pairs: Any, parameters: list[Any], lr: Any, steps: Any) -> tuple[list[Any], Any]:
        def step(i: Any, parameters: list[Any], losses: Any) -> Any:
            loss, slopes = _slopes(problem, pairs, parameters)
            moved = [each - lr * slope for each, slope in zip(parameters, slopes, strict=True)]
            return i + 1, moved, tf.tensor_scatter_nd_update(losses, [[i]], [loss])

        losses = tf.zeros(AT_ONCE, parameters[0].dtype)
        _, parameters, losses = tf.while_loop(lambda i, *_: i < steps, step, [tf.constant(0), parameters, losses])
        return parameters, losses

    return tf.function(run, jit_compile=True)  # type: ignore[no-any-return]
