"""The chapter's training loop in MXNet, with convlab's layer."""

# ruff: noqa: E741  # the chapter's own names
from __future__ import annotations

from chapters import EDGES, TARGET, check

from convlab import mxnet as lab

from mxnet import autograd, np, npx  # isort: skip  # after convlab, which lets it be imported


def test_the_loop() -> None:
    npx.set_np()
    try:
        conv2d = lab.Conv2D((1, 2), out_channels=1, use_bias=False)
        conv2d.initialize()
        X = np.array(EDGES).reshape(1, 1, 6, 8)
        Y = np.array(TARGET).reshape(1, 1, 6, 7)
        conv2d(X)
        start, losses = conv2d.weight.data().asnumpy(), []
        lr = 3e-2  # Learning rate

        for i in range(10):
            with autograd.record():
                Y_hat = conv2d(X)
                l = (Y_hat - Y) ** 2
            l.backward()
            # Update the kernel
            conv2d.weight.data()[:] -= lr * conv2d.weight.grad()
            if (i + 1) % 2 == 0:
                print(f"epoch {i + 1}, loss {float(l.sum()):.3f}")
            losses.append(float(l.sum()))
        check(start, conv2d.weight.data().asnumpy(), losses)
    finally:
        npx.reset_np()
