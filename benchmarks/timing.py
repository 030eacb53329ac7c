"""What the benchmarks share: runs timed in turns, and each framework's own convolution as its users write it.

A row of a benchmark is a backend's name, or "jax.jit" and "tensorflow.xla" for one inside its compiler.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import math
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Column, Table

import convlab
from convlab.cli.quiet import quiet

FRAMEWORKS = tuple(name for name in ("torch", "jax", "tensorflow", "mxnet") if importlib.util.find_spec(name))
Run = Callable[[], Any]
console = Console(width=None if sys.stdout.isatty() else 1000)
progress = Console(stderr=True)
Key = TypeVar("Key", bound=Hashable)


def names(text: str) -> list[str]:
    """An option's comma-separated names."""
    return [name.strip() for name in text.split(",")]


def integers(text: str) -> list[int]:
    """An option's comma-separated integers."""
    return [int(number) for number in text.split(",")]


def lab_of(row: str) -> convlab.Backend:
    """The backend of a row."""
    with quiet():
        return convlab.backend(row.partition(".")[0])


def ours(
    row: str, x: np.ndarray, k: np.ndarray, gradients: bool = False, stride: int = 1, padding: int = 0, **options: Any
) -> Run:
    """A run of corr2d on x and k, of rank 2 or NCHW and OIHW, or of its forward and backward pass."""
    lab = lab_of(row)
    tensors = image(lab, x), kernel(lab, k)
    geometry = {"stride": stride, "groups": options.pop("groups", 1)}
    if lab.name == "tensorflow" and x.ndim == 4:
        options["data_format"] = "NHWC"
    border: Any = "same" if padding and lab.name == "tensorflow" else padding
    function = functools.partial(convlab.corr2d, **geometry, padding=border, **options)
    return _run(row, function, tensors, _slope(lab, x, k, gradients, padding=padding, **geometry))


def own(
    row: str, x: np.ndarray, k: np.ndarray, gradients: bool = False, stride: int = 1, padding: int = 0, groups: int = 1
) -> Run:
    """A run of the framework's own convolution on x (NCHW) and k (OIHW), or of its forward and backward pass.

    JAX's is compiled. Its gradients are compiled as a whole, without the result, on the row "jax.jit" alone.
    """
    lab = lab_of(row)
    geometry = {"stride": stride, "padding": padding, "groups": groups}
    tensors = image(lab, x), kernel(lab, k, depthwise=groups > 1)
    function = compiled("jax.jit" if lab.name == "jax" else row, convolution(lab.name, **geometry))
    return _run(row, function, tensors, _slope(lab, x, k, gradients, **geometry))


def convolution(name: str, stride: int = 1, padding: int = 0, groups: int = 1) -> Callable[[Any, Any], Any]:
    """The framework's own convolution of its tensors; TensorFlow pads, if at all, to "SAME" by its own rule."""
    if name == "torch":
        import torch

        return functools.partial(torch.nn.functional.conv2d, stride=stride, padding=padding, groups=groups)
    if name == "jax":
        import jax

        options = {"window_strides": (stride, stride), "padding": [(padding, padding)] * 2}
        return functools.partial(jax.lax.conv_general_dilated, **options, feature_group_count=groups)
    if name == "tensorflow":
        import tensorflow as tf

        border = "SAME" if padding else "VALID"
        if groups > 1:
            return lambda x, k: tf.nn.depthwise_conv2d(x, k, (1, stride, stride, 1), border)
        return lambda x, k: tf.nn.conv2d(x, k, stride, border)
    from mxnet import npx

    steps, pads = (stride, stride), (padding, padding)
    return lambda x, k: npx.convolution(
        x, k, kernel=k.shape[2:], num_filter=k.shape[0], stride=steps, pad=pads, num_group=groups, no_bias=True
    )


def image(lab: convlab.Backend, x: np.ndarray) -> Any:
    """An NCHW array as the framework's users hold it, NHWC on TensorFlow; one of rank 2 as it is."""
    return lab.asarray(x.transpose(0, 2, 3, 1) if x.ndim == 4 and lab.name == "tensorflow" else x)


def kernel(lab: convlab.Backend, k: np.ndarray, depthwise: bool = False) -> Any:
    """An OIHW array as the framework's users hold it; TensorFlow's own depthwise kernels are HWOI."""
    nhwc = k.ndim == 4 and lab.name == "tensorflow"
    return lab.asarray(k.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0)) if nhwc else k)


def _slope(lab: convlab.Backend, x: np.ndarray, k: np.ndarray, gradients: bool, **geometry: Any) -> Any:
    """The gradient of the result to go back from, or None."""
    return image(lab, np.ones(convlab.output_shape(x.shape, k.shape, **geometry), x.dtype)) if gradients else None


def _run(row: str, function: Callable[..., Any], tensors: tuple[Any, ...], dy: Any) -> Run:
    """The function, or its gradients, until the values are there."""
    lab, work = lab_of(row), function
    if dy is not None:
        work, tensors = lambda x, k, dy: lab.ops.vjp(function, (x, k), dy), (*tensors, dy)
    work = compiled(row, work)

    def run() -> None:
        y = work(*tensors)
        for each in y if isinstance(y, tuple | list) else (y,):
            lab.ops.wait(each)

    return run


def compiled(row: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as users of this row run it."""
    if row == "jax.jit":
        import jax

        return jax.jit(function)
    if row == "tensorflow.xla":
        import tensorflow as tf

        return tf.function(function, jit_compile=True, autograph=False)
    return function


def peak() -> int:
    """The most bytes of memory that this process has had."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # What `resource` tells may be the peak of the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))


def peak_beyond(run: Run) -> int:
    """The bytes by which a run's peak of memory is above what there was before."""
    with contextlib.suppress(OSError):  # Linux forgets earlier peaks, of imports say, when it is told to
        Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    run()
    return peak() - before


def timed(run: Run, repeats: int = 1) -> float:
    """Seconds that one run takes."""
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def interleaved(
    runs: Mapping[Key, Run], seconds: float, figure: Callable[[list[float]], float] = statistics.median, rounds: int = 9
) -> dict[Key, float]:
    """The median time of each run, or another figure, over rounds in which all take turns, `seconds` for each in all.

    One that takes longer than that is timed once. Runs are timed one by one, the shortest a few together, so that a
    stall while another process has the processor counts as one of many.
    """
    repeats = {}
    for key, run in runs.items():
        run()  # compiles
        once = timed(run)
        once = once if once > seconds else min(once, timed(run))
        few = max(1, int(20e-6 / once))
        repeats[key] = few, max(1, int(seconds / rounds / once / few))
    times: dict[Key, list[float]] = {key: [] for key in runs}
    for _ in range(rounds):
        for key, run in runs.items():
            few, turns = repeats[key]
            if few * sum(times[key]) < seconds:
                times[key] += [timed(run, few) for _ in range(turns)]
    return {key: figure(each) for key, each in times.items()}


def affordable(prepare: Callable[[float], Run], shares: Iterable[float], patience: float) -> Run | float:
    """The whole run, or, if it would take more than `patience` seconds, those, estimated from a share of the work.

    `prepare(share)` is the run on that share; the shares grow.
    """
    for share in shares:
        run = prepare(share)
        run()
        estimate = min(timed(run), timed(run)) / share
        if estimate <= patience:
            break
        if estimate * share > patience / 16:  # small images have costs of their own; this one is large enough
            return estimate
    return prepare(1.0)


def markdown_table(*columns: str, title: str) -> Table:
    """An empty table in Markdown, which `docs/measured.py` copies, by its title, into the documentation."""
    return Table(*(Column(name, no_wrap=True) for name in columns), title=title, title_justify="left", box=MARKDOWN)


def mean(ratios: Sequence[float]) -> float:
    """The geometric mean; NaN of nothing."""
    return math.exp(statistics.fmean(map(math.log, ratios))) if ratios else math.nan


def written(ratio: float, estimated: bool = False) -> str:
    """A ratio in two or three digits, with a "~" if it was estimated; a dash for NaN."""
    if math.isnan(ratio):
        return "–"
    digits = 0 if ratio >= 10 else 2 if ratio > 0.095 else 3
    return "~" * estimated + f"{ratio:.{digits}f}"


def coloured(ratio: float, estimated: bool = False) -> str:
    """A ratio for a table: green if convlab is the better one, red if it is clearly the worse."""
    colour = "green" if ratio < 1 else "red" if ratio > 1.05 else "default"
    return f"[{colour}]{written(ratio, estimated)}[/]"
