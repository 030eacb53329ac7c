"""The chapter's training loop with `torch.nn.Conv2d`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from convlab.geometry import Pair


class Descent:
    def __init__(self, x: Tensor, y: Tensor, size: Pair, init: np.ndarray | None) -> None:
        self.x, self.y = x.detach(), y.detach()
        self.layer = nn.Conv2d(1, 1, size, bias=False, device=x.device, dtype=x.dtype)
        if init is not None:
            with torch.no_grad():
                self.layer.weight.copy_(torch.from_numpy(np.array(init, np.float64)).reshape(1, 1, *size))

    def step(self, lr: float) -> Tensor:
        with torch.enable_grad():
            loss = ((self.layer(self.x) - self.y) ** 2).sum()
            self.layer.zero_grad()
            loss.backward()
        with torch.no_grad():
            self.layer.weight -= lr * self.layer.weight.grad  # type: ignore[operator]
        return loss.detach()

    @property
    def kernel(self) -> Tensor:
        return self.layer.weight.detach()[0, 0].clone()
