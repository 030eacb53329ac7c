"""Arrays that a model's own code takes, and no layer of its framework's: a scale, a class token, positions."""

from __future__ import annotations

from ...errors import ModelError
from .attention import ClassToken, PositionEmbedding
from .norms import ChannelAffine

# What code computes with one array alone, whose path the layer then has.
OF_ONE_ARRAY = (ChannelAffine, ClassToken, PositionEmbedding)


def other_numbers(path: str, hint: str) -> ModelError:
    """The error of numbers for a layer of which a model's code computes its own, or holds them itself."""
    return ModelError(
        f"{path}: got other numbers than those that the model's code computes, expected the same.", hint=hint
    )
