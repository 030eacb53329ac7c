"""A comparison as text, as JSON and as a page."""

from __future__ import annotations

from typing import Any

from ...page.page import picture, render_page
from .comparison import LONE, Comparison, verdict

VERDICTS = {True: ("good", "Agreement"), False: ("bad", "Disagreement"), None: ("unsure", "Only parts compared")}


def as_dict(found: Comparison) -> dict[str, Any]:
    """What JSON can hold of a comparison; infinite errors are null."""
    return {
        "same": found.same,
        "whole": found.whole,
        "backends": list(found.backends),
        "verdict": verdict(found),
        "untold": found.untold,
        "results": None if found.results is None or found.results.ratio is None else _finite(found.results.ratio),
        "wholes": [_finite(each) for each in found.wholes],
        "layers": [
            {
                "a": row.a,
                "b": row.b,
                "kind": row.kind,
                "same": row.same,
                "sizes": row.sizes,
                "errors_of_a": {name: _finite(each) for name, each in row.own.items()},
                "errors_of_b": {name: _finite(each) for name, each in row.errors.items()},
                "diagnosis": row.diagnosis,
                "differences": row.differences,
            }
            for row in found.rows
        ],
    }


def _finite(error: float) -> float | None:
    return None if error == float("inf") else error


def comparison_page(found: Comparison, a: str, b: str, command: str) -> str:
    """A page as HTML to be written in UTF-8; a and b are what to call the models."""
    kind, word = VERDICTS[found.same]
    sentence, *more = verdict(found)
    different = [row for row in found.rows if not row.same]
    return render_page(
        "models/compare/report.html",
        program="convlab compare",
        kind=kind,
        word=word,
        sentence=sentence,
        more=" ".join(more[1:]),
        facts={
            "layers": f"{len(found.rows)}",
            "diverge": f"{sum(not row.elsewhere for row in different)}",
            "images": f"{max((len(row.sizes) for row in found.rows), default=0)}",
        },
        failures=[(row, None if row.image is None else picture(row.image)) for row in different],
        comparison=found,
        models=[f"{name} ({backend})" for name, backend in zip((a, b), found.backends, strict=True)],
        quantities=list(dict.fromkeys(name for row in found.rows for name in row.errors)),
        lone=LONE,
        command=command,
    )
