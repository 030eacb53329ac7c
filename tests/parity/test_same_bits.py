"""The same call gives the same bits: the first time and every time, in any thread, in any process.

What is remembered of a call computes the same sums in the same order. The data are of very different magnitudes, so
that another order, or a bias that is added elsewhere, has other bits. A call that is refused is refused each time.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest

import convlab
from convlab.contract.rule import ALGORITHMS
from convlab.correlation.repeated import forget_calls
from convlab.testing import gradients

IMAGE, LAYER = ((41, 47), (5, 4)), ((2, 3, 13, 14), (4, 3, 3, 2))
# Shapes of X and K, and corr2d's arguments.
CALLS: dict[str, tuple[tuple[tuple[int, ...], tuple[int, ...]], dict[str, Any]]] = {
    **{f"image by {each}": (IMAGE, {"algorithm": each}) for each in ALGORITHMS},
    "strict": (IMAGE, {}),
    "strict layer": (LAYER, {"padding": 1}),
    "images, padded": (((2, 3, 19, 18), (3, 3)), {"padding": "same", "padding_mode": "reflect"}),
    "large kernel": (((83, 79), (17, 17)), {"padding": 3}),
    "image, stride": (IMAGE, {"stride": (2, 1), "dilation": 2}),
    "layer": (LAYER, {"stride": 2, "padding": 1}),
    "layer without options": (LAYER, {}),
    "layer, uneven padding": (LAYER, {"padding": ((0, 1), (2, 0)), "algorithm": "direct"}),
    "one image": (((3, 13, 14), (4, 3, 3, 2)), {"padding_mode": "circular", "padding": 1}),
    "NHWC": (((2, 13, 14, 3), (3, 2, 3, 4)), {"data_format": "NHWC", "padding": 1}),
    "NHWC, one channel": (((1, 41, 47, 1), (3, 3, 1, 1)), {"data_format": "NHWC"}),
    "depthwise": (((2, 4, 13, 14), (4, 1, 3, 3)), {"groups": 4, "padding": 1}),
    "reproducible": (LAYER, {"reproducible": True}),
}
# Those that are made without a bias, too, and in other dtypes; and those that several threads make at once.
PLAIN, NARROW_AND_WIDE = ("image by auto", "image by host", "layer", "NHWC"), ("float16", "float64", "bfloat16")
AT_ONCE = ("image by auto, float32, bias", "layer, float32, bias", "Conv2D", "learn_kernel by autograd, 4 channels")

Call = Callable[[], Iterable[Any]]


def wide(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Numbers of magnitudes from 2^-6 to 2^6: float16 holds their sums, and no dtype without rounding."""
    rng = np.random.default_rng(seed)
    return (rng.uniform(1, 2, shape) * rng.choice([-1, 1], shape) * 2.0 ** rng.integers(-6, 6, shape)).astype("float32")


def digest(lab: convlab.Backend, call: Call) -> str:
    """What tells the bits of a call's results, or how it was refused."""
    try:
        arrays = [lab.to_numpy(each) for each in call()]
    except convlab.errors.UnsupportedError as error:
        return type(error).__name__
    return hashlib.sha256(b"".join(each.tobytes() for each in arrays)).hexdigest()


def arguments(lab: convlab.Backend, name: str, dtype: str, biased: bool) -> tuple[Any, Any, dict[str, Any]]:
    """X, K and the keyword arguments of one of `CALLS`."""
    (image, kernel), options = CALLS[name]
    channels = 1 if len(kernel) == 2 else kernel[3 if options.get("data_format") == "NHWC" else 0]
    x, k, b = (lab.asarray(wide(shape, seed), dtype) for seed, shape in enumerate((image, kernel, (channels,))))
    if "separable" in name:
        k = lab.asarray(np.outer(wide((5,), 3), wide((4,), 4)), dtype)
    return x, k, {**options, "bias": b if biased else None}


def corr2d_of(lab: convlab.Backend, name: str, dtype: str, biased: bool) -> Call:
    x, k, options = arguments(lab, name, dtype, biased)
    return lambda: [(convlab.conv2d if "strict" in name else convlab.corr2d)(x, k, **options)]


def gradients_of(lab: convlab.Backend, name: str) -> Call:
    x, k, options = arguments(lab, name, "float32", True)
    b = options.pop("bias")

    def call() -> Iterable[Any]:
        dy = wide(lab.ops.shape(convlab.corr2d(x, k, **options)), 5)
        return gradients(lab, *map(lab.to_numpy, (x, k, b)), dy, **options)

    return call


def layer_of(lab: convlab.Backend, **options: Any) -> Call:
    """A layer whose bias isn't zero, beside the call with its own weight."""
    channels = options.get("out_channels")
    x = lab.asarray(wide((2, 3, 13, 14), 0))
    layer = lab.Conv2D(3, **options, seed=0)
    bias = lab.asarray(wide((channels or 1,), 2))
    if lab.name == "jax":
        import jax

        parameters = layer.init(jax.random.key(0), x)
        parameters["params"]["bias"] = bias
        return lambda: [layer.apply(parameters, x)]
    if lab.name == "mxnet":
        layer.initialize()
        layer(x)
        layer.bias.set_data(bias.as_nd_ndarray())
    elif lab.name == "torch":
        layer.bias.data = bias
    elif lab.name == "tensorflow":
        layer(x)
        layer.bias.assign(bias)
    else:
        layer(x)
        layer.bias = lab.to_numpy(bias)
    return lambda: [layer(x)]


def learning_of(lab: convlab.Backend, method: str, channels: int | None) -> Call:
    images = lab.asarray(wide((2, 3, 13, 14), 0)), lab.asarray(wide((2, channels or 3, 11, 13), 1))
    options = {"method": method, "out_channels": channels, "use_bias": True, "num_steps": 3, "lr": 1e-6, "seed": 1}

    def call() -> Iterable[Any]:
        found = lab.learn_kernel(*images, (3, 2), **options)
        return [found.kernel, found.bias, np.array(found.losses)]

    return call


def calls(lab: convlab.Backend) -> dict[str, Call]:
    """Every call that is held to the same bits, by its name."""
    cases = [
        *((name, "float32", True) for name in CALLS),
        *((name, "float32", False) for name in PLAIN),
        *((name, dtype, True) for dtype in NARROW_AND_WIDE for name in PLAIN if dtype in lab.adapter.dtypes),
    ]
    found = {f"{name}, {dtype}{', bias' * bias}": corr2d_of(lab, name, dtype, bias) for name, dtype, bias in cases}
    if lab.adapter.autograd:
        found |= {
            f"gradients of {name}": gradients_of(lab, name) for name in ("image by host", "large kernel", "layer")
        }
    found["Conv2D"] = layer_of(lab, out_channels=4, in_channels=3, stride=2, padding=1)
    found["Conv2D of the chapter"] = layer_of(lab)
    for method, channels in (("autograd", None), ("autograd", 4), ("gram", 4), ("lstsq", 4)):
        found[f"learn_kernel by {method}, {channels} channels"] = learning_of(lab, method, channels)
    return found


@pytest.fixture
def named(lab):
    """The calls of a backend by name, each as a function that gives its digest."""
    return {name: partial(digest, lab, call) for name, call in calls(lab).items()}


def others(named: dict[str, Callable[[], str]], expected: dict[str, str]) -> list[str]:
    """The names of the calls whose bits aren't the expected."""
    return [name for name, call in named.items() if call() != expected[name]]


def test_the_first_call_and_every_other(named) -> None:
    forget_calls()
    first = {name: call() for name, call in named.items()}
    assert len(set(first.values())) > len(first) // 2  # most differ from one another
    for _ in range(9):
        assert others(named, first) == []
    forget_calls()
    assert others(named, first) == []


def test_in_another_thread_and_in_several(named) -> None:
    first = {name: call() for name, call in named.items()}
    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.extend(["ended", *others(named, first)]))
    thread.start()
    thread.join()
    assert seen == ["ended"]
    forget_calls()
    with ThreadPoolExecutor(3) as pool:
        for name in AT_ONCE:
            assert {*pool.map(lambda call: call(), [named[name]] * 3)} == {first[name]}, name


def test_in_a_fresh_process(lab, named) -> None:
    """Where the calls come in another order, and nothing was computed before."""
    done = subprocess.run([sys.executable, __file__, lab.name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fresh = json.loads(done.stdout.splitlines()[-1])
    assert others(named, fresh) == []


if __name__ == "__main__":
    here = convlab.backend(sys.argv[1])
    print(json.dumps({name: digest(here, call) for name, call in reversed(calls(here).items())}))
