"""What measures a backend on a processor of which convlab has no table: code that stands above this room."""

from __future__ import annotations

from collections.abc import Callable

# For each variant, part and kind three constants in seconds, as `convlab.planning.costs` has them.
Measured = dict[str, tuple[float, float, float]]
# Computes the table of a backend in a few seconds, by its name.
MEASURE: list[Callable[[str], Measured]] = []


def measure_with(measure: Callable[[str], Measured]) -> None:
    """Use a function to measure a backend where convlab has no table."""
    MEASURE[:] = [measure]
