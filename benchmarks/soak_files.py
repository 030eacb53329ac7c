"""The part "files" of soak.py: files that were damaged on purpose.

Mutations follow from a seed and a number alone, so that an attempt can be repeated. Attempts are made in processes of
their own, with an alarm and a limit on memory; one that ends a process is counted, and the next goes on behind it.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timing

import convlab
from convlab.cli.places import array_of
from convlab.errors import ConvlabError
from convlab.images.photographs import read_image, write_image
from convlab.models.adapters import models_of
from convlab.parity.archive import read_case, write_arrays

_DEADLINE = time.monotonic() + float(os.environ.get("SOAK_SECONDS", 1e9))
_ALARM = 30  # seconds that one attempt may take
_MEMORY = 2**31  # bytes that a process may take beyond what its framework has
_BATCH = 500


def mutated(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Bytes damaged in one to four places: flipped, cut out, repeated, spliced, or a number changed."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if not changed:
            break
        # Half of the places are at an end, where headers and directories are.
        edge = int(rng.integers(0, min(len(changed), 200)))
        at = [int(rng.integers(0, len(changed))), edge, len(changed) - 1 - edge][int(rng.choice([0, 0, 1, 2]))]
        length = int(rng.integers(1, 2 ** int(rng.integers(1, 10))))
        how = int(rng.integers(0, 6))
        if how == 0:
            changed[at] ^= 1 << int(rng.integers(0, 8))
        elif how == 1:
            changed[at : at + length] = b""
        elif how == 2:
            changed[at:at] = changed[at : at + length] * int(rng.integers(1, 8))
        elif how == 3:
            start = int(rng.integers(0, len(other)))
            changed[at : at + length] = other[start : start + length]
        elif how == 4:
            del changed[at:]
        else:
            value = [0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1][int(rng.integers(0, 6))]
            number = re.search(rb"\d+", changed[at:])
            if number and rng.random() < 0.7:
                changed[at + number.start() : at + number.end()] = str(value).encode()
            else:
                changed[at : at + 8] = value.to_bytes(8, "little")
    return bytes(changed)


def _damaged(source: Path, other: Path, target: Path, rng: np.random.Generator) -> None:
    """A damaged copy; in half of the archives and PNGs, with checksums that are right."""
    if source.is_dir():
        shutil.copytree(source, target)
        inner = [each for each in sorted(target.rglob("*")) if each.is_file()]
        victim = inner[int(rng.integers(0, len(inner)))]
        victim.write_bytes(mutated(victim.read_bytes() or b"\0", victim.read_bytes() or b"\0", rng))
        return
    data, spliced = source.read_bytes(), other.read_bytes() if other.is_file() else b"\0"
    if zipfile.is_zipfile(source) and rng.random() < 0.5:
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
            victim_name = str(rng.choice(old.namelist()))
            for each in old.namelist():
                content = old.read(each)
                new.writestr(each, mutated(content or b"\0", spliced, rng) if each == victim_name else content)
        return
    changed = mutated(data, spliced, rng)
    target.write_bytes(_checked(changed) if source.suffix == ".png" and rng.random() < 0.5 else changed)


def _checked(png: bytes) -> bytes:
    """A PNG whose chunks have the checksums that they should have, as far as they can be followed."""
    changed, at = bytearray(png), 8
    while at + 12 <= len(changed):
        end = at + 8 + int.from_bytes(changed[at : at + 4], "big")
        changed[end : end + 4] = (
            zlib.crc32(changed[at + 4 : end]).to_bytes(4, "big") if end + 4 <= len(changed) else b""
        )
        at = end + 4
    return bytes(changed)


def _originals(folder: Path, name: str) -> dict[str, Callable[[Path], Any]]:
    """Valid files written into a folder, and what reads each."""
    from PIL import Image

    lab, rng = timing.lab_of(name), np.random.default_rng(0)
    convlab.save(convlab.backend("numpy").Conv2D(3, out_channels=4, in_channels=2, seed=0), folder / "a.safetensors")
    readers: dict[str, Callable[[Path], Any]] = {"a.safetensors": lambda path: convlab.load(path, backend=name)}
    if lab.adapter.models:
        layer = convlab.load(folder / "a.safetensors", backend=name)
        for suffix in models_of(name).FILES:
            convlab.save(layer, folder / f"own{suffix}")
            readers[f"own{suffix}"] = lambda path: convlab.load(path, into=layer)
    x = rng.standard_normal((8, 9)).astype(np.float32)
    (folder / "case.npz").write_bytes(
        write_arrays({"X": x, "K": x[:2, :2], "stride": np.array(2), "padding": np.array("same")})
    )
    readers["case.npz"] = read_case
    np.save(folder / "images.npy", x)
    readers["images.npy"] = array_of
    pictures = {"grey.png": (12, 15), "colour.png": (12, 15, 3), "colour.tif": (12, 15, 3), "colour.jpg": (12, 15, 3)}
    for each, shape in pictures.items():
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(folder / each)
        readers[each] = read_image
    write_image(folder / "deep.png", rng.integers(0, 2**16, (12, 15, 3), np.uint16))
    readers["deep.png"] = read_image

    def learn(path: Path) -> Any:
        return lab.learn_kernel(
            lab.asarray(x), lab.asarray(x[1:, 1:]), 2, seed=0, lr=1e-2, num_steps=6, checkpoint=path
        )

    learn(folder / "run.safetensors")
    return readers | {"run.safetensors": learn}


def files(name: str, cases: int, seed: int) -> tuple[int, list[str]]:
    """Damaged files: each loads or raises a ConvlabError, in bounded time and memory."""
    tried, lost = 0, []
    while tried < cases and time.monotonic() < _DEADLINE:
        last = min(tried + _BATCH, cases)
        with tempfile.TemporaryDirectory() as scratch:
            command = [sys.executable, __file__, name, str(seed), str(tried), str(last), scratch]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            log = Path(scratch, "log")
            lines = log.read_text().splitlines() if log.exists() else []
        lost += [f"{name} {line[5:]}" for line in lines if line.startswith("lost ")]
        begun = [line[6:] for line in lines if line.startswith("begin ")]
        tried += len(begun)
        if done.returncode:
            lost.append(f"{name} {begun[-1] if begun else 'start'}: exit {done.returncode}: {done.stderr[-300:]}")
            if not begun:
                break
    return tried, lost


def _batch(name: str, seed: int, first: int, last: int, folder: Path) -> None:
    """Attempts from a number to another one; each is in the log before it is made."""
    originals = folder / "originals"
    originals.mkdir()
    readers = _originals(originals, name)
    names = sorted(readers)
    for each in names:  # whatever a reader loads at its first call is there before memory is limited
        shutil.copy(originals / each, folder) if (originals / each).is_file() else None
        readers[each](originals / each if (originals / each).is_dir() else folder / each)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + _MEMORY, resource.RLIM_INFINITY))
    with (folder / "log").open("w", buffering=1) as log:
        for number in range(first, last):
            if time.monotonic() > _DEADLINE:
                return
            rng = np.random.default_rng((seed, number))
            source, other = (str(each) for each in rng.choice(names, 2))
            target = folder / f"{number}-{source}"
            _damaged(originals / source, originals / other, target, rng)
            log.write(f"begin {source} {number}\n")
            signal.alarm(_ALARM)
            try:
                readers[source](target)
            except ConvlabError:
                pass
            except BaseException as error:
                log.write(f"lost {source} {number}: {' '.join(repr(error).split())[:300]}\n")
            signal.alarm(0)
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)


if __name__ == "__main__":
    _batch(sys.argv[1], *map(int, sys.argv[2:5]), Path(sys.argv[5]))
