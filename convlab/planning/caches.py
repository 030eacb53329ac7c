"""Caches of decisions that depend on the table of costs: they are emptied when the table changes."""

from __future__ import annotations

from collections.abc import Callable

_CLEAR: list[Callable[[], object]] = []


def cleared_with_costs(clear: Callable[[], object]) -> None:
    """Call `clear`, which empties a cache, whenever the table of costs may have changed."""
    _CLEAR.append(clear)


def forget_costs() -> None:
    """Read the table again, and decide everything anew, when it is needed next."""
    for clear in _CLEAR:
        clear()
