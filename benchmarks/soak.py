"""A soak, run by hand: random calls, mixed threads, forks, killed commands and hostile files; prints what was lost.

    python benchmarks/soak.py [--backends numpy,torch,jax,tensorflow,mxnet] [--cases 100000] [--minutes 60] [--seed 0]
                              [--parts geometry,threads,forks,commands,files]

Each part runs in a process of its own for each backend, so that an aborted one is counted, too; `--cases` is for each
backend, and `--minutes` the longest that one part may take. The reference is written out here: the taps of the kernel
one after another, on a border that numpy.pad makes, in int64 or float64. Integer-valued data must be equal bit for bit,
other data within `convlab.testing.error_bound`. The parts "commands" and "files" are in soak_commands.py and
soak_files.py. Exits with 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timing
from rich.table import Table

from convlab.testing import error_bound, gradients

_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
# So many calls of one geometry: XLA compiles each anew.
_ALIKE = {"jax": 200, "tensorflow": 40}
_SECONDS = "SOAK_SECONDS"


class Result(NamedTuple):
    """What a part tried, and what it lost, in words."""

    tried: int
    lost: list[str]


class Geometry(NamedTuple):
    """A call of corr2d without its values."""

    image: tuple[int, ...]
    kernel: tuple[int, ...]
    options: dict[str, Any]
    pads: list[tuple[int, int]]

    @property
    def first(self) -> bool:
        """Whether channels come first."""
        return self.options.get("data_format") != "NHWC"


def draw(rng: np.random.Generator) -> Geometry:
    """A random geometry that has a result."""

    def pick(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    h, w, stride, dilation = pick(1, 5), pick(1, 5), (pick(1, 6), pick(1, 6)), (pick(1, 3), pick(1, 3))
    extents = (h - 1) * dilation[0] + 1, (w - 1) * dilation[1] + 1
    size = extents[0] + pick(0, 9), extents[1] + pick(0, 9)
    padding: Any = ((pick(0, 7), pick(0, 7)), (pick(0, 7), pick(0, 7)))
    pads = list(padding)
    if rng.random() < 0.5:
        padding = str(rng.choice(["valid", "same", "same_lower", "full"]))
        pads = [_named(padding, *each) for each in zip(size, extents, stride, strict=True)]
    mode = str(rng.choice(["zeros", *_MODES]))
    options = {"stride": stride, "dilation": dilation, "padding": padding, "padding_mode": mode}
    if rng.random() < 0.3:
        return Geometry((*[pick(1, 3) for _ in range(pick(0, 2))], *size), (h, w), options, pads)
    groups, inputs, outputs = pick(1, 3), pick(1, 4), pick(1, 3)
    options |= {"groups": groups, "data_format": str(rng.choice(["NCHW", "NHWC"]))}
    if options["data_format"] == "NCHW":
        return Geometry((pick(1, 3), groups * inputs, *size), (groups * outputs, inputs, h, w), options, pads)
    return Geometry((pick(1, 3), *size, groups * inputs), (h, w, inputs, groups * outputs), options, pads)


def _named(padding: str, n: int, extent: int, stride: int) -> tuple[int, int]:
    total = max((-(-n // stride) - 1) * stride + extent - n, 0)
    small = total // 2
    pads = {"valid": (0, 0), "full": (extent - 1, extent - 1), "same": (small, total - small)}
    return pads.get(padding, (total - small, small))


class Truth:
    """A geometry's result and gradients, tap by tap: X's pixels are numbered, and one more is the border's zero."""

    def __init__(self, geometry: Geometry) -> None:
        self.geometry, options = geometry, geometry.options
        self.groups, (sh, sw), (dh, dw) = options.get("groups", 1), options["stride"], options["dilation"]
        h, w = geometry.kernel[-2:] if geometry.first else geometry.kernel[:2]
        size = geometry.image[-2:] if geometry.first else geometry.image[-3:-1]
        pixels = np.arange(size[0] * size[1]).reshape(size)
        mode = _MODES.get(options["padding_mode"])
        border = {"mode": mode} if mode else {"constant_values": pixels.size}
        padded = np.pad(pixels, geometry.pads, **border)
        rows, columns = (padded.shape[0] - (h - 1) * dh - 1) // sh + 1, (padded.shape[1] - (w - 1) * dw - 1) // sw + 1
        self.taps = [(p, q, padded[p * dh :: sh, q * dw :: sw][:rows, :columns]) for p in range(h) for q in range(w)]
        self.size, self.result = size, (rows, columns)

    def _split(self, x: np.ndarray) -> np.ndarray:
        """(N, groups, C/groups, pixels and a zero)."""
        x = x if self.geometry.first else np.moveaxis(x, -1, 1)
        channels = 1 if len(self.geometry.kernel) == 2 else x.shape[1]
        flat = x.reshape(-1, self.groups, channels // self.groups, self.size[0] * self.size[1])
        return np.concatenate([flat, np.zeros_like(flat[..., :1])], -1)

    def _kernel(self, k: np.ndarray) -> np.ndarray:
        """(groups, O/groups, C/groups, h, w)."""
        if k.ndim == 2:
            return k[None, None, None]
        k = k if self.geometry.first else k.transpose(3, 2, 0, 1)
        return k.reshape(self.groups, -1, *k.shape[1:])

    def _like(self, y: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """(N, groups, O/groups, rows, columns) laid out as the user has it."""
        y = y.reshape(y.shape[0], -1, *y.shape[3:])
        if len(self.geometry.kernel) == 2:
            return y.reshape(*shape[:-2], *y.shape[2:])
        return y if self.geometry.first else np.moveaxis(y, 1, -1)

    def __call__(self, x: np.ndarray, k: np.ndarray) -> np.ndarray:
        """The result."""
        images, kernel = self._split(x), self._kernel(k)
        y: Any = sum(np.einsum("ngcij,goc->ngoij", images[..., index], kernel[..., p, q]) for p, q, index in self.taps)
        return self._like(y, x.shape)

    def gradients(self, x: np.ndarray, k: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those of sum(dy * result) with respect to X and K."""
        images, kernel = self._split(x), self._kernel(k)
        seed = dy if self.geometry.first or k.ndim == 2 else np.moveaxis(dy, -1, 1)
        seed = seed.reshape(len(images), self.groups, -1, *self.result)
        dx, dk = np.zeros_like(images), np.zeros_like(kernel)
        for p, q, index in self.taps:
            np.add.at(dx, (..., index), np.einsum("ngoij,goc->ngcij", seed, kernel[..., p, q]))
            dk[..., p, q] = np.einsum("ngcij,ngoij->goc", images[..., index], seed)
        dx = self._like(dx[..., :-1].reshape(*dx.shape[:3], *self.size), x.shape)
        if k.ndim == 2:
            return dx, dk[0, 0, 0]
        dk = dk.reshape(-1, *dk.shape[2:])
        return dx, dk if self.geometry.first else dk.transpose(2, 3, 1, 0)


def geometry(name: str, cases: int, seed: int) -> Result:
    """Random calls of corr2d on one backend, and a gradient for each geometry."""
    lab, rng, lost, tried = timing.lab_of(name), np.random.default_rng(seed), [], 0
    while tried < cases and not _late():
        drawn = draw(rng)
        truth, algorithm = Truth(drawn), str(rng.choice(["auto", "auto", "direct", "native", "reproducible"]))
        how = {"reproducible": True} if algorithm == "reproducible" else {"algorithm": algorithm}
        for number in range(_ALIKE.get(name, 5)):
            dtype = str(rng.choice(["float32", "float64", "int64"])) if number % 2 else "float32"
            whole = number % 4 != 0
            x, k = (_values(rng, shape, dtype, whole) for shape in (drawn.image, drawn.kernel))
            tried += 1
            try:
                y = lab.to_numpy(lab.corr2d(lab.asarray(x), lab.asarray(k), **drawn.options, **how))
                true = truth(*(each if dtype == "int64" else each.astype(np.float64) for each in (x, k)))
                exact = whole or dtype == "int64"
                bound = 0.0 if exact else error_bound(x, k, **drawn.options)
                bad = y.shape != true.shape or not (np.abs(y - true) <= bound).all()
            except Exception as error:  # whatever it is, it is lost
                bad, y = True, repr(error)[:300]
            if bad:
                lost.append(f"{name} {algorithm} {dtype} {drawn}: {y if isinstance(y, str) else 'wrong'}")
        if lab.adapter.autograd and rng.random() < 0.2:
            tried += 1
            lost += _wrong_gradients(lab, drawn, truth, rng)
    return Result(tried, lost)


def _values(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, whole: bool) -> np.ndarray:
    values = rng.integers(-8, 9, shape) if whole or dtype == "int64" else rng.standard_normal(shape)
    return values.astype(dtype)


def _wrong_gradients(lab: Any, drawn: Geometry, truth: Truth, rng: np.random.Generator) -> list[str]:
    x, k = (_values(rng, shape, "float32", True) for shape in (drawn.image, drawn.kernel))
    dy = rng.integers(-3, 4, truth(x, k).shape).astype(np.float32)
    found = gradients(
        lab,
        x,
        k,
        np.zeros(k.shape[-1 if not drawn.first else 0] if k.ndim == 4 else 1, np.float32),
        dy,
        **drawn.options,
    )
    true = truth.gradients(*(each.astype(np.float64) for each in (x, k, dy)))
    same = all(np.array_equal(one, other) for one, other in zip(found, true, strict=False))
    return [] if same else [f"{lab.name} gradient {drawn}"]


def _fixed(seed: int, count: int = 12) -> list[tuple[np.ndarray, np.ndarray, dict[str, Any], np.ndarray]]:
    """A few calls with whole numbers, and their results."""
    rng = np.random.default_rng(seed)
    made = []
    for drawn in (draw(rng) for _ in range(count)):
        x, k = (_values(rng, shape, "float32", True) for shape in (drawn.image, drawn.kernel))
        made.append((x, k, drawn.options, Truth(drawn)(x, k)))
    return made


def _calls(names: list[str], cases: int, seed: int, fixed: Any, lost: list[str]) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(cases):
        name, (x, k, options, true) = str(rng.choice(names)), fixed[rng.integers(len(fixed))]
        lab = timing.lab_of(name)
        try:
            same = np.array_equal(lab.to_numpy(lab.corr2d(lab.asarray(x), lab.asarray(k), **options)), true)
        except Exception as error:
            same, name = False, f"{name}: {error!r}"
        if not same:
            lost.append(f"{name} {options}")
        if _late():
            return


def threads(names: str, cases: int, seed: int) -> Result:
    """Threads that call all frameworks in turns."""
    fixed, lost, each = _fixed(seed), [], max(1, cases // 8)
    arguments = [(names.split(","), each, seed + i, fixed, lost) for i in range(8)]
    running = [threading.Thread(target=_calls, args=given) for given in arguments]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return Result(8 * each, lost)


def forks(name: str, cases: int, seed: int) -> Result:
    """Children forked after the parent has computed, which compute themselves; those that hang are lost."""
    fixed, lost, tried = _fixed(seed), [], 0
    _calls([name], 20, seed, fixed, lost)
    while tried < min(cases, 200) and not _late():
        child, tried = os.fork(), tried + 1
        if not child:
            if name == "torch":  # as its DataLoader does: GNU's OpenMP hangs in a forked child
                importlib.import_module("torch").set_num_threads(1)
            mine: list[str] = []
            _calls([name], 5, seed + tried, fixed, mine)
            os._exit(min(len(mine), 100))
        until = time.monotonic() + 60
        while not (done := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < until:
            time.sleep(0.01)
        if not done[0]:
            os.kill(child, 9)
            os.waitpid(child, 0)
        if not done[0] or done[1]:
            lost.append(f"{name}: a forked child {'failed' if done[0] else 'hung'}")
    return Result(tried, lost)


def _late() -> bool:
    return time.monotonic() > _UNTIL


_UNTIL = time.monotonic() + float(os.environ.get(_SECONDS, 1e9))


def parts() -> dict[str, Callable[[str, int, int], tuple[int, list[str]]]]:
    """The parts by name."""
    import soak_commands
    import soak_files

    return {
        "geometry": geometry,
        "threads": threads,
        "forks": forks,
        "commands": soak_commands.commands,
        "files": soak_files.files,
    }


def plan(names: list[str], wanted: list[str]) -> Iterator[tuple[str, str]]:
    """Each part, and the backends that one process of it gets."""
    for part in wanted:
        if part == "threads":
            yield part, ",".join(names)
        elif part == "forks":  # JAX and TensorFlow say themselves that they don't survive one
            yield from ((part, name) for name in names if name in ("numpy", "torch", "mxnet"))
        else:
            yield from ((part, name) for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backends", type=timing.names, default=["numpy", *timing.FRAMEWORKS])
    parser.add_argument("--cases", type=int, default=100_000, help="for each backend and part")
    parser.add_argument("--minutes", type=float, default=60.0, help="the longest that a part may take on a backend")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", type=timing.names, default=["geometry", "threads", "forks", "commands", "files"])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        part, name = options.child
        print(json.dumps(parts()[part](name, options.cases, options.seed)))
        return
    table, failed = Table("part", "backend", "tried", "lost", "seconds"), []
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {_SECONDS: str(60 * options.minutes), "XDG_CACHE_HOME": cache}
        for part, name in plan(options.backends, options.parts):
            command = [sys.executable, str(Path(__file__).absolute()), "--cases", str(options.cases)]
            command += ["--seed", str(options.seed), "--child", part, name]
            start = time.perf_counter()
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            try:
                tried, lost = json.loads(done.stdout.splitlines()[-1])
            except (IndexError, ValueError):
                tried, lost = 0, [f"{part} {name}: exit {done.returncode}: {done.stderr[-1000:]}"]
            table.add_row(part, name, str(tried), str(len(lost)), f"{time.perf_counter() - start:.0f}")
            failed += lost
            timing.progress.print(f"{part} {name}: {tried} tried, {len(lost)} lost")
    timing.console.print(table)
    for each in failed[:50]:
        timing.console.print(each, markup=False, highlight=False, soft_wrap=True)
    timing.console.print("lost: nothing" if not failed else f"lost: {len(failed)}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
