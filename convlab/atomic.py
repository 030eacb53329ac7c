"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from .errors import CaseFileError

# Suffixes of two parts, on both of which Keras insists.
_DOUBLE = (".weights.h5",)


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside `path`, of the same suffix, for a file or a folder.

    If the block succeeds, what it wrote there replaces `path`; else it is removed.
    """
    # A link isn't replaced, but the file that it leads to.
    path = Path(os.path.realpath(path))
    name = path.name.lower()
    suffix = next((double for double in _DOUBLE if name.endswith(double)), path.suffix.lower())
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
    """Write a text file that appears whole or not at all."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def check_writable(*paths: Path | None) -> None:
    """Raise `CaseFileError` unless reports can be written to these places: a check before anything is computed."""
    places = [path.absolute() for path in paths if path is not None]
    for place in places:
        if not place.parent.is_dir() or place.is_dir():
            raise CaseFileError(
                f"{place}: a report can't be written there.", hint="give a file in a folder that exists."
            )
    if len(set(places)) < len(places):
        raise CaseFileError(f"{places[0]}: got one file for two reports, expected two.", hint="name another one.")
