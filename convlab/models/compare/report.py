"""A comparison as text, as JSON and as a page."""

from __future__ import annotations

from typing import Any

from ...page import page
from .comparison import LONE, Comparison, verdict
from .proof import Row

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
    """A page, as `convlab.page.page` makes them; a and b are what to call the models."""
    kind, word = VERDICTS[found.same]
    sentence, *more = verdict(found)
    facts = {
        "layers": f"{len(found.rows)}",
        "part": f"{sum(not row.same and not row.elsewhere for row in found.rows)}",
        "images": f"{max((len(row.sizes) for row in found.rows), default=0)}",
    }
    again = f'<section id="again">\n<h2>Make this report again</h2>\n{page.code(command)}\n</section>'
    sections = (_layers(found, a, b), _parted(found), _untold(found), again)
    body = "\n".join(filter(None, sections))
    return page.document("convlab compare", kind, word, sentence, " ".join(more[1:]), facts, body)


def _layers(found: Comparison, a: str, b: str) -> str:
    quantities = list(dict.fromkeys(name for row in found.rows for name in row.errors))
    rows = (
        f'<tr><th scope="row">{page.text(row.a or LONE)}</th><td>{page.text(row.b or LONE)}</td><td>{row.kind}</td>'
        + "".join(_cell(row.errors.get(name)) for name in quantities)
        + "</tr>"
        for row in found.rows
    )
    head = (*(f"{page.text(name)} ({each})" for name, each in zip((a, b), found.backends, strict=True)), "layer")
    table = page.table("Errors layer by layer", (*head, *map(page.text, quantities)), rows)
    return (
        '<section id="layers">\n<h2>Layer by layer</h2>\n<p class="measure">The second model’s worst error against '
        "what the first one’s layer says it computes, in rounding bounds: up to 1 is agreement.</p>\n"
        f"{table}\n</section>"
    )


def _cell(error: float | None) -> str:
    if error is None:
        return '<td class="none">–</td>'
    return f'<td class="s{page.step(error)}">{"✗ " if error > 1 else ""}{page.number(error)}</td>'


def _parted(found: Comparison) -> str:
    cards = "\n".join(_card(row) for row in found.rows if not row.same)
    title = "<h2>Where they part</h2>"
    return f'<section id="failures">\n{title}\n<div class="cards">\n{cards}\n</div>\n</section>' if cards else ""


def _card(row: Row) -> str:
    differences = "; ".join(row.differences)
    lines = (
        '<article class="card">',
        f"<h3>{page.icon('bad')}<span>{page.text(row.a or LONE)} · {page.text(row.b or LONE)}</span></h3>",
        f'<p class="place"><span>{row.kind}</span></p>',
        f'<p class="message">{page.text(page.cut(row.diagnosis))}</p>',
        f'<p class="message">They say of themselves: {page.text(page.cut(differences))}</p>' if differences else "",
        page.figure(row.image) if row.image is not None else "",
        "</article>",
    )
    return "\n".join(filter(None, lines))


def _untold(found: Comparison) -> str:
    if not found.untold:
        return ""
    compared = found.results is not None and found.results.ratio is not None
    title = "Compared within the whole" if compared else "Not compared"
    rows = (
        f'<tr><th scope="row">{page.text(path)}</th><td class="long">{page.text(note)}</td></tr>'
        for path, note in found.untold.items()
    )
    table = page.table(f"{title}, not by itself", ("layer", "what it is"), rows)
    return f'<section id="untold">\n<h2>{title}</h2>\n{table}\n</section>'
