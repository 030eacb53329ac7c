"""Learning with torch's autograd and its optimisers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convlab.learning.descent import DescentBase, parameters_state

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
    instance, parameter.grad = optimizer([parameter]), torch.zeros(1)
    groups = [{name: value for name, value in group.items() if name != "params"} for group in instance.param_groups]
    instance.step(lambda: torch.zeros(()))  # type: ignore[arg-type, return-value]
    return f"{type(instance).__name__} {groups}"


class Descent(DescentBase):
    """`optimizer` makes an optimiser of a list of parameters: `functools.partial(torch.optim.Adam, lr=0.1)`."""

    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer | None

    @torch.inference_mode(False)
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)

    def images(self, *pair: Tensor) -> list[Tensor]:
        return [tensor.clone() if tensor.is_inference() else tensor.detach() for tensor in pair]

    def set_parameters(self, kernel: np.ndarray, bias: np.ndarray | None) -> None:
        like = self.pairs[0][0]
        arrays = [kernel] if bias is None else [kernel, bias]
        self.parameters = [nn.Parameter(ops.asarray(array, self.problem.dtype, like)) for array in arrays]

    def set_optimizer(self, optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None) -> None:
        self.optimizer = optimizer and optimizer(self.parameters)

    @torch.inference_mode(False)
    def run(self, steps: int, lr: float) -> list[float]:
        return [self._step(lr).item() for _ in range(steps)]

    def _step(self, lr: float) -> Tensor:
        if self.optimizer is not None:
            loss: Any = self.optimizer.step(self._slopes)  # type: ignore[arg-type]
            return loss.detach()  # type: ignore[no-any-return]
        loss = self._slopes()
        with torch.no_grad():
            for parameter in self.parameters:
                assert parameter.grad is not None
                parameter.sub_(lr * parameter.grad)
        return loss  # type: ignore[no-any-return]

    def _slopes(self) -> Tensor:
        with torch.enable_grad():
            kernel, *bias = self.parameters
            loss: Tensor = self.problem.loss(ops, self.pairs, kernel, bias[0] if bias else None)
            for parameter, slope in zip(self.parameters, torch.autograd.grad(loss, self.parameters), strict=True):
                parameter.grad = slope
        return loss.detach()

    @property
    def found(self) -> tuple[Tensor, Tensor | None]:
        kernel, *bias = (parameter.detach().clone() for parameter in self.parameters)
        return kernel, bias[0] if bias else None

    def state(self) -> dict[str, np.ndarray]:
        kernel, bias = self.found
        arrays = parameters_state(ops.to_numpy(kernel), None if bias is None else ops.to_numpy(bias))
        memory = self.optimizer.state_dict()["state"] if self.optimizer else {}
        for index, values in memory.items():
            for name, value in values.items():
                if value is not None:
                    arrays[f"optimizer/{index}/{name}"] = _array(value)
        return arrays

    def restore(self, state: dict[str, np.ndarray]) -> None:
        with torch.no_grad():
            for parameter, name in zip(self.parameters, ("kernel", "bias"), strict=False):
                parameter.copy_(torch.from_numpy(state[name].copy()))
        if self.optimizer:
            memory: dict[int, dict[str, Any]] = {}
            for name, value in state.items():
                if name.startswith("optimizer/"):
                    _, index, key = name.split("/", 2)
                    memory.setdefault(int(index), {})[key] = torch.from_numpy(value.copy())
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": memory})


def _array(value: Any) -> np.ndarray:
    """A value in an optimiser's memory; an array of objects, which a checkpoint refuses, if it isn't numbers."""
    if isinstance(value, Tensor):
        return ops.to_numpy(value)
    return np.asarray(value, None if isinstance(value, (int, float)) else object)
