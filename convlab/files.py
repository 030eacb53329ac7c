"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

_DOUBLE = (".weights.h5",)  # Keras insists on both


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside `path`, of the same suffix, for a file or a folder; it replaces `path` if the block succeeds, or
    vanishes."""
    name = path.name.lower()
    suffix = next((each for each in _DOUBLE if name.endswith(each)), path.suffix.lower())
    part = path.absolute().parent / f".convlab-{uuid.uuid4().hex}{suffix}"
    try:
        yield part
        os.replace(part, path)
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
