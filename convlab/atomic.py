"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from .errors import CaseFileError

_DOUBLE = (".weights.h5",)  # Keras insists on both


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside `path`, of the same suffix, for a file or a folder; it replaces `path` if the block succeeds, or
    vanishes.
    """
    path = Path(os.path.realpath(path))  # a link stays one
    name = path.name.lower()
    suffix = next((each for each in _DOUBLE if name.endswith(each)), path.suffix.lower())
    part = path.absolute().parent / f".convlab-{uuid.uuid4().hex}{suffix}"
    try:
        yield part
        if path.is_file():
            shutil.copymode(path, part)
        os.replace(part, path)
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """A text file, whole."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def check_writable(*paths: Path | None) -> None:
    """Before anything is computed: whether reports can be written to these places."""
    given = [path.absolute() for path in paths if path is not None]
    for path in given:
        if not path.parent.is_dir() or path.is_dir():
            raise CaseFileError(f"{path}: can't be written there.", hint="give a file in a folder that exists.")
    if len(set(given)) < len(given):
        raise CaseFileError(f"{given[0]}: got one file for two reports, expected two.", hint="name another one.")
