"""NumPy's side of the contract, which is the core's own reference (`convlab.reference`)."""

from __future__ import annotations

from convlab.reference import ops

__all__ = ["ops"]
