"""Frameworks' own files, looked at before their frameworks believe them: none may claim more than it holds."""

from __future__ import annotations

import importlib
import zipfile
from pathlib import Path
from typing import Any

from .mxnet_params import check_params_file


def check_claimed_sizes(path: Path, suffix: str) -> None:
    """Go through a file's lengths, where its framework doesn't itself.

    Raises:
        ModelFileError: they don't add up.
        ValueError, OSError: it claims more than it holds, or names other files.
    """
    if suffix == ".params":
        check_params_file(path)
    elif suffix in (".pt", ".pth") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            _fits(path, sum(each.file_size for each in file.infolist()))
    elif suffix == ".weights.h5":
        with importlib.import_module("h5py").File(path, "r") as file:
            _fits(path, _claimed(file))


def _claimed(group: Any, seen: set[int] | None = None) -> int:
    """How many bytes the arrays of an HDF5 group have; a group that is in two places is refused."""
    seen = set() if seen is None else seen
    if hash(group.id) in seen or len(seen) > 100_000:
        raise ValueError("a group is in two places, or there are too many")
    seen.add(hash(group.id))
    h5py, claimed = importlib.import_module("h5py"), 0
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name!r} is a link to elsewhere")
        found = group[name]
        if isinstance(found, h5py.Group):
            claimed += _claimed(found, seen)
        elif found.external or found.is_virtual:
            raise ValueError(f"{name!r} is in another file")
        else:
            claimed += found.nbytes
    return claimed


def _fits(path: Path, claimed: int) -> None:
    size = path.stat().st_size
    if claimed > size:
        raise ValueError(f"it claims {claimed} bytes of numbers and has {size}")
