"""Two graphs of layers, step by step: each pair is tried on what reaches it in the first model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ...truth.precision import rounded
from ..layers.inputs import Batch
from .alignment import Alignment, Beside
from .proof import Row, RunnableStep, prove
from .sides import Side
from .wiring import only_in_one, other_inputs, swapped_inputs


def prove_in_order(first: Side, second: Side, images: Sequence[Batch], seed: int, every_size: bool = True) -> list[Row]:
    """A row for each pair of steps, and for each step that only one of the models has.

    The rows behind one that diverges don't depend on it: every pair takes what the first model's layers give by their
    definition. `every_size` is that of `prove`.
    """
    alignment, rows = Alignment(first.steps, second.steps), []
    swapped = swapped_inputs(first.steps, second.steps, [*first.model.inputs])
    values: dict[str, Sequence[np.ndarray]] = {
        value: [batch[value] for batch in images] for value in first.model.inputs
    }
    left = Counter(value for step in first.steps for value in step.inputs)
    for beside in alignment.sequence():
        mine, theirs = beside
        if mine is None or theirs is None:
            rows.append(_unpaired(alignment, beside))
        if mine is None:
            continue
        batches = [*zip(*(values[value] for value in mine.inputs), strict=True)]
        if theirs is None:
            values[mine.value] = [rounded(mine.reference(*batch), mine.dtype) for batch in batches]
        else:
            a, b = RunnableStep(first.models, mine), RunnableStep(second.models, theirs)
            row, values[mine.value] = prove(a, b, batches, seed, every_size)
            others = other_inputs(alignment, mine, theirs)
            row.diagnosis = row.diagnosis or (swapped if others and swapped else others)
            rows.append(row)
        left.subtract(mine.inputs)
        for value in {*mine.inputs, mine.value}:
            if not left[value]:
                del values[value]
    return rows


def _unpaired(alignment: Alignment, beside: Beside) -> Row:
    """The row of a step that only one of the models has."""
    step = beside.mine or beside.theirs
    assert step is not None
    only_in = "first" if beside.theirs is None else "second"
    a, b = (step.path, "") if beside.theirs is None else ("", step.path)
    return Row(a, b, step.main.kind, diagnosis=only_in_one(alignment, beside), only_in=only_in)
