"""Learning with MXNet's autograd and gluon's Trainer.

The loss is recorded at each step. Hybridised, a step takes five times as long (1024x1024, 7x7).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from convlab.learning.descent import parameters_state
from convlab.learning.problem import LearningProblem

from .ops import mx, ops


@mx.util.use_np  # type: ignore[untyped-decorator]
def draw(shape: tuple[int, ...], groups: int, use_bias: bool, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The numbers that gluon's `nn.Conv2D` starts from; its generator draws float32 only."""
    outputs, per_group, *size = shape
    layer = mx.gluon.nn.Conv2D(outputs, size, groups=groups, use_bias=use_bias, in_channels=per_group * groups)
    layer.initialize()
    return ops.to_numpy(layer.weight.data()), ops.to_numpy(layer.bias.data()) if use_bias else None


OPTIMIZER = "what makes a Trainer of a list of parameters, such as lambda p: mx.gluon.Trainer(p, 'adam')"
# MXNet's autograd crashes when two threads record at once.
_one_at_a_time = threading.RLock()


@mx.util.use_np  # type: ignore[untyped-decorator]
def describe(optimizer: Callable[[list[Any]], Any]) -> str:
    """See `convlab.learning.descent.Descent`."""
    parameter = mx.gluon.Parameter("kernel", shape=(1,))
    parameter.initialize(mx.init.Zero())
    made = optimizer([parameter]).optimizer
    return f"{type(made).__name__} {_numbers(made)}"


def _numbers(optimizer: Any) -> dict[str, float]:
    """What an optimiser counts, beside the memory that it keeps for each parameter."""
    return {name: value for name, value in vars(optimizer).items() if type(value) in (int, float)}


class Descent:
    """`optimizer` makes a Trainer of a list of parameters: `lambda p: mx.gluon.Trainer(p, "adam")`."""

    @mx.util.use_np  # type: ignore[untyped-decorator]
    def __init__(
        self,
        problem: LearningProblem,
        pairs: Sequence[Sequence[Any]],
        kernel: np.ndarray,
        bias: np.ndarray | None,
        optimizer: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        self.problem, self.pairs = problem, pairs
        arrays = parameters_state(kernel, bias)
        self.parameters = [
            mx.gluon.Parameter(name, shape=each.shape, dtype=problem.dtype) for name, each in arrays.items()
        ]
        for each in self.parameters:
            each.initialize(mx.init.Zero(), ctx=pairs[0][0].ctx)
        self._set(arrays)
        self.trainer = optimizer and optimizer(self.parameters)

    def _set(self, arrays: dict[str, np.ndarray]) -> None:
        for each in self.parameters:
            each.set_data(mx.np.array(arrays[each.name], dtype=self.problem.dtype))

    @mx.util.use_np  # type: ignore[untyped-decorator]
    def run(self, steps: int, lr: float) -> list[float]:
        with _one_at_a_time:
            return [float(self._step(lr)) for _ in range(steps)]

    def _step(self, lr: float) -> Any:
        kernel, *bias = (each.data() for each in self.parameters)
        with mx.autograd.record():
            loss = self.problem.loss(ops, self.pairs, kernel, bias[0] if bias else None)
        loss.backward()
        if self.trainer is not None:
            self.trainer.step(1)
        else:
            for each in self.parameters:
                each.data()[:] -= lr * each.grad()
        return loss

    @property
    @mx.util.use_np  # type: ignore[untyped-decorator]
    def found(self) -> tuple[Any, Any]:
        kernel, *bias = (each.data().copy() for each in self.parameters)
        return kernel, bias[0] if bias else None

    def state(self) -> dict[str, np.ndarray]:
        found = {each.name: ops.to_numpy(each.data()) for each in self.parameters}
        for index, state in self._memory().items():
            for i, each in enumerate(_flat(state)):
                found[f"optimizer/{index}/{i}"] = ops.to_numpy(each)
        if self.trainer is not None:
            counts = self.trainer.optimizer._index_update_count
            found["updates"] = np.array([counts.get(i, 0) for i in range(len(self.parameters))])
            found |= {f"number/{name}": np.array(value) for name, value in _numbers(self.trainer.optimizer).items()}
        return found

    @mx.util.use_np  # type: ignore[untyped-decorator]
    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._set(state)
        if self.trainer is None:
            return
        if not self.trainer._kv_initialized:
            self.trainer._init_kvstore()
        updater, optimizer = self.trainer._updaters[0], self.trainer.optimizer
        for index, each in enumerate(self.parameters):
            optimizer._index_update_count[index] = int(state["updates"][index])
            if index not in updater.states:
                updater.states[index] = optimizer.create_state_multi_precision(index, each.data())
                updater.states_synced[index] = True
            for i, memory in enumerate(_flat(updater.states[index])):
                memory[:] = state[f"optimizer/{index}/{i}"]
        for name in _numbers(optimizer):
            setattr(optimizer, name, state[f"number/{name}"].item())

    def _memory(self) -> dict[int, Any]:
        return self.trainer._updaters[0].states if self.trainer is not None else {}


def _flat(state: Any) -> list[Any]:
    if state is None:
        return []
    return [leaf for each in state for leaf in _flat(each)] if isinstance(state, (tuple, list)) else [state]
