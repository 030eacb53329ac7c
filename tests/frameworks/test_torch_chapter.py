"""The chapter's training loop in PyTorch, with convlab's layer."""

# ruff: noqa: E741  # the chapter's own names
from __future__ import annotations

import torch
from chapters import EDGES, TARGET, check

from convlab import torch as lab


def test_the_loop() -> None:
    conv2d = lab.Conv2D((1, 2), out_channels=1, use_bias=False)
    X = torch.from_numpy(EDGES).reshape((1, 1, 6, 8))
    Y = torch.from_numpy(TARGET).reshape((1, 1, 6, 7))
    conv2d(X)
    start, losses = conv2d.weight.detach().clone().numpy(), []
    lr = 3e-2  # Learning rate

    for i in range(10):
        Y_hat = conv2d(X)
        l = (Y_hat - Y) ** 2
        conv2d.zero_grad()
        l.sum().backward()
        # Update the kernel
        conv2d.weight.data[:] -= lr * conv2d.weight.grad
        if (i + 1) % 2 == 0:
            print(f"epoch {i + 1}, loss {l.sum():.3f}")
        losses.append(l.sum().item())
    check(start, conv2d.weight.data.reshape((1, 2)).numpy(), losses)
