"""convlab beside the framework's own convolution on layers of real networks: ratios from interleaved runs.

    python benchmarks/layers.py [--backends torch,jax] [--batches 1,8] [--plot layers.png]

For each layer and batch, convlab's median time over that of the framework's own layer function, forward and "f+b",
forward and backward; above 1 convlab is slower. Tensors are NCHW, on TensorFlow NHWC, and JAX runs under `jax.jit`.

What would take longer than `--patience` isn't run, but estimated from fewer channels, or from one image of a batch:
such a ratio is marked "~".
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timing
from rich.progress import track
from timing import Run


class Layer(NamedTuple):
    """A convolution with padding k // 2; `groups` is 1, or for depthwise ones the number of channels."""

    network: str
    inputs: int
    outputs: int
    kernel: int
    size: int
    stride: int = 1
    groups: int = 1

    def __str__(self) -> str:
        stride = f"/{self.stride}" if self.stride > 1 else ""
        channels = f"{self.inputs}" if self.groups > 1 else f"{self.inputs}→{self.outputs}"
        return f"{self.network} {self.kernel}x{self.kernel}{stride}, {channels} at {self.size}"

    def share(self, share: float, batch: int) -> tuple[Layer, int]:
        """About this share of its work: fewer channels or images."""
        if self.groups == 1:
            return self, max(1, round(batch * share))
        channels = max(2, round(self.groups * share))
        return self._replace(inputs=channels, outputs=channels, groups=channels), batch

    def arrays(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """X and K."""
        rng = np.random.default_rng(0)
        shape = self.outputs, self.inputs // self.groups, self.kernel, self.kernel
        x, k = rng.standard_normal((batch, self.inputs, self.size, self.size)), rng.standard_normal(shape)
        return x.astype("float32"), k.astype("float32")


def depthwise(network: str, channels: int, kernel: int, size: int, stride: int = 1) -> Layer:
    return Layer(network, channels, channels, kernel, size, stride, channels)


LAYERS = [
    Layer("ResNet-50", 3, 64, 7, 224, stride=2),
    Layer("ResNet-50", 64, 64, 3, 56),
    Layer("ResNet-50", 256, 64, 1, 56),
    Layer("ResNet-50", 128, 128, 3, 56, stride=2),
    Layer("ResNet-50", 512, 512, 3, 7),
    depthwise("MobileNetV2", 32, 3, 112),
    depthwise("MobileNetV2", 144, 3, 56, stride=2),
    depthwise("MobileNetV2", 960, 3, 7),
    depthwise("ConvNeXt-T", 96, 7, 56),
    depthwise("ConvNeXt-T", 384, 7, 14),
    depthwise("ConvNeXt-T", 768, 7, 7),
    depthwise("RepLKNet", 128, 31, 56),
    depthwise("RepLKNet", 256, 31, 28),
]


def ratio(row: str, layer: Layer, batch: int, gradients: bool, options: argparse.Namespace) -> tuple[float, bool]:
    """convlab's time over the framework's, and whether one of them is an estimate."""
    runs: dict[str, Run] = {}
    known: dict[str, float] = {}
    smaller = (1 / 32,) if layer.groups > 1 else (1 / batch,) if batch > 1 else ()
    makers: dict[str, Callable[..., Run]] = {"convlab": timing.ours, "own": timing.own}
    for name, make in makers.items():

        def prepare(share: float, make: Callable[..., Run] = make) -> Run:
            part, images = layer.share(share, batch)
            geometry: dict[str, Any] = {"stride": part.stride, "padding": part.kernel // 2, "groups": part.groups}
            return make(row, *part.arrays(images), gradients, **geometry)

        found = timing.affordable(prepare, smaller, options.patience)
        if isinstance(found, float):
            known[name] = found
        else:
            runs[name] = found
    times = timing.interleaved(runs, options.seconds) | known
    return times["convlab"] / times["own"], bool(known)


def plot(columns: list[tuple[str, bool]], found: dict[str, list[tuple[float, bool]]], path: Path) -> None:
    """A bar for each ratio, a panel for each column."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figsize = 4.0 + 2.0 * len(columns), 1.0 + 0.28 * len(found)
    figure, axes = plt.subplots(
        1, len(columns), sharex=True, sharey=True, squeeze=False, figsize=figsize, layout="constrained"
    )
    for axis, (row, gradients), ratios in zip(axes[0], columns, zip(*found.values(), strict=True), strict=True):
        values = [value for value, _ in ratios]
        axis.barh([*found], [value - 1 for value in values], left=1, color=[_colour(value) for value in values])
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_xscale("log")
        axis.set_title(f"{row}, {'f+b' if gradients else 'forward'}", fontsize=10)
    axes[0][0].invert_yaxis()
    figure.suptitle("convlab / the framework's own: left of 1 convlab is faster")
    figure.savefig(path, dpi=150)


def _colour(value: float) -> str:
    return "tab:green" if value < 1 else "tab:red" if value > 1.05 else "tab:gray"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backends", type=timing.names, default=[*timing.FRAMEWORKS])
    parser.add_argument("--batches", type=timing.integers, default=[1, 8])
    parser.add_argument("--only", default="", help="layers of networks whose name contains this")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each contender")
    parser.add_argument("--patience", type=float, default=3.0, help="seconds beyond which a run is estimated")
    parser.add_argument("--plot", type=Path, help="where to draw them: a PNG or an SVG")
    options = parser.parse_args()

    rows = ["jax.jit" if name == "jax" else name for name in options.backends]
    for row in rows:
        timing.lab_of(row)
    columns = [(row, gradients) for row in rows for gradients in (False, True)]
    layers = [layer for layer in LAYERS if options.only.lower() in layer.network.lower()]
    cases = [(layer, batch) for layer in layers for batch in options.batches]
    found: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for layer, batch in track(cases, "layers", console=timing.progress, transient=True):
        for row, gradients in columns:
            found[f"{layer}, batch {batch}"].append(ratio(row, layer, batch, gradients, options))

    heads = (f"{row}, f+b" if gradients else row for row, gradients in columns)
    table = timing.markdown_table("layer", *heads, title="Times beside the framework's own convolution")
    for title, ratios in found.items():
        table.add_row(title, *(timing.coloured(*each) for each in ratios))
    means = [timing.mean([value for value, _ in ratios]) for ratios in zip(*found.values(), strict=True)]
    table.add_row("geometric mean", *map(timing.coloured, means))
    timing.console.print(table)
    if options.plot:
        plot(columns, found, options.plot)


if __name__ == "__main__":
    main()
