"""`Comparison`: what `convlab.compare` finds out, and its verdict in words."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...page import page
from ..layers.spatial import Size, times
from .proof import Row
from .results import Results

LONE = "the layer"
ERRORS_ARE = "errors are multiples of what rounding allows: at most 1 is agreement"
# The verdict tells of so many rows that diverge behind the first one; the table has all.
_MOST_BEHIND = 8


@dataclass(eq=False, repr=False)
class Comparison:
    """Two models, layer by layer.

    Attributes:
        backends: the two models' backends.
        rows: the pairs of layers, in order, and among them the layers that only one of the models has.
        structure: how the structures of the models differ; "" if they don't.
        whole: whether every layer was compared, one after another; else only those with weights, each by itself.
        uncompared: what wasn't compared by itself: layers, parameters and operations, by path, with notes.
        whole_model_errors: how far each model, called as a whole, is from its layers called by themselves: 0 for the
            same bits, otherwise in bounds carried through all layers; where these say nothing, in tolerances, measured
            as for `results`. Empty if not `whole`, or if a pair of layers diverges.
        results: if not all layers could be paired one after another, how the models' results for whole images compare;
            None if that wasn't tried.
        partial: why only parts were asked for; "" for whole models.
        multiple: what the rows and columns of images are multiples of, where the models' code computes with their
            sizes: see `convlab.models.layers.reading.Model`.
        size: the only rows and columns of images that it holds for, where a model was read, or ported, for these alone.
        other_order: how the order differs in which the models take inputs of the same names; "" if it doesn't.
        of_sizes: whether the images have sizes that were drawn, and a model's code computes with them.
    """

    backends: tuple[str, str]
    rows: list[Row]
    structure: str = ""
    whole: bool = True
    uncompared: dict[str, str] = field(default_factory=dict)
    whole_model_errors: tuple[float, ...] = ()
    results: Results | None = None
    partial: str = ""
    multiple: int = 1
    size: Size | None = None
    other_order: str = ""
    of_sizes: bool = False

    @property
    def same(self) -> bool | None:
        """Whether the models compute the same; None where only parts were compared, and no difference was found.

        It is True only where whole models were compared, by all of their layers one after another or by their results.
        """
        ratio = self.results.ratio if self.results else None
        if max(self.whole_model_errors, default=0.0) > 1 or (ratio is not None and ratio > 1):
            return False
        if ratio is None:
            if any(row.diverges and not row.only_in for row in self.rows) or (self.structure and not self.results):
                return False
            return True if self.whole and not self.structure else None
        return None if self.structure or self.first is not None else True

    @property
    def whole_results_compared(self) -> bool:
        """Whether the results of the whole models were compared."""
        return self.results is not None and self.results.ratio is not None

    @property
    def first(self) -> Row | None:
        """The first pair of layers that diverge, or layer that only one of the models has."""
        return next((row for row in self.rows if row.diverges), None)

    def __bool__(self) -> bool:
        return self.same is True

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return as_text(self)


def as_text(comparison: Comparison, width: int = 80) -> str:
    """A line for each pair of layers, or two where paths are long, and the verdict, wrapped between words."""
    head = (*comparison.backends, "layer", "result", "gradients", "")
    agrees = "same" if comparison.whole else "agrees"
    rows = [
        (row.a or "-", row.b or "-", row.kind, *_errors(row), agrees if row.same else _mark(row))
        for row in comparison.rows
    ]
    lines = _aligned([head, *rows])
    if max(map(len, lines)) > width:
        paths, results = [row[:2] for row in (head, *rows)], _aligned([row[2:] for row in (head, *rows)])
        lines = [line for two, rest in zip(paths, results, strict=True) for line in ("  ".join(two), f"    {rest}")]
    note = f"({ERRORS_ARE})" if rows else ""
    sentences = [line for sentence in [note, *verdict(comparison)] for line in wrapped(sentence, width)]
    return "\n".join([*lines, *sentences])


def _mark(row: Row) -> str:
    """What stands behind a row that isn't the same."""
    if row.only_in:
        return f"only in the {row.only_in}"
    return "differs by itself" if row.elsewhere else "DIVERGES"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def wrapped(text: str, width: int = 80, indent: str = "") -> list[str]:
    """The lines of a text, none longer than the width unless a word is; the indent is that of all but the first."""
    wrapper = textwrap.TextWrapper(width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return [line for paragraph in text.splitlines() for line in wrapper.wrap(paragraph)]


def _errors(row: Row) -> tuple[str, str]:
    """The second layer's worst errors in bounds: of results, and of gradients, where those were looked at."""
    if row.only_in:
        return "", ""
    gradients = any(name.startswith("gradient") for name in row.errors)
    return page.number(row.worst("result")), page.number(row.worst("gradient")) if gradients else ""


def _sizes(comparison: Comparison) -> list[str]:
    if comparison.size is not None:
        return [f"That holds for images of {times(comparison.size)} pixels alone: on others they may differ."]
    if comparison.multiple == 1:
        return []
    return [
        f"That holds for images whose rows and columns are multiples of {comparison.multiple}: the code computes with "
        "their sizes, and from others it may make something else."
    ]


def verdict(comparison: Comparison) -> list[str]:
    """Whether the models compute the same; if not, where they diverge, why, and how their attributes differ."""
    sentences = [*_verdict(comparison), *filter(None, [comparison.other_order])]
    return [*sentences, _OF_SIZES] if comparison.same is False and comparison.of_sizes else sentences


_OF_SIZES = (
    "A model's code computes with its images' sizes: if the other one is for one size alone, as convlab.port makes it "
    "with input_size=, give inputs= of that size."
)


def _verdict(comparison: Comparison) -> list[str]:
    if comparison.same is True:
        return [f"The {_subject(comparison)} compute the same results.", *_agreement(comparison), *_sizes(comparison)]
    if comparison.same is None:
        reason = _why_partial(comparison)
        return [f"Only parts were compared, and no difference was found: {reason}.", *_by_themselves(comparison)]
    row = comparison.first
    if row is not None:
        return _divergence(comparison, row)
    if comparison.structure:
        return [f"The models have different structures: {comparison.structure}."]
    for error, which in zip(comparison.whole_model_errors, ("first", "second"), strict=False):
        if error > 1:
            return [
                f"Each pair of layers agrees, but the {which} model as a whole computes something else than its layers "
                "one after another. Has it a hook, or a call of its own?"
            ]
    results = comparison.results
    assert results is not None
    times = page.number(results.ratio or 0.0)
    which = f"{results.which} differs" if results.which else "the results differ"
    apart = results.reason or f"{which} by up to {results.apart:.3g}, {times} times what rounding explains"
    return [
        "Each layer with weights agrees when compared by itself, but the whole models give different results.",
        f"On images of {_shapes(results)} {apart}.",
        *_by_themselves(comparison),
    ]


def _subject(comparison: Comparison) -> str:
    lone = comparison.rows and not any(row.a or row.b for row in comparison.rows)
    return "layers" if lone else "models"


def _called(path: str) -> str:
    return f"layer {path!r}" if path else LONE


def _divergence(comparison: Comparison, row: Row) -> list[str]:
    """Where the models diverge first and why, and what else differs behind that."""
    first, second = comparison.backends
    where = f"The outputs diverge at {_called(row.a)} ({first}) and {_called(row.b)} ({second})."
    if _subject(comparison) == "layers":
        where = f"The outputs of the two layers ({first} and {second}) differ."
    if row.only_in:
        where = "The models have different structures."
    differences = [f"{'; '.join(row.differences.values())}."] if row.differences else []
    lines = [where, *map(_sentence, [*differences, *row.diagnosis.splitlines()])]
    behind = [each for each in comparison.rows if each.diverges and each is not row]
    lines += [_sentence(_also(each)) for each in behind[:_MOST_BEHIND]]
    if len(behind) > _MOST_BEHIND:
        lines.append(f"{page.counted(len(behind) - _MOST_BEHIND, 'further row')} of the table diverge.")
    return lines


def _also(row: Row) -> str:
    """What a row says that diverges behind the first one that does."""
    if row.only_in:
        return row.diagnosis
    why = [*row.differences.values(), row.diagnosis.splitlines()[0].rstrip(".")]
    return f"{_called(row.a)} and {_called(row.b)} diverge, too: {'; '.join(why)}."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _agreement(comparison: Comparison) -> list[str]:
    """How whole models were compared, if not layer by layer."""
    if comparison.results is None:
        return []
    sentence = f"The results of the whole models agree on images of {_shapes(comparison.results)}, but for rounding."
    return [sentence, *_by_themselves(comparison)]


def _why_partial(comparison: Comparison) -> str:
    if comparison.partial:
        return comparison.partial
    results = comparison.results
    if results is None:
        return "the whole models weren't compared, because some layers of the first one weren't"
    if not comparison.whole_results_compared:
        reason = results.reason.partition(" Hint:")[0].rstrip(".")
        return f"the whole models weren't compared, because {reason}"
    if comparison.structure:
        return f"the results agree on images of {_shapes(results)}, but {comparison.structure}"
    row = comparison.first
    assert row is not None
    return (
        f"the results agree on images of {_shapes(results)}, but {_called(row.a)} and {_called(row.b)} differ when "
        f"compared by themselves ({row.diagnosis})"
    )


def _by_themselves(comparison: Comparison) -> list[str]:
    """What layers by themselves do differently, which the models may make up for."""
    return [
        f"Compared by themselves, {_called(row.a)} and {_called(row.b)} differ: {'; '.join(row.differences.values())}."
        for row in comparison.rows
        if row.elsewhere and not row.same
    ]


def _shapes(results: Results) -> str:
    return page.listed(dict.fromkeys("x".join(map(str, shape)) for shape in results.shapes))
