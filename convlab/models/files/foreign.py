"""Checks of the frameworks' own files, before the frameworks read them: none may claim more than it holds."""

from __future__ import annotations

import importlib
import zipfile
from pathlib import Path
from typing import Any

from .mxnet.params import check_params_file


def check_claimed_sizes(path: Path, suffix: str) -> None:
    """Check the lengths in a file, where its framework doesn't check them itself.

    Raises:
        ModelFileError: the lengths don't add up.
        ValueError: the file claims more than it holds, or names other files.
        OSError: the file can't be read.
    """
    if suffix == ".params":
        check_params_file(path)
    elif suffix in (".pt", ".pth") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            _fits(path, sum(member.file_size for member in file.infolist()))
    elif suffix == ".weights.h5":
        with importlib.import_module("h5py").File(path, "r") as file:
            _fits(path, _claimed(file))


def _claimed(group: Any, groups: set[int] | None = None) -> int:
    """The number of bytes of an HDF5 group's arrays; a group that is in two places is refused."""
    groups = set() if groups is None else groups
    if hash(group.id) in groups or len(groups) > 100_000:
        raise ValueError("a group is in two places, or there are too many")
    groups.add(hash(group.id))
    h5py, claimed = importlib.import_module("h5py"), 0
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name!r} is a link to elsewhere")
        member = group[name]
        if isinstance(member, h5py.Group):
            claimed += _claimed(member, groups)
        elif member.external or member.is_virtual:
            raise ValueError(f"{name!r} is in another file")
        else:
            claimed += member.nbytes
    return claimed


def _fits(path: Path, claimed: int) -> None:
    size = path.stat().st_size
    if claimed > size:
        raise ValueError(f"it claims {claimed} bytes of numbers and has {size}")
