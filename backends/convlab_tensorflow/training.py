"""Learning with TensorFlow's autograd and Keras' optimisers: all steps in one XLA program."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from convlab.learning.descent import AT_ONCE, DescentBase, parameters_state
from convlab.learning.problem import Problem

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
    """See `convlab.learning.descent.Descent`."""
    config = {name: value for name, value in optimizer.get_config().items() if name != "name"}
    return f"{type(optimizer).__name__} {config}"


class Descent(DescentBase):
    """`optimizer` is one of Keras': `keras.optimizers.Adam(0.1)`. Its variables aren't changed."""

    def __init__(self, *arguments: Any) -> None:
        check_keras()
        super().__init__(*arguments)

    def set_optimizer(self, optimizer: Any) -> None:
        self.bench = None if optimizer is None else bench_of(self.problem, optimizer)
        self.memory = [] if self.bench is None else self.bench.first

    def set_parameters(self, kernel: np.ndarray, bias: np.ndarray | None) -> None:
        arrays = parameters_state(kernel, bias).values()
        self.parameters = [ops.asarray(array, self.problem.dtype) for array in arrays]

    def run(self, steps: int, lr: float) -> list[float]:
        rate, program = tf.constant(lr, self.problem.dtype), program_of(self.problem, self.bench)
        with contextlib.nullcontext() if self.bench is None else self.bench.lock:
            self.parameters, self.memory, losses = program(
                self.pairs, self.parameters, self.memory, rate, tf.constant(steps)
            )
        return ops.to_numpy(losses)[:steps].tolist()  # type: ignore[no-any-return]

    @property
    def found(self) -> tuple[Any, Any]:
        kernel, *bias = self.parameters
        return kernel, bias[0] if bias else None

    def state(self) -> dict[str, np.ndarray]:
        kernel, bias = self.found
        arrays = parameters_state(ops.to_numpy(kernel), None if bias is None else ops.to_numpy(bias))
        return arrays | {f"optimizer/{i}": ops.to_numpy(each) for i, each in enumerate(self.memory)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.set_parameters(state["kernel"], state.get("bias"))
        arrays = [state[f"optimizer/{i}"] for i in range(len(self.memory))]
        self.memory = [tf.constant(array, each.dtype) for array, each in zip(arrays, self.memory, strict=True)]


@dataclass(eq=False)
class Bench:
    """An optimiser and its variables, into which a program puts a run's numbers and from which it takes them again.

    Keras' optimisers on TensorFlow know only variables.

    Attributes:
        optimizer: built for `variables`.
        variables: the kernel, and the bias if there is one.
        first: the values of the optimiser's own variables before the first step.
        lock: held by the program that uses the variables.
    """

    optimizer: Any
    variables: list[Any]
    first: list[Any]
    lock: threading.Lock = field(default_factory=threading.Lock)


_benches: dict[Hashable, Bench] = {}


def bench_of(problem: Problem, optimizer: Any) -> Bench:
    """The `Bench` of an optimiser: the same for all that compute the same, so that its program is compiled once."""
    key = describe(optimizer), problem.kernel_shape, problem.use_bias, problem.dtype
    if key not in _benches:
        copy = type(optimizer).from_config(optimizer.get_config())
        shapes = [problem.kernel_shape, problem.oihw[:1]][: 1 + problem.use_bias]
        variables = [keras.Variable(np.zeros(shape), dtype=problem.dtype) for shape in shapes]
        copy.build(variables)
        first = [tf.identity(variable.value) for variable in copy.variables]
        _benches.setdefault(key, Bench(copy, variables, first))
    return _benches[key]


def _slopes(problem: Problem, pairs: Any, parameters: list[Any]) -> tuple[Any, list[Any]]:
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        kernel, *bias = parameters
        loss = problem.loss(ops, pairs, kernel, bias[0] if bias else None)
    return loss, tape.gradient(loss, parameters)


@functools.lru_cache(maxsize=64)
def program_of(problem: Problem, bench: Bench | None) -> Callable[..., Any]:
    """A function that takes steps; TensorFlow compiles it once for images of a shape."""

    def run(pairs: Any, parameters: list[Any], memory: list[Any], lr: Any, steps: Any) -> tuple[Any, Any, Any]:
        kept = [] if bench is None else [*bench.variables, *bench.optimizer.variables]
        for variable, value in zip(kept, [*parameters, *memory], strict=bench is not None):
            variable.assign(value)

        def step(i: Any, parameters: list[Any], losses: Any) -> Any:
            loss, slopes = _slopes(problem, pairs, parameters)
            if bench is None:
                moved = [each - lr * slope for each, slope in zip(parameters, slopes, strict=True)]
            else:
                bench.optimizer.apply(slopes, bench.variables)
                moved = [tf.convert_to_tensor(each.value) for each in bench.variables]
            return i + 1, moved, tf.tensor_scatter_nd_update(losses, [[i]], [loss])

        losses = tf.zeros(AT_ONCE, parameters[0].dtype)
        _, parameters, losses = tf.while_loop(lambda i, *_: i < steps, step, [tf.constant(0), parameters, losses])
        return parameters, [tf.convert_to_tensor(each.value) for each in kept[len(parameters) :]], losses

    return tf.function(run, jit_compile=True, autograph=False)  # type: ignore[no-any-return]
