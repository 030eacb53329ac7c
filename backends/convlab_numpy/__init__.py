"""convlab on NumPy: plain, readable, computed in float64. The oracle that the other backends are tested against."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convlab.reference import adapter

__all__ = ["adapter"]

if TYPE_CHECKING:
    from convlab.lab import Backend

    from .layers import Conv2D as _Conv2D

    class _Lab(Backend):
        Conv2D: type[_Conv2D]

    lab: _Lab
