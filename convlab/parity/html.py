"""A parity report as one page to look at."""

from __future__ import annotations

import math

import numpy as np

from ..page import page
from ..testing.trials import TIERS
from .run import Cell, Failure, Report

_EXPLAINED = {
    "exact": "Integers, and sums that the dtype holds: every result is the very number.",
    "bounded": "Any finite values: every element lies within the bound.",
    "learned": "A kernel learned by gradient descent: it and every loss lie within the bounds of that descent.",
    "reproducible": "With reproducible=True: the same bits on every backend, whatever the values.",
}
_BITS = ("exact", "reproducible")
_QUANTITIES = ("result", "gradient of X", "gradient of K", "gradient of bias")  # and then all others

_APART = 2  # bounds: two right results, one on either side of the exact one
_WORDS = {"good": "Agreement", "bad": "Disagreement", "unsure": "Incomplete"}


def parity_page(report: Report) -> str:
    """The page, as HTML to be written in UTF-8; the same report gives the same page."""
    kind, sentence = _verdict(report)
    sections = (_matrix(report), _tiers(report), _failures(report), _backends(report), _again(report))
    body = "\n".join(filter(None, sections))
    return page.document("convlab parity", kind, _WORDS[kind], sentence, _more(report, kind), _facts(report), body)


# What there is to say first.


def _tallies(report: Report) -> dict[str, Cell]:
    """All of a backend's results in one cell."""
    tallies: dict[str, Cell] = {}
    for (_, backend, _), cell in sorted(report.cells.items()):
        tally = tallies.setdefault(backend, Cell())
        tally.trials += cell.trials
        tally.failed += cell.failed
    return tallies


def _verdict(report: Report) -> tuple[str, str]:
    """A kind, which has an icon and a colour, and a sentence."""
    names, sentences = sorted(report.versions), []
    if report.agreed:
        few = {1: f"{names[0]} computes what it should.", 2: "Both backends agree."}
        return "good", few.get(len(names), f"All {len(names)} backends agree.")
    if report.wrong:
        sentences.append(_disagreement(report))
    if len(report.failed) == 1:
        ((name, reason),) = report.failed.items()
        end = " to the end" if name in report.versions else ""
        sentences.append(f"{name} could not be tested{end}: {_first_line(reason)}")
    elif report.failed:
        sentences.append(f"{page.listed(sorted(report.failed))} could not be tested.")
    return "bad" if report.wrong else "unsure", " ".join(sentences) or "No backend could be tested."


def _disagreement(report: Report) -> str:
    wrong = {name: tally for name, tally in _tallies(report).items() if tally.failed}
    total = sum(tally.trials for tally in wrong.values())
    bits = {tier in _BITS for (tier, _, _), cell in report.cells.items() if cell.failed}
    how = "wrong" if len(bits) > 1 else "not equal bit for bit" if True in bits else "off by more than rounding allows"
    subject = f"{page.listed(wrong)} {'disagrees' if len(wrong) == 1 else 'disagree'}" if wrong else "Backends disagree"
    return f"{subject}: {report.wrong:,} of {page.count(total, 'result')} {'is' if report.wrong == 1 else 'are'} {how}."


def _first_line(reason: str) -> str:
    line = page.cut((reason.strip().splitlines() or ["for no known reason"])[0], 160)
    return line if line.endswith((".", "!", "?", "…")) else f"{line}."


def _facts(report: Report) -> dict[str, str]:
    return {
        "trials": f"{report.trials:,}",
        "results": f"{sum(cell.trials for cell in report.cells.values()):,}",
        "wrong": f"{report.wrong:,}",
        "seconds": f"{report.seconds:,.1f}",
        "seed": str(report.seed),
    }


def _more(report: Report, kind: str) -> str:
    others, more = sorted(set(report.versions) - set(report.failed)), []
    if kind == "unsure" and others:
        more.append(f"{page.listed(others)} {'agree' if len(others) > 1 else 'computes what it should'}.")
    more += [f"Not installed here, and so not tested: {page.listed(sorted(report.absent))}."] if report.absent else []
    return " ".join(more)


def _matrix(report: Report) -> str:
    """Backends beside backends, each cell the worst difference in bounds."""
    worst = {pair: error for (a, b), error in report.pairs.items() for pair in ((a, b), (b, a))}
    for (tier, backend, _), cell in report.cells.items():
        if tier == "bounded":
            worst[backend, backend] = max(worst.get((backend, backend), 0.0), cell.worst)
    names = sorted({name for pair in report.pairs for name in pair} | set(report.versions))  # not the user's Y
    if not names:
        return ""
    rows = (
        f'<tr><th scope="row">{page.text(a)}</th>' + "".join(_pair(a, b, worst.get((a, b))) for b in names) + "</tr>"
        for a in names
    )
    table = page.table("How far backends are from each other", ("", *map(page.text, names)), rows)
    return (
        '<section id="matrix">\n<h2>How far apart</h2>\n<p class="measure">The worst difference between the results '
        "of two backends, in rounding bounds; on the diagonal a backend’s worst error against the exact result.</p>\n"
        f'<div class="matrix">{table}\n{_legend()}</div>\n</section>'
    )


def _pair(a: str, b: str, error: float | None) -> str:
    own = " own" if a == b else ""
    if error is None:
        return f'<td class="none{own}">–</td>'
    mark = "✗ " if error > (1 if own else _APART) else ""
    return f'<td class="s{page.step(error)}{own}">{mark}{page.number(error)}</td>'


def _legend() -> str:
    steps = [f'<li class="s{step}">{label}</li>' for step, label in enumerate(page.LABELS)]
    return (
        '<div class="legend">\n<p class="measure">One <dfn>bound</dfn> is how far rounding alone may take a result, '
        "computed from the data: up to 1 is agreement. Two backends on either side of the exact result can be up to "
        f"{_APART} apart; ✗ marks what rounding can’t explain.</p>\n"
        f'<div class="scales"><div><p>✓ within the bound</p><ol>{"".join(steps[: page.AGREE])}</ol></div>'
        f"<div><p>beyond the bound</p><ol>{''.join(steps[page.AGREE :])}</ol></div></div>\n</div>"
    )


def _tiers(report: Report) -> str:
    known = dict.fromkeys((*TIERS, *sorted(tier for tier, _, _ in report.cells)))
    found = [tier for tier in known if any(tier == each for each, _, _ in report.cells)]
    if not found:
        return ""
    tables = "\n".join(_tier(report, tier) for tier in found)
    title = "<h2>What was promised, and what came</h2>"
    return f'<section id="tiers">\n{title}\n<div class="tiers">\n{tables}\n</div>\n</section>'


def _tier(report: Report, tier: str) -> str:
    mine = {(backend, quantity): cell for (each, backend, quantity), cell in report.cells.items() if each == tier}
    found, names = {quantity for _, quantity in mine}, sorted({backend for backend, _ in mine})
    quantities = [each for each in _QUANTITIES if each in found] + sorted(found - {*_QUANTITIES})
    rows = (
        f'<tr><th scope="row">{page.text(name)}</th>'
        + "".join(_result(tier, mine.get((name, quantity))) for quantity in quantities)
        + "</tr>"
        for name in names
    )
    table = page.table(f"Tier {tier}", ("backend", *map(page.text, quantities)), rows)
    return f"<section>\n<h3>{page.text(tier)}</h3>\n<p>{page.text(_EXPLAINED.get(tier, ''))}</p>\n{table}\n</section>"


def _result(tier: str, cell: Cell | None) -> str:
    if cell is None:
        return '<td class="none">–</td>'
    kind, mark = ("bad", "✗") if cell.failed else ("good", "✓")
    if tier in _BITS:
        what = f"of {cell.trials:,} differ" if cell.failed else "equal bit for bit"
        return f'<td class="{kind}"><b>{mark} {cell.failed or cell.trials:,}</b> <small>{what}</small></td>'
    width = f"{100 * min(cell.worst, 1.0) if math.isfinite(cell.worst) else 100:.0f}%"
    bar = f'<span class="bar" aria-hidden="true"><i style="width:{width}"></i></span>'
    failed = f"{cell.failed:,} of {cell.trials:,} failed" if cell.failed else page.count(cell.trials, "trial")
    return f'<td class="{kind}"><span class="worst"><b>{mark} {page.number(cell.worst)}</b> {failed}</span>{bar}</td>'


def _backends(report: Report) -> str:
    tallies = _tallies(report)
    answered = set(tallies) | set(report.versions)
    rows = [_row(report, name, tallies.get(name, Cell())) for name in sorted(answered - set(report.failed))]
    rows += [_row(report, name, tallies.get(name, Cell())) for name in sorted(report.failed)]
    rows += [
        f'<tr class="absent"><th scope="row">{page.text(name)}</th><td>not installed</td>'
        f'<td colspan="2" class="long">{page.text(page.cut(reason))}</td></tr>'
        for name, reason in sorted(report.absent.items())
    ]
    table = page.table("Backends and versions", ("backend", "state", "results", "versions"), rows)
    return f'<section id="backends">\n<h2>Who took part</h2>\n{table}\n</section>'


def _row(report: Report, name: str, tally: Cell) -> str:
    """A backend that was started."""
    versions = "".join(
        f"<li>{page.text(of)} {page.text(each)}</li>" for of, each in report.versions.get(name, {}).items()
    )
    versions = f'<ul class="versions">{versions}</ul>' if versions else ""
    start = f'<th scope="row">{page.text(name)}</th>'
    if name in report.failed:
        reason = f'<td colspan="2" class="long">{page.text(page.cut(report.failed[name]))}{versions}</td>'
        state = "stopped" if name in report.versions else "not tested"
        return f'<tr class="failed">{start}<td><b>✗ {state}</b></td>{reason}</tr>'
    state = '<td class="bad"><b>✗ disagrees</b></td>' if tally.failed else '<td class="good"><b>✓ agrees</b></td>'
    wrong = f", {tally.failed:,} wrong" if tally.failed else ""
    return f"<tr>{start}{state}<td>{tally.trials:,}{wrong}</td><td>{versions}</td></tr>"


def _again(report: Report) -> str:
    return f'<section id="again">\n<h2>Make this report again</h2>\n{page.code(report.command)}\n</section>'


# Failures.


def _failures(report: Report) -> str:
    if not report.wrong:
        return ""
    hidden = report.wrong - len(report.failures)
    rest = f"{page.count(hidden, 'more wrong result')} {'is' if hidden == 1 else 'are'} not shown."
    more = f'<p class="measure">{rest}</p>' if hidden > 0 else ""
    cards = "\n".join(_card(failure) for failure in report.failures)
    return f'<section id="failures">\n<h2>What failed</h2>\n{more}\n<div class="cards">\n{cards}\n</div>\n</section>'


def _card(failure: Failure) -> str:
    worst = "not equal bit for bit" if failure.tier in _BITS else f"worst error {page.number(failure.worst)} bounds"
    lines = (
        '<article class="card">',
        f"<h3>{page.icon('bad')}<span>{page.text(failure.backend)} · {page.text(failure.quantity)}</span></h3>",
        f'<p class="place"><b>{page.text(failure.trial)}</b>',
        f"<span>tier {page.text(failure.tier)}</span><span>{worst}</span></p>",
        f'<p class="message">{page.text(page.cut(failure.message))}</p>',
        "" if failure.image is None or not failure.image.size else page.figure(np.atleast_2d(failure.image)),
        f'<p class="label">To see it again</p>\n{page.code(failure.command)}',
        "</article>",
    )
    return "\n".join(filter(None, lines))


def _ink(colour: str) -> str:
    """Black or white, whichever has more contrast on a colour."""
    red, green, blue = (((part / 255 + 0.055) / 1.055) ** 2.4 for part in bytes.fromhex(colour))
    return "101010" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else "ffffff"
