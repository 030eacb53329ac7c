"""Learning with MXNet's autograd and gluon's Trainer.

The loss is recorded at each step. Hybridised, a step takes five times as long (1024x1024, 7x7).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from convlab.learning.descent import DescentBase, parameters_state

from . import private
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
_recording = threading.RLock()


@mx.util.use_np  # type: ignore[untyped-decorator]
def describe(optimizer: Callable[[list[Any]], Any]) -> str:
    """See `convlab.learning.descent.Descent`."""
    parameter = mx.gluon.Parameter("kernel", shape=(1,))
    parameter.initialize(mx.init.Zero())
    rule = optimizer([parameter]).optimizer
    return f"{type(rule).__name__} {_numbers(rule)}"


def _numbers(optimizer: Any) -> dict[str, float]:
    """The numbers of an optimiser, beside the memory that it keeps for each parameter."""
    return {name: value for name, value in vars(optimizer).items() if type(value) in (int, float)}


class Descent(DescentBase):
    """`optimizer` makes a Trainer of a list of parameters: `lambda p: mx.gluon.Trainer(p, "adam")`."""

    @mx.util.use_np  # type: ignore[untyped-decorator]
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)

    def set_parameters(self, kernel: np.ndarray, bias: np.ndarray | None) -> None:
        arrays = parameters_state(kernel, bias)
        self.parameters = [
            mx.gluon.Parameter(name, shape=array.shape, dtype=self.problem.dtype) for name, array in arrays.items()
        ]
        for parameter in self.parameters:
            parameter.initialize(mx.init.Zero(), ctx=self.pairs[0][0].ctx)
        self._set(arrays)

    def set_optimizer(self, optimizer: Callable[[list[Any]], Any] | None) -> None:
        self.trainer = optimizer and optimizer(self.parameters)

    def _set(self, arrays: dict[str, np.ndarray]) -> None:
        for parameter in self.parameters:
            parameter.set_data(mx.np.array(arrays[parameter.name], dtype=self.problem.dtype))

    @mx.util.use_np  # type: ignore[untyped-decorator]
    def run(self, steps: int, lr: float) -> list[float]:
        with _recording:
            return [float(self._step(lr)) for _ in range(steps)]

    def _step(self, lr: float) -> Any:
        kernel, *bias = (parameter.data() for parameter in self.parameters)
        with mx.autograd.record():
            loss = self.problem.loss(ops, self.pairs, kernel, bias[0] if bias else None)
        loss.backward()
        if self.trainer is not None:
            self.trainer.step(1)
        else:
            for parameter in self.parameters:
                parameter.data()[:] -= lr * parameter.grad()
        return loss

    @property
    @mx.util.use_np  # type: ignore[untyped-decorator]
    def found(self) -> tuple[Any, Any]:
        kernel, *bias = (parameter.data().copy() for parameter in self.parameters)
        return kernel, bias[0] if bias else None

    def state(self) -> dict[str, np.ndarray]:
        arrays = {parameter.name: ops.to_numpy(parameter.data()) for parameter in self.parameters}
        if self.trainer is None:
            return arrays
        optimizer = self.trainer.optimizer
        for index, memory in private.updater(self.trainer).states.items():
            for i, leaf in enumerate(_flat(memory)):
                arrays[f"optimizer/{index}/{i}"] = ops.to_numpy(leaf)
        counts = private.update_counts(optimizer)
        arrays["updates"] = np.array([counts.get(i, 0) for i in range(len(self.parameters))])
        return arrays | {f"number/{name}": np.array(value) for name, value in _numbers(optimizer).items()}

    @mx.util.use_np  # type: ignore[untyped-decorator]
    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._set(state)
        if self.trainer is None:
            return
        private.start(self.trainer)
        updater, optimizer = private.updater(self.trainer), self.trainer.optimizer
        for index, parameter in enumerate(self.parameters):
            private.update_counts(optimizer)[index] = int(state["updates"][index])
            if index not in updater.states:
                updater.states[index] = optimizer.create_state_multi_precision(index, parameter.data())
                updater.states_synced[index] = True
            for i, memory in enumerate(_flat(updater.states[index])):
                memory[:] = state[f"optimizer/{index}/{i}"]
        for name in _numbers(optimizer):
            setattr(optimizer, name, state[f"number/{name}"].item())


def _flat(state: Any) -> list[Any]:
    if state is None:
        return []
    return [leaf for inner in state for leaf in _flat(inner)] if isinstance(state, (tuple, list)) else [state]
