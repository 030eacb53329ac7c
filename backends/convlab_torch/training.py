"""Learning with torch's autograd and its optimisers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convlab.learning.descent import parameters_state
from convlab.learning.problem import LearningProblem

from .ops import ops


def draw(shape: tuple[int, ...], groups: int, use_bias: bool, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The numbers that `torch.nn.Conv2d` starts from."""
    outputs, per_group, *size = shape
    layer = nn.Conv2d(
        per_group * groups, outputs, (size[0], size[1]), groups=groups, bias=use_bias, dtype=getattr(torch, dtype)
    )
    return ops.to_numpy(layer.weight), None if layer.bias is None else ops.to_numpy(layer.bias)


OPTIMIZER = "what makes an optimiser of a list of parameters, such as functools.partial(torch.optim.Adam, lr=0.1)"


@torch.inference_mode(False)
def describe(optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> str:
    """See `convlab.learning.descent.Descent`."""
    parameter = nn.Parameter(torch.zeros(1))
    made, parameter.grad = optimizer([parameter]), torch.zeros(1)
    groups = [{name: value for name, value in group.items() if name != "params"} for group in made.param_groups]
    made.step(lambda: torch.zeros(()))  # type: ignore[arg-type]
    return f"{type(made).__name__} {groups}"


class Descent:
    """`optimizer` makes an optimiser of a list of parameters: `functools.partial(torch.optim.Adam, lr=0.1)`."""

    @torch.inference_mode(False)
    def __init__(
        self,
        problem: LearningProblem,
        pairs: Sequence[Sequence[Tensor]],
        kernel: np.ndarray,
        bias: np.ndarray | None,
        optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None,
    ) -> None:
        self.problem = problem
        self.pairs = [[each.clone() if each.is_inference() else each.detach() for each in pair] for pair in pairs]
        like = self.pairs[0][0]
        arrays = [kernel] if bias is None else [kernel, bias]
        self.parameters = [nn.Parameter(ops.asarray(each, problem.dtype, like)) for each in arrays]
        self.optimizer = optimizer and optimizer(self.parameters)

    @torch.inference_mode(False)
    def run(self, steps: int, lr: float) -> list[float]:
        return [self._step(lr).item() for _ in range(steps)]

    def _step(self, lr: float) -> Tensor:
        if self.optimizer is not None:
            return self.optimizer.step(self._slopes).detach()  # type: ignore[no-any-return, call-overload]
        loss = self._slopes()
        with torch.no_grad():
            for each in self.parameters:
                each -= lr * each.grad  # type: ignore[operator]
        return loss

    def _slopes(self) -> Tensor:
        with torch.enable_grad():
            kernel, *bias = self.parameters
            loss: Tensor = self.problem.loss(ops, self.pairs, kernel, bias[0] if bias else None)
            for each, slope in zip(self.parameters, torch.autograd.grad(loss, self.parameters), strict=True):
                each.grad = slope
        return loss.detach()

    @property
    def found(self) -> tuple[Tensor, Tensor | None]:
        kernel, *bias = (each.detach().clone() for each in self.parameters)
        return kernel, bias[0] if bias else None

    def state(self) -> dict[str, np.ndarray]:
        kernel, bias = self.found
        found = parameters_state(ops.to_numpy(kernel), None if bias is None else ops.to_numpy(bias))
        states = self.optimizer.state_dict()["state"] if self.optimizer else {}
        for index, state in states.items():
            for name, value in state.items():
                if value is not None:
                    found[f"optimizer/{index}/{name}"] = _array(value)
        return found

    def restore(self, state: dict[str, np.ndarray]) -> None:
        with torch.no_grad():
            for each, name in zip(self.parameters, ("kernel", "bias"), strict=False):
                each.copy_(torch.from_numpy(state[name].copy()))
        if self.optimizer:
            states: dict[int, dict[str, Any]] = {}
            for name, value in state.items():
                if name.startswith("optimizer/"):
                    _, index, key = name.split("/", 2)
                    states.setdefault(int(index), {})[key] = torch.from_numpy(value.copy())
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": states})


def _array(value: Any) -> np.ndarray:
    """A part of an optimiser's memory; an array of objects, which a checkpoint refuses, if it isn't numbers."""
    if isinstance(value, Tensor):
        return ops.to_numpy(value)
    return np.asarray(value, None if isinstance(value, (int, float)) else object)
