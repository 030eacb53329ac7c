"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside `path`, of the same suffix, for a file or a folder; it replaces `path` if the block succeeds, or
    vanishes."""
    part = path.absolute().parent / f".convlab-{uuid.uuid4().hex}{path.suffix.lower()}"
    try:
        yield part
        os.replace(part, path)
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
