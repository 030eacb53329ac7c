"""The chapter's training loop with gluon's `nn.Conv2D`."""

from __future__ import annotations

from typing import Any

import numpy as np

from convlab.errors import UnsupportedError
from convlab.geometry import Pair

from .ops import mx, ops


class Descent:
    @mx.util.use_np  # type: ignore[untyped-decorator]
    def __init__(self, x: Any, y: Any, size: Pair, init: np.ndarray | None) -> None:
        self.x, self.y = x, y
        self.layer = mx.gluon.nn.Conv2D(1, size, use_bias=False, in_channels=1)
        if ops.dtype(x) == "float16" and x.ctx.device_type != "gpu":
            raise UnsupportedError(
                "backend 'mxnet': its convolution layer has no float16 on a CPU.", hint="learn in float32."
            )
        self.layer.initialize(ctx=x.ctx)  # in float32, the only dtype that its generator draws
        self.layer.cast(x.dtype)
        if init is not None:
            self.layer.weight.set_data(mx.np.array(np.reshape(init, (1, 1, *size)), dtype=x.dtype))

    @mx.util.use_np  # type: ignore[untyped-decorator]
    def step(self, lr: float) -> Any:
        with mx.autograd.record():
            loss = ((self.layer(self.x) - self.y) ** 2).sum()
        loss.backward()
        self.layer.weight.data()[:] -= lr * self.layer.weight.grad()
        return loss

    @property
    @mx.util.use_np  # type: ignore[untyped-decorator]
    def kernel(self) -> Any:
        return self.layer.weight.data()[0, 0].copy()
