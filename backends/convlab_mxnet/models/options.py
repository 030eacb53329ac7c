"""What reading and building gluon's layers have in common."""

from __future__ import annotations

from typing import Any, TypeAlias

from convlab.models.files.mxnet.operators import ACTIVATIONS, LAYOUTS, MODES, dropout, rounds_alike

__all__ = ["ACTIVATIONS", "LAYOUTS", "MODES", "Block", "dropout", "rounds_alike", "value_of"]

Block: TypeAlias = Any  # mx.gluon.Block, of which mypy knows nothing


def value_of(parameter: Any) -> Any:
    """A parameter's array, on the first of its devices."""
    return parameter.data(parameter.list_ctx()[0])
