"""Several results of a Keras model, as a part of its graph; a functional model itself says which they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import layers as kl

from convlab.models.layers.outputs import container_of


class Outputs(kl.Layer):  # type: ignore[misc]
    """Tensors as the results of a model, in lists, and in dictionaries where they have names; no model has it."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        super().__init__(autocast=False)
        self.names = tuple(names)

    def call(self, values: Sequence[Any]) -> Any:
        """The results."""
        return container_of(values, self.names, list)
