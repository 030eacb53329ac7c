"""Models of so many layers that Keras, which calls itself once for each, goes deeper than Python allows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deep_enough(layers: int) -> Iterator[None]:
    """A context in which Keras may connect a model of so many layers, one behind another."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + 2 * layers)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
