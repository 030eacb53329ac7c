"""What the sources of all frameworks have in common."""

from __future__ import annotations

from ...errors import UnsupportedError
from ..layers.reading import Part


def unwritten(part: Part, framework: str) -> UnsupportedError:
    """The error for a layer that has no source in a framework."""
    kind = getattr(part.native, "__name__", type(part.native).__name__)
    return UnsupportedError(
        f"{part.path or 'the layer'}: got {kind}, which convlab can't write as source of {framework}.",
        hint="convlab.save keeps the model in a file, layers and weights.",
    )
