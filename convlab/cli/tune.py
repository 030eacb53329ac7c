"""`convlab tune`: which variant wins where."""

from __future__ import annotations

from rich.table import Table

from ..correlation.measure import square_workload
from ..lab import Backend
from ..planning.execute import choose

_SHOWN_IMAGES, _SHOWN_KERNELS = (64, 256, 1024, 4096), (3, 5, 7, 15, 31, 63)


def winners(lab: Backend) -> Table:
    """The planned algorithm and its predicted milliseconds for square one-channel images."""
    table = Table(
        "image",
        *(f"{k}x{k}" for k in _SHOWN_KERNELS),
        title=f"{lab.name}: the fastest variant, predicted ms",
        title_justify="left",
    )
    for n in _SHOWN_IMAGES:
        cells = []
        for k in _SHOWN_KERNELS:
            workload, rule, first, second = square_workload("y", (1, 1, n, n), 1, 1, k)
            choice = choose(lab.ops, rule, first, second, workload.dtype, "eager")
            cells.append(f"{choice.variant} {1e3 * choice.costs[choice.variant]:.2g}")
        table.add_row(f"{n}²", *cells)
    return table
