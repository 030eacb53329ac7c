"""The two models of a comparison, and how they are run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...errors import ConvlabError, ModelError
from ...page.page import listed
from ..adapters import Arrays, Models, as_arrays, as_input
from ..layers.inputs import Batch
from ..layers.layer import Dropout
from ..layers.outputs import in_rows
from ..layers.reading import Model, ending_with, is_chain, without
from ..layers.spatial import shapes_in_words
from ..layers.steps import Step


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two models of a comparison.

    Attributes:
        models: what its framework's adapter can do with models.
        model: the model, as it was read.
        steps: the steps of it that are compared.
    """

    models: Models
    model: Model
    steps: Sequence[Step]

    @property
    def dtype(self) -> str:
        """The dtype of the first step that has arrays."""
        return next((step.dtype for step in self.steps if any(layer.arrays for layer in step.layers)), "float32")

    def run(self, batch: Batch, dtype: str) -> np.ndarray:
        """The whole model's result for a batch, several in rows: see `results` and `convlab.models.layers.outputs`."""
        return in_rows(as_input(self.results(batch, dtype)))

    def results(self, batch: Batch, dtype: str) -> Arrays:
        """The whole model's results for a batch, or for its images one by one if it takes no batch of this length.

        Raises:
            ModelError: it can't be run.
        """
        native, given = [self.model.native], self._given(batch)
        try:
            try:
                return as_arrays(self.models.run(native, as_input(given), dtype))
            except ConvlabError:
                raise
            except Exception:  # The model may insist on batches of one length.
                if len(given[0]) == 1:
                    raise
                one_by_one = (as_input(tuple(x[i : i + 1] for x in given)) for i in range(len(given[0])))
                each = [as_arrays(self.models.run(native, x, dtype)) for x in one_by_one]
                return tuple(map(np.concatenate, zip(*each, strict=True)))
        except Exception as error:  # The framework or the model's own code may raise any error.
            shapes = listed([str(x.shape[1:]) for x in given])
            raise ModelError(
                f"the {self.model.backend} model can't be run on images of shape {shapes}: {first_line(error)}.",
                hint=f"give inputs=, {shapes_in_words(self.model.rank)} that it takes; other arguments need defaults.",
            ) from error

    def _given(self, batch: Batch) -> Arrays:
        """The arrays of a batch in the order of the model's inputs, which are not known of each model."""
        known = batch.keys() >= self.model.inputs.keys()
        return tuple(batch[value] for value in self.model.inputs) if known else tuple(batch.values())

    def in_parts(self) -> Side:
        """The same model, which is run layer by layer."""
        return _InParts(self.models, self.model, self.steps)

    def up_to(self, value: str) -> Side:
        """The model up to the part that gives a value, run as this one is."""
        inputs = {value: None} if value in self.model.inputs else self.model.inputs
        return replace(self, model=replace(self.model, parts=ending_with(self.model.parts, value), inputs=inputs))

    def run_parts(self, batch: Batch, dtype: str) -> Arrays:
        """The results of the model's layers, called by themselves."""
        parts = without(self.model.parts, lambda part: isinstance(part.layer, Dropout))
        if is_chain(parts):
            return as_arrays(self.models.run([part.native for part in parts], as_input(self._given(batch)), dtype))
        values: dict[str, Any] = dict(batch)
        left = Counter(value for part in parts for value in part.inputs)
        for part in parts:
            inputs = tuple(map(values.__getitem__, part.inputs))
            values[part.value] = self.models.run([part.native], as_input(inputs), dtype)
            left.subtract(part.inputs)
            for value in {*part.inputs}:
                if not left[value]:
                    del values[value]
        return as_arrays(values[parts[-1].value])


class _InParts(Side):
    def results(self, batch: Batch, dtype: str) -> Arrays:
        """See `Side.run_parts`."""
        return self.run_parts(batch, dtype)


def first_line(error: Exception) -> str:
    """An error's class and the first line of its message."""
    message = (str(error).strip().splitlines() or [""])[0][:270].rstrip(".")
    return f"{type(error).__name__}: {message}"
