"""The steps of two models side by side: which belong together, and which only one of the models has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import NamedTuple

import numpy as np

from ..layers.steps import Step
from .pairing import path_words


class Beside(NamedTuple):
    """A step of the first model beside that of the second one; None where that model has none."""

    mine: Step | None
    theirs: Step | None


def aligned(first: Sequence[Step], second: Sequence[Step]) -> list[Beside]:
    """Both models' steps in order, laid side by side so that as many as possible are alike.

    Where the models have the same kinds of steps in the same order, each stands beside its counterpart. Elsewhere it is
    the best alignment of two sequences (Needleman and Wunsch, J. Mol. Biol. 48, 1970), with no cost for gaps.
    """
    if [step.main.kind for step in first] == [step.main.kind for step in second]:
        return [Beside(*pair) for pair in zip(first, second, strict=True)]
    mine, theirs = ([_Profile.of(step) for step in steps] for steps in (first, second))
    likeness = [[one.likeness(two) for two in theirs] for one in mine]
    # best[i][j] is the most likeness of what stands from step i and step j on.
    best = [[0.0] * (len(theirs) + 1) for _ in range(len(mine) + 1)]
    for i in reversed(range(len(mine))):
        row, below = best[i], best[i + 1]
        for j in reversed(range(len(theirs))):
            row[j] = max(below[j], row[j + 1], likeness[i][j] + below[j + 1])
    sequence, i, j = [], 0, 0
    while i < len(mine) and j < len(theirs):
        if likeness[i][j] and best[i][j] == likeness[i][j] + best[i + 1][j + 1]:
            sequence.append(Beside(first[i], second[j]))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            sequence.append(Beside(first[i], None))
            i += 1
        else:
            sequence.append(Beside(None, second[j]))
            j += 1
    return [*sequence, *(Beside(step, None) for step in first[i:]), *(Beside(None, step) for step in second[j:])]


class _Profile(NamedTuple):
    """What tells whether steps are alike; `options` are the attributes of the main layer that aren't arrays."""

    kind: str
    inputs: int
    shapes: tuple[tuple[int, ...], ...]
    arrays: int
    options: str
    words: tuple[str, ...]

    @classmethod
    def of(cls, step: Step) -> _Profile:
        main = step.main
        arrays = [np.asarray(getattr(main, name), np.float64) for name in main.arrays if getattr(main, name) is not None]
        options = [getattr(main, each.name) for each in fields(main) if each.name not in main.arrays]  # type: ignore[arg-type]
        shapes, bytes_ = tuple(array.shape for array in arrays), tuple(array.tobytes() for array in arrays)
        return cls(main.kind, len(step.inputs), shapes, hash(bytes_), repr(options), path_words(step))

    def likeness(self, other: _Profile) -> float:
        """How well two steps go together; 0 if they don't. One without weights may stand for any other of these."""
        if self.kind != other.kind:
            return 0.0 if self.shapes or other.shapes or self.inputs != other.inputs else 0.5
        same_weights = bool(self.shapes) and self.arrays == other.arrays
        same = self.shapes == other.shapes, self.options == other.options, self.words == other.words
        return 1.0 + sum(same) + 2.0 * same_weights
