"""An image larger than a worker's memory, filtered from Zarr to Zarr by processes of which one is killed; then the
filter is learned from the two images.

    python benchmarks/cluster.py [--size 16384] [--workers 4] [--memory 400MB] [--sigma 3]

Prints the seconds, and for each worker process its peak memory, beside the size of the image. Random windows of the
result are checked against convlab's oracle. Needs the extra `dask`, and twice the image's size of disk.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import zarr
from distributed import Client, Future, LocalCluster
from timing import console, markdown_table, peak

import convlab
from convlab.testing import error_bound, worst_ratio
from convlab.truth.oracle import oracle

CHUNK, WINDOW, WINDOWS = 1024, 40, 20


def noise(block: np.ndarray, block_info: Any = None) -> np.ndarray:
    seed = block_info[None]["chunk-location"]
    return np.random.default_rng(seed).standard_normal(block.shape, dtype=np.float32)


def create(path: Path, size: int) -> zarr.Array:
    return zarr.create_array(store=str(path), shape=(size, size), chunks=(CHUNK, CHUNK), dtype="float32")


def store(client: Client, image: da.Array, path: Path) -> tuple[zarr.Array, Future]:
    """Begin to write an image chunk by chunk."""
    stored = create(path, image.shape[0])
    return stored, client.compute(da.store(image, stored, lock=False, compute=False))


def kill_one(client: Client, stored: zarr.Array) -> str:
    """Kill a worker's process once a quarter of the result is there; its name."""
    while stored.nchunks_initialized < stored.nchunks / 4:
        time.sleep(0.1)
    name, process = sorted(client.run(os.getpid).items())[0]
    os.kill(process, signal.SIGKILL)
    return str(name)


def check(x: zarr.Array, y: zarr.Array, kernel: np.ndarray) -> float:
    """The worst error in bounds, over random windows; some of them lie across the borders of chunks."""
    rng, (h, w), worst = np.random.default_rng(0), kernel.shape, 0.0
    for number in range(WINDOWS):
        top, left = rng.integers(h, x.shape[0] - WINDOW - 2 * h, 2)
        if number % 2:
            top, left = (max(1, each // CHUNK) * CHUNK - WINDOW // 2 for each in (top, left))
        part = x[top - h // 2 : top + WINDOW + h // 2, left - w // 2 : left + WINDOW + w // 2]
        found = y[top : top + WINDOW, left : left + WINDOW]
        worst = max(worst, worst_ratio(found, oracle(part, kernel), error_bound(part, kernel, algorithm="fft")))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=16384, help="rows and columns of the image, float32")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--memory", default="400MB", help="that a worker may have")
    parser.add_argument("--sigma", type=float, default=3.0, help="of the Gaussian blur")
    options = parser.parse_args()
    kernel = convlab.filters.gaussian_blur(options.sigma).astype("float32")
    with (
        tempfile.TemporaryDirectory() as folder,
        dask.config.set({"distributed.scheduler.allowed-failures": 10}),
        LocalCluster(
            n_workers=options.workers,
            threads_per_worker=1,
            memory_limit=options.memory,
            dashboard_address=None,
            local_directory=folder,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        began = time.perf_counter()
        image = da.zeros((options.size, options.size), chunks=CHUNK, dtype="float32").map_blocks(noise, dtype="float32")
        x, written = store(client, image, Path(folder) / "image.zarr")
        written.result()
        made = time.perf_counter()
        lazy = convlab.corr2d(da.from_zarr(x), kernel, padding="same", padding_mode="reflect")
        y, filtered = store(client, lazy, Path(folder) / "filtered.zarr")
        killed = kill_one(client, y)
        filtered.result()
        done = time.perf_counter()
        images = da.from_zarr(x), da.from_zarr(y)
        found = convlab.learn_kernel(*images, kernel.shape, padding="same", padding_mode="reflect", method="lstsq")
        learned = time.perf_counter()
        columns = "image", "peak memory of a worker", "written in", "filtered in", "learned in"
        table = markdown_table(*columns, title=f"An image on workers that may have {options.memory}")
        most = max(client.run(peak).values())
        times = (f"{seconds:.0f} s" for seconds in (made - began, done - made, learned - done))
        table.add_row(
            f"{options.size} x {options.size} float32, {x.nbytes / 1e6:.0f} MB", f"{most / 1e6:.0f} MB", *times
        )
        console.print(table)
        console.print(f"{killed} was killed while the image was filtered")
        error = np.abs(found.kernel - kernel).max() / kernel.max()
        console.print(f"the filter was learned up to {error:.1e} of its largest number")
        worst = check(x, y, kernel)
        console.print(f"{WINDOWS} windows of the result: worst error {worst:.3f} of the bound")
        if worst > 1:
            sys.exit(1)


if __name__ == "__main__":
    main()
