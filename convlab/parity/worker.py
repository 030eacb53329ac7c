"""A worker of `convlab parity`: `python -m convlab.parity.worker jax` computes what it is asked for on JAX.

It needs nothing but convlab, NumPy and its framework, so that it runs in whatever environment has those.
"""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

import numpy as np

import convlab

from ..testing.tasks import compute_task
from .wire import receive, send


def serve(name: str) -> None:
    """Answer requests from stdin on stdout until stdin ends."""
    # Frameworks may print to stdout, so the pipe of the answers gets another file descriptor.
    answers, requests = os.fdopen(os.dup(1), "wb"), os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)
    try:
        lab = convlab.backend(name)
        send(answers, _hello(lab))
    except Exception as error:
        send(answers, {"error": str(error), "kind": type(error).__name__})
        return
    while True:
        try:
            request, arrays = receive(requests)
        except EOFError:
            return
        try:
            result = compute_task(lab, request, arrays)
        except Exception as error:
            send(answers, {"error": f"{type(error).__name__}: {error}", "kind": _kind(error)})
        else:
            send(answers, {}, result)


def _kind(error: Exception) -> str:
    """The name of the error's class; each framework has its own way to say that there is no memory left."""
    signs = ("out of memory", "can't allocate memory", "resource_exhausted", "resource exhausted", "bad_alloc", "oom")
    text = f"{type(error).__name__} {error}".lower()
    return "MemoryError" if any(sign in text for sign in signs) else type(error).__name__


def _hello(lab: convlab.Backend) -> dict[str, Any]:
    versions = {
        lab.adapter.frameworks[0]: lab.version,
        "numpy": np.__version__,
        "convlab": convlab.__version__,
        "python": platform.python_version(),
    }
    facts = lab.adapter
    return {"hello": lab.name, "dtypes": facts.dtypes, "autograd": facts.autograd, "versions": versions}


if __name__ == "__main__":
    serve(sys.argv[1])
