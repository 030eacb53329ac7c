"""`Comparison`: what `convlab.compare` found, and its verdict in words."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...page import page
from .proof import Row
from .results import Results

LONE = "the layer"
_PARTS = {True: "differs alone", False: "PARTS"}


@dataclass(eq=False)
class Comparison:
    """Two models, layer by layer.

    Attributes:
        backends: whose they are.
        rows: the pairs of layers, in order.
        structure: what doesn't fit in how they are made up; "" if all does.
        whole: whether every layer was compared, one after another; else only those with weights, each by itself.
        untold: what wasn't compared by itself: layers, parameters and operations, by path, with notes.
        wholes: how far each model, called as a whole, is from its layers one after another: 0 for the same bits,
            otherwise in bounds carried through all layers. Empty if not `whole`, or if a pair of layers parts.
        results: if not all layers could be paired one after another, how the models' results for whole images compare;
            None if that wasn't tried.
        partial: why only parts were asked for; "" for whole models.
    """

    backends: tuple[str, str]
    rows: list[Row]
    structure: str = ""
    whole: bool = True
    untold: dict[str, str] = field(default_factory=dict)
    wholes: tuple[float, ...] = ()
    results: Results | None = None
    partial: str = ""

    @property
    def same(self) -> bool | None:
        """Whether they compute the same: True only where whole models were compared, by all of their layers one after
        another or by their results; None where only parts were, and no difference was found.
        """
        ratio = self.results.ratio if self.results else None
        if max(self.wholes, default=0.0) > 1 or (ratio is not None and ratio > 1):
            return False
        if ratio is None:
            if self.first is not None or (self.structure and not self.results):
                return False
            return True if self.whole and not self.structure else None
        return None if self.structure or self.first is not None else True

    @property
    def first(self) -> Row | None:
        """The first pair of layers that part, other than by what may stand elsewhere in the models."""
        return next((row for row in self.rows if not row.same and not row.elsewhere), None)

    def __bool__(self) -> bool:
        return self.same is True

    def __str__(self) -> str:

        return text(self)


def text(found: Comparison) -> str:
    """A line for each pair of layers, and the verdict."""
    head = (*found.backends, "layer", "result", "gradients", "")
    agrees = "same" if found.whole else "agrees"
    rows = [
        (row.a or "-", row.b or "-", row.kind, *_errors(row), agrees if row.same else _PARTS[row.elsewhere])
        for row in found.rows
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in (head, *rows))
    return "\n".join([*lines, *verdict(found)])


def _errors(row: Row) -> tuple[str, str]:
    """b's worst errors in bounds: of results, and of gradients, where those were looked at."""
    gradients = any(name.startswith("gradient") for name in row.errors)
    return page.number(row.worst("result")), page.number(row.worst("gradient")) if gradients else ""


def verdict(found: Comparison) -> list[str]:
    """Whether they compute the same; if not, where they part, why, and what differs in what they say of themselves."""
    results = found.results
    if found.same is True:
        return ["They compute the same.", *_how(found)]
    if found.same is None:
        return [f"Only parts were compared, and no difference was found: {_why_partial(found)}.", *_alone(found)]
    if (row := found.first) is not None:
        a, b = (f"{path or LONE} ({name})" for path, name in zip((row.a, row.b), found.backends, strict=True))
        differences = [f"What they say of themselves differs in {'; '.join(row.differences)}."]
        return [f"They part at {a} and {b}.", row.diagnosis, *(differences if row.differences else [])]
    if found.structure:
        return [f"They aren't made up alike: {found.structure}."]
    for error, which in zip(found.wholes, ("first", "second"), strict=False):
        if error > 1:
            return [
                f"Their layers compute the same, but the {which} model as a whole isn't its layers one after another."
            ]
    assert results is not None
    apart = results.reason or f"the results are {page.number(results.ratio or 0.0)} tolerances apart"
    first = "Each layer with weights agrees by itself, but the models as wholes don't give the same results."
    return [first, f"On images of {_shapes(results)} {apart}.", *_alone(found)]


def _how(found: Comparison) -> list[str]:
    """How whole models were compared, if not layer by layer."""
    if found.results is None:
        return []
    sentence = f"The results of the whole models agree on images of {_shapes(found.results)}"
    return [f"{sentence}, within what rounding makes of them.", *_alone(found)]


def _why_partial(found: Comparison) -> str:
    if found.partial:
        return found.partial
    if found.results is None or found.results.ratio is None:
        reason = found.results.reason if found.results else "some of the first model wasn't looked at"
        return f"the models as wholes weren't, for {reason.partition(' Hint:')[0].rstrip('.')}"
    if found.structure:
        return f"the results agree on images of {_shapes(found.results)}, but {found.structure}"
    row = found.first
    assert row is not None
    return (
        f"the results agree on images of {_shapes(found.results)}, but {row.a or LONE} and {row.b or LONE} alone "
        f"differ ({row.diagnosis})"
    )


def _alone(found: Comparison) -> list[str]:
    """What layers by themselves do differently, which the models may make up for."""
    return [
        f"By themselves {row.a or LONE} and {row.b or LONE} differ in {'; '.join(row.differences)}."
        for row in found.rows
        if row.elsewhere and not row.same
    ]


def _shapes(results: Results) -> str:
    return page.listed(dict.fromkeys("x".join(map(str, shape)) for shape in results.shapes))
