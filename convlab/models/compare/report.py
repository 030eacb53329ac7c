"""A comparison as JSON and as a page; `report.html` is the page's template."""

from __future__ import annotations

from typing import Any

from ...page.page import picture, render_page
from .comparison import LONE, Comparison, verdict

VERDICTS = {True: ("good", "Agreement"), False: ("bad", "Disagreement"), None: ("unsure", "Only parts compared")}


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """The comparison in JSON's types; infinite errors are null."""
    ratio = None if comparison.results is None else comparison.results.ratio
    return {
        "same": comparison.same,
        "whole": comparison.whole,
        "backends": list(comparison.backends),
        "verdict": verdict(comparison),
        "untold": comparison.uncompared,
        "results": None if ratio is None else _finite(ratio),
        "wholes": [_finite(error) for error in comparison.whole_model_errors],
        "layers": [
            {
                "a": row.a,
                "b": row.b,
                "kind": row.kind,
                "same": row.same,
                "only_in": row.only_in,
                "sizes": row.sizes,
                "errors_of_a": {name: _finite(error) for name, error in row.own.items()},
                "errors_of_b": {name: _finite(error) for name, error in row.errors.items()},
                "diagnosis": row.diagnosis,
                "differences": [*row.differences.values()],
            }
            for row in comparison.rows
        ],
    }


def _finite(error: float) -> float | None:
    return None if error == float("inf") else error


def comparison_page(comparison: Comparison, a: str, b: str, command: str) -> str:
    """A page, as HTML to be written in UTF-8; a and b are what to call the models."""
    kind, word = VERDICTS[comparison.same]
    sentence, *more = verdict(comparison)
    different = [row for row in comparison.rows if not row.same]
    return render_page(
        "models/compare/report.html",
        program="convlab compare",
        kind=kind,
        word=word,
        sentence=sentence,
        more="" if comparison.same is False and comparison.first else " ".join(more),
        facts={
            "layers": f"{len(comparison.rows)}",
            "diverge": f"{sum(not row.elsewhere for row in different)}",
            "images": f"{max((len(row.sizes) for row in comparison.rows), default=0)}",
        },
        failures=[(row, None if row.image is None else picture(row.image)) for row in different],
        comparison=comparison,
        models=[f"{name} ({backend})" for name, backend in zip((a, b), comparison.backends, strict=True)],
        quantities=list(dict.fromkeys(name for row in comparison.rows for name in row.errors)),
        lone=LONE,
        command=command,
    )
