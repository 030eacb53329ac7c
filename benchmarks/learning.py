"""How many times faster `learn_kernel` is than the chapter's own eager loop: ratios from interleaved runs.

    python benchmarks/learning.py [--backends torch,jax] [--size 1024] [--kernel 7] [--seconds 2] [--growth]

The loop is the chapter's in each framework: its built-in convolution layer, squared error, its autograd, a step at a
time. A step costs the same each time, so that long loops are extrapolated from one step ("~"), and so are autograd's
1000 steps from its 10 and 100; "gram" and "lstsq" are timed as they are. The last column is how far gram's kernel is
from autograd's in float64 after 100 steps, relative to it.

--growth prints, for images of 256 to 8192, how long gram takes for 10 steps beside a pass of the image through its own
framework's memory (X and Y copied once), and beside the smallest image.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from rich.table import Table
from timing import FRAMEWORKS, Run, console, interleaved, lab_of, markdown_table, names, written

import convlab

STEPS = (10, 100, 1000)


def chapter(name: str, X: np.ndarray, Y: np.ndarray, size: int, lr: float) -> Run:
    """One step of the chapter's loop."""
    return {"torch": _torch, "jax": _jax, "tensorflow": _tensorflow, "mxnet": _mxnet}[name](X, Y, size, lr)


def _torch(X: np.ndarray, Y: np.ndarray, size: int, lr: float) -> Run:
    import torch
    from torch import nn

    layer, x, y = nn.Conv2d(1, 1, size, bias=False), torch.from_numpy(X)[None, None], torch.from_numpy(Y)[None, None]

    def step() -> None:
        loss = (layer(x) - y) ** 2
        layer.zero_grad()
        loss.sum().backward()
        layer.weight.data[:] -= lr * layer.weight.grad

    return step


def _jax(X: np.ndarray, Y: np.ndarray, size: int, lr: float) -> Run:
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    layer, x, y = nn.Conv(1, (size, size), padding="VALID", use_bias=False), jnp.array(X)[None, ..., None], jnp.array(Y)
    y = y[None, ..., None]
    state = {"params": layer.init(jax.random.key(0), x)}

    def loss(params: Any) -> Any:
        return ((layer.apply(params, x) - y) ** 2).sum()

    def step() -> None:
        _, slopes = jax.value_and_grad(loss)(state["params"])
        state["params"] = jax.tree.map(lambda p, g: p - lr * g, state["params"], slopes)
        jax.block_until_ready(state["params"])

    return step


def _tensorflow(X: np.ndarray, Y: np.ndarray, size: int, lr: float) -> Run:
    import keras
    import tensorflow as tf

    layer = keras.layers.Conv2D(1, size, use_bias=False)
    x, y = tf.constant(X)[None, ..., None], tf.constant(Y)[None, ..., None]
    layer(x)

    def step() -> None:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(layer.weights[0].value)
            loss = tf.reduce_sum((layer(x) - y) ** 2)
        update = tf.multiply(lr, tape.gradient(loss, layer.weights[0].value))
        weights = layer.get_weights()
        weights[0] = layer.weights[0].value - update
        layer.set_weights(weights)

    return step


def _mxnet(X: np.ndarray, Y: np.ndarray, size: int, lr: float) -> Run:
    from mxnet import autograd, gluon
    from mxnet import numpy as mnp
    from mxnet.util import use_np

    @use_np
    def prepare() -> tuple[Any, Any, Any]:
        layer = gluon.nn.Conv2D(1, kernel_size=(size, size), use_bias=False)
        layer.initialize()
        return layer, mnp.array(X)[None, None], mnp.array(Y)[None, None]

    layer, x, y = prepare()

    @use_np
    def step() -> None:
        with autograd.record():
            loss = (layer(x) - y) ** 2
        loss.backward()
        layer.weight.data()[:] -= lr * layer.weight.grad()
        layer.weight.data().wait_to_read()

    return step


def images(side: int, size: int, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X, Y and a kernel to start from."""
    rng = np.random.default_rng(0)
    X, truth, start = rng.standard_normal((side, side)), rng.standard_normal((size, size)), np.zeros((size, size))
    Y = convlab.numpy.corr2d(X.astype(dtype), truth.astype(dtype))
    return X.astype(dtype), Y, start


def learner(
    name: str, X: np.ndarray, Y: np.ndarray, start: np.ndarray, lr: float, **options: Any
) -> Callable[..., Any]:
    """learn_kernel on the framework's tensors."""
    lab = lab_of(name)
    x, y = lab.asarray(X), lab.asarray(Y)
    return partial(lab.learn_kernel, x, y, start.shape, init=start, lr=lr, **options)


def compare(name: str, side: int, size: int, seconds: float) -> list[str]:
    """A row of the table."""
    X, Y, start = images(side, size)
    lr = 0.1 / X.size
    learn = learner(name, X, Y, start, lr)
    runs: dict[str, Run] = {"eager": chapter(name, X, Y, size, lr), "lstsq": partial(learn, method="lstsq")}
    runs |= {f"autograd {steps}": partial(learn, num_steps=steps) for steps in STEPS[:2]}
    runs |= {f"gram {steps}": partial(learn, num_steps=steps, method="gram") for steps in STEPS}
    took = interleaved(runs, seconds)
    took["autograd 1000"] = took["autograd 100"] + 900 * (took["autograd 100"] - took["autograd 10"]) / 90
    cells = []
    for steps in STEPS:
        eager = took["eager"] * steps
        cells.append(
            f"{written(eager / took[f'autograd {steps}'], steps == 1000)} / {written(eager / took[f'gram {steps}'])}"
            f" / {written(eager / took['lstsq'])}"
        )
    X, Y, start = images(min(side, 512), size, "float64")
    learn = learner(name, X, Y, start, 0.1 / X.size, num_steps=100)
    lab = lab_of(name)
    a, b = (lab.to_numpy(learn(method=method).kernel) for method in ("autograd", "gram"))
    return [name, *cells, f"{np.abs(a - b).max() / np.abs(a).max():.1e}"]


def growth(name: str, size: int, seconds: float) -> Table:
    """How gram's cost grows with the image."""
    columns = "image", "10 steps / copying X and Y", "/ the smallest image's", "its pixels / the smallest's"
    table = markdown_table(*columns, title=f"gram on {name}")
    lab, first = lab_of(name), 0.0
    for side in (256, 512, 1024, 2048, 4096, 8192):
        X, Y, start = images(side, size)
        learn = learner(name, X, Y, start, 0.1 / X.size, num_steps=10, method="gram")
        x, y = lab.asarray(X), lab.asarray(Y)
        took = interleaved(
            {"gram": learn, "copy": lambda x=x, y=y: (lab.ops.wait(x + 1), lab.ops.wait(y + 1))}, seconds
        )
        first = first or took["gram"]
        ratios = took["gram"] / took["copy"], took["gram"] / first, (side / 256) ** 2
        table.add_row(f"{side}x{side}", *map(written, ratios))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backends", type=names, default=list(FRAMEWORKS))
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--kernel", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    parser.add_argument("--growth", action="store_true")
    arguments = parser.parse_args()
    if arguments.growth:
        for name in arguments.backends:
            console.print(growth(name, arguments.kernel, arguments.seconds))
        return
    columns = [f"{'~' * (steps > 10)}{steps} steps: autograd / gram / lstsq" for steps in STEPS]
    table = markdown_table("", *columns, "gram - autograd", title="How many times faster than the chapter's eager loop")
    for name in arguments.backends:
        table.add_row(*compare(name, arguments.size, arguments.kernel, arguments.seconds))
    console.print(table)


if __name__ == "__main__":
    main()
