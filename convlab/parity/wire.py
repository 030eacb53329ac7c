r"""How `convlab parity` talks to its workers: JSON and `.npz` over pipes. No pickles.

A message is one line, then JSON, then an `.npz` (which may be empty):

    convlab-worker <version> <bytes of JSON> <bytes of npz>\n

The worker begins: {"hello": its backend, "dtypes": […], "autograd": bool, "versions": {…}}, or {"error": why not,
"kind": the error's class}. Each request {"task": "forward" | "gradients" | "learn", "dtype": …, "options": {…},
"function": "corr2d" | "conv2d"} with its arrays (X, K, perhaps bias; dY; or X, Y, init) gets one answer: {} with the
results (result; gradient of X, of K, of bias; or kernel, losses), or {"error": …, "kind": …}, "MemoryError" for want of
memory. End of input is the end of the worker. Whatever changes in this is a new version; there is no talk between two.
"""

from __future__ import annotations

import io
import json
from typing import IO, Any

import numpy as np

from ..errors import ConvlabError
from .archive import LARGEST, read_arrays, write_arrays

VERSION = 1
_NAME = b"convlab-worker"
_LINE = 100


class WireError(ConvlabError):
    """The pipe brought something else than a message of this version."""


def send(stream: IO[bytes], message: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> None:
    """Write one message."""
    content, archive = json.dumps(message).encode(), write_arrays(arrays) if arrays else b""
    stream.write(b"%s %d %d %d\n%s%s" % (_NAME, VERSION, len(content), len(archive), content, archive))
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read one message.

    Raises:
        EOFError: the stream ends here.
        WireError: it is no message, or one of another version.
    """
    line = stream.readline(_LINE)
    if not line:
        raise EOFError("the pipe ended")
    words = line.split()
    if len(words) != 4 or words[0] != _NAME or not all(word.isdigit() for word in words[1:]):
        raise WireError(f"worker: got {line!r}, expected a message.", hint="is it convlab's worker?")
    version, content, archive = (int(word) for word in words[1:])
    if version != VERSION:
        raise WireError(
            f"worker: it speaks version {version}, expected {VERSION}.", hint="install the same convlab on both sides."
        )
    if content + archive > 2 * LARGEST:
        raise WireError(
            f"worker: got a message of {content + archive} bytes, expected at most {2 * LARGEST}.",
            hint="is it damaged?",
        )
    try:
        message = json.loads(_exactly(stream, content))
    except ValueError as error:
        raise WireError(f"worker: got JSON that can't be read ({error}).", hint="is it convlab's worker?") from None
    if not isinstance(message, dict):
        raise WireError(f"worker: got {type(message).__name__}, expected an object.", hint="is it convlab's worker?")
    return message, read_arrays(io.BytesIO(_exactly(stream, archive)), "worker") if archive else {}


def _exactly(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError("the pipe ended within a message")
    return content
