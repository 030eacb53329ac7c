"""convlab on a GPU beside cuDNN, with PyTorch: ratios from interleaved runs.

    python benchmarks/gpu.py [--device cuda] [--sizes 256,1024] [--kernels 3,31] [--seconds 0.3]

For each image size and kernel size the median time of `corr2d` over that of `torch.nn.functional.conv2d`; above 1
convlab is slower. "auto" takes cuDNN, as nothing has been measured on a GPU; "fft" shows where it would win.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import timing
import torch

import convlab

OPTIONS: dict[str, dict[str, Any]] = {
    "auto": {},
    "fft": {"algorithm": "fft"},
    "reproducible": {"reproducible": True},
}


def contenders(x: torch.Tensor, k: torch.Tensor) -> dict[str, timing.Run]:
    """What is timed, until the device has finished."""

    def run(function: Callable[[], Any]) -> timing.Run:
        def wait() -> None:
            function()
            if x.device.type == "cuda":
                torch.cuda.synchronize(x.device)

        return wait

    images, weights = x[None, None], k[None, None]
    runs = {"own": run(lambda: torch.nn.functional.conv2d(images, weights))}
    for name, options in OPTIONS.items():
        runs[name] = run(lambda options=options: convlab.corr2d(x, k, **options))  # type: ignore[misc]
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", type=timing.integers, default=[256, 1024, 4096], help="of the image")
    parser.add_argument("--kernels", type=timing.integers, default=[3, 7, 15, 31, 63], help="sizes of the kernel")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each contender in a cell")
    options = parser.parse_args()
    table = timing.markdown_table("image", "", *(f"{k}x{k}" for k in options.kernels), title="Times beside cuDNN")
    for size in options.sizes:
        cells: dict[str, list[str]] = {name: [] for name in OPTIONS}
        for kernel in options.kernels:
            x, k = (torch.randn(n, n, device=options.device) for n in (size, kernel))
            times = timing.interleaved(contenders(x, k), options.seconds)
            for name in OPTIONS:
                cells[name].append(timing.coloured(times[name] / times["own"]))
        for name, line in cells.items():
            table.add_row(f"{size}x{size}", name, *line)
    timing.console.print(table)


if __name__ == "__main__":
    main()
