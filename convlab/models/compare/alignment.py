"""Which steps of two graphs belong together, and which only one of the graphs has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import permutations
from typing import NamedTuple

from ..layers.joining import COMMUTATIVE
from ..layers.steps import Step
from .pairing import fingerprint, path_words

_MOST_ORDERS = 6
# What it costs that steps without a partner begin, less than any likeness.
_GAP = 0.25


class Beside(NamedTuple):
    """A step of the first model beside that of the second one; None where that model has none."""

    mine: Step | None
    theirs: Step | None


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
        arrays = [array for name in main.arrays if (array := getattr(main, name)) is not None]
        names = [each.name for each in fields(main) if each.compare]  # type: ignore[arg-type]
        options = [getattr(main, name) for name in names if name not in main.arrays]
        shapes, contents = tuple(array.shape for array in arrays), tuple(map(fingerprint, arrays))
        return cls(main.kind, len(step.inputs), shapes, hash(contents), repr(options), path_words(step))

    def likeness(self, other: _Profile) -> float:
        """How well two steps go together; 0 if they don't. One without weights may stand for any other of these."""
        if self.kind != other.kind:
            return 0.0 if self.shapes or other.shapes or self.inputs != other.inputs else 0.5
        same = self.shapes == other.shapes, self.options == other.options, self.words == other.words
        return 1.0 + sum(same) + 2.0 * self.has_weights_of(other)

    def has_weights_of(self, other: _Profile) -> bool:
        """Whether both have the same weights, and have any."""
        return bool(self.shapes) and (self.kind, self.arrays) == (other.kind, other.arrays)


class Alignment:
    """The steps of two graphs, and which of them belong together.

    They are laid side by side in the graphs' orders so that as much as possible is alike. Then steps with equal weights
    are brought together wherever they stand, and steps that take the same values: an input that is another one, or
    inputs that are swapped, change the order of a whole graph.
    """

    def __init__(self, first: Sequence[Step], second: Sequence[Step]) -> None:
        self.first, self.second = ({step.value: step for step in steps} for steps in (first, second))
        self._profiles = [{step.value: _Profile.of(step) for step in steps} for steps in (first, second)]
        # The values of steps that belong together, from the first model to the second, and back.
        self._theirs: dict[str, str] = {}
        self._mine: dict[str, str] = {}
        for mine, theirs in self._in_order():
            self._pair(mine, theirs)
        self._bring_weights_together()
        self._bring_inputs_together()

    def sequence(self) -> Iterator[Beside]:
        """All steps: in the first model's order, each that only the second one has behind what stands before it."""
        alone: dict[str, list[Step]] = {}
        last = ""
        for value, step in self.second.items():
            last = self._mine.get(value, last)
            if value not in self._mine:
                alone.setdefault(last, []).append(step)
        yield from (Beside(None, step) for step in alone.get("", []))
        for value, step in self.first.items():
            yield Beside(step, self.second.get(self._theirs.get(value, "")))
            yield from (Beside(None, other) for other in alone.get(value, []))

    def counterpart(self, value: str) -> Step | None:
        """The step of the first model that belongs to the second model's step with this result."""
        return self.first.get(self._mine.get(value, ""))

    def agree(self, mine: Step, theirs: Step) -> bool:
        """Whether two steps take the same values; in any order where that doesn't matter."""
        in_order = self.take_the_same(mine.inputs, theirs.inputs)
        return in_order or (isinstance(mine.main, COMMUTATIVE) and self.swapped(mine, theirs))

    def swapped(self, mine: Step, theirs: Step) -> bool:
        """Whether two steps take the same values in some order."""
        few = len(mine.inputs) == len(theirs.inputs) <= _MOST_ORDERS
        return few and any(self.take_the_same(mine.inputs, order) for order in permutations(theirs.inputs))

    def take_the_same(self, mine: Sequence[str], theirs: Sequence[str]) -> bool:
        """Whether values may stand for each other, one by one."""
        both = zip(mine, theirs, strict=False)
        return len(mine) == len(theirs) and all(self.mine_behind(one) & self.theirs_behind(two) for one, two in both)

    def mine_behind(self, value: str) -> set[str]:
        """A value of the first model; if only that model has its step, also what that step takes, and so on back."""
        return _back(value, self.first, self._theirs) - {""}

    def theirs_behind(self, value: str) -> set[str]:
        """The values of the first model for which one of the second model stands, likewise."""
        behind = _back(value, self.second, self._mine)
        return {self._mine.get(each, "" if each in self.second else each) for each in behind} - {""}

    def _in_order(self) -> Iterator[tuple[str, str]]:
        """Pairs in the order of both graphs, of the most likeness.

        It is the best alignment of two sequences (Needleman and Wunsch, J. Mol. Biol. 48, 1970), where steps without a
        partner should stand together.
        """
        mine, theirs = ([*profiles.items()] for profiles in self._profiles)
        if [profile.kind for _, profile in mine] == [profile.kind for _, profile in theirs]:
            yield from zip(self.first, self.second, strict=True)
            return
        likeness = [[one.likeness(two) for _, two in theirs] for _, one in mine]
        # The most likeness of what stands from step i and step j on, behind a pair and behind a step without a partner.
        after_pair, after_gap = ([[0.0] * (len(theirs) + 1) for _ in range(len(mine) + 1)] for _ in range(2))
        for i in reversed(range(len(mine))):
            for j in reversed(range(len(theirs))):
                pair = likeness[i][j] + after_pair[i + 1][j + 1]
                gap = max(after_gap[i + 1][j], after_gap[i][j + 1])
                after_pair[i][j], after_gap[i][j] = max(pair, gap - _GAP), max(pair, gap)
        i = j = 0
        best = after_pair
        while i < len(mine) and j < len(theirs):
            if likeness[i][j] and best[i][j] == likeness[i][j] + after_pair[i + 1][j + 1]:
                yield mine[i][0], theirs[j][0]
                i, j, best = i + 1, j + 1, after_pair
            elif after_gap[i + 1][j] >= after_gap[i][j + 1]:
                i, best = i + 1, after_gap
            else:
                j, best = j + 1, after_gap

    def _bring_weights_together(self) -> None:
        """Pair steps of equal weights, where neither has a partner of equal weights already."""
        mine, theirs = self._profiles

        def lacks(value: str | None, other: str | None) -> bool:
            return value is None or other is None or not mine[value].has_weights_of(theirs[other])

        free = [value for value in theirs if lacks(self._mine.get(value), value)]
        for value, profile in mine.items():
            if lacks(value, self._theirs.get(value)):
                equal = next((other for other in free if profile.has_weights_of(theirs[other])), None)
                if equal is not None:
                    self._exchange(value, equal)
                    free.remove(equal)

    def _bring_inputs_together(self) -> None:
        """Pair steps of a kind that take the same values and compute the same, where neither has a partner as good."""
        mine, theirs = self._profiles

        def fits(value: str | None, other: str | None) -> int:
            if value is None or other is None or not self.agree(self.first[value], self.second[other]):
                return 0
            return 1 + (mine[value].options == theirs[other].options)

        for value, profile in mine.items():
            other = self._theirs.get(value)
            now = fits(value, other)
            if now == 2 or (other is not None and profile.shapes):
                continue
            alike = [each for each, theirs_ in theirs.items() if _same_kind(profile, theirs_)]
            able = [each for each in alike if fits(value, each) > max(now, fits(self._mine.get(each), each))]
            if able:
                self._exchange(value, max(able, key=lambda each: (fits(value, each), profile.likeness(theirs[each]))))

    def _pair(self, mine: str, theirs: str) -> None:
        self._theirs[mine], self._mine[theirs] = theirs, mine

    def _exchange(self, mine: str, theirs: str) -> None:
        """Pair two steps, and what they were paired with, if that is of a kind."""
        theirs_before, mine_before = self._theirs.pop(mine, None), self._mine.pop(theirs, None)
        if theirs_before is not None:
            del self._mine[theirs_before]
        if mine_before is not None:
            del self._theirs[mine_before]
        self._pair(mine, theirs)
        if mine_before is None or theirs_before is None:
            return
        if _same_kind(self._profiles[0][mine_before], self._profiles[1][theirs_before]):
            self._pair(mine_before, theirs_before)


def _same_kind(a: _Profile, b: _Profile) -> bool:
    return (a.kind, a.shapes) == (b.kind, b.shapes)


def _back(value: str, steps: Mapping[str, Step], paired: Mapping[str, str]) -> set[str]:
    """A value, and of steps without a partner also what they take."""
    values: set[str] = set()
    stack = [value]
    while stack:
        each = stack.pop()
        if each not in values:
            values.add(each)
            stack += steps[each].inputs if each in steps and each not in paired else ()
    return values
