"""Where compiled kernels are kept: what one process has compiled, the next one finds."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

from convlab.compiled import disk_cache

CODE = """
import numpy as np
from convlab.compiled import direct, kernels
from convlab.geometry.geometry import Geometry
x = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4)
y = kernels.correlate(x, np.ones((1, 1, 2, 2), np.float32), Geometry((2, 2)))
print(*y.ravel(), "|", sum(direct.correlate_bands.stats.cache_hits.values()))
"""
SUMS = [10, 14, 18, 26, 30, 34]


def run(folder) -> tuple[list[float], int]:
    """The sums of a process whose code is kept in a folder, and how many functions it found there."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    numbers, _, hits = done.stdout.partition("|")
    return [float(number) for number in numbers.split()], int(hits)


def test_the_next_process_finds_what_one_has_compiled(tmp_path) -> None:
    assert run(tmp_path / "kernels") == (SUMS, 0)
    (folder,) = (tmp_path / "kernels").iterdir()
    assert folder.name == disk_cache._folder().name
    assert run(tmp_path / "kernels") == (SUMS, 1)


def test_without_a_place_to_write_to_nothing_is_kept(tmp_path) -> None:
    (tmp_path / "file").touch()
    assert run(tmp_path / "file") == (SUMS, 0)
    np.testing.assert_equal((tmp_path / "file").read_bytes(), b"")
