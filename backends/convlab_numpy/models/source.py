"""NumPy's layer as source."""

from __future__ import annotations

from collections.abc import Sequence

from convlab.geometry.geometry import Pair
from convlab.models.layers.inputs import ONE_IMAGE, Inputs
from convlab.models.layers.reading import Part
from convlab.models.source.code import formatted
from convlab.models.source.layers import ours


def source(parts: Sequence[Part], size: Pair | None, inputs: Inputs = ONE_IMAGE) -> str:
    """See `convlab.models.adapters.Models`; a model for NumPy is a lone layer."""
    (part,) = parts
    lines = formatted(f"model = {ours(part.native.spec, 'Conv2D')}", 0)
    return "\n".join(["from convlab.numpy import Conv2D", "", *lines, ""])
