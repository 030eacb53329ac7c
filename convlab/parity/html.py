"""The page of a parity report; `report.html` is its template."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ..page.page import Picture, counted, cut, listed, picture, render_page
from ..testing.trials import TIERS
from .run import Cell, Failure, Report

_PROMISES = {
    "exact": "Integers whose sums the dtype holds: every result must be exactly the right number.",
    "bounded": "Any finite values: the error of every element must be within its rounding bound.",
    "learned": "A kernel learned by gradient descent: it and every loss must be within the bounds of that descent.",
    "reproducible": "With reproducible=True: every backend must give the same bits, whatever the values.",
}
_BITS = ("exact", "reproducible")
# The first quantities of each table, in their order.
_QUANTITIES = ("result", "gradient of X", "gradient of K", "gradient of bias")
# The most bounds between two right results, one on either side of the exact one.
_APART = 2
_WORDS = {"good": "Agreement", "bad": "Disagreement", "unsure": "Incomplete"}


class Tier(NamedTuple):
    """One table of results.

    Attributes:
        name: of the tier.
        promise: what was promised of its results.
        bits: whether that is the same bits.
        backends, quantities: the heads of its rows and of its columns.
        cells: the results by backend and quantity.
    """

    name: str
    promise: str
    bits: bool
    backends: list[str]
    quantities: list[str]
    cells: dict[tuple[str, str], Cell]


class Card(NamedTuple):
    """One wrong result: whether its bits had to be right, and the picture of its errors, if there is one."""

    failure: Failure
    bits: bool
    picture: Picture | None


def parity_page(report: Report) -> str:
    """The page, as HTML to be written in UTF-8; the same report gives the same page."""
    kind, sentence = _verdict(report)
    tallies = _tallies(report)
    return render_page(
        "parity/report.html",
        program="convlab parity",
        kind=kind,
        word=_WORDS[kind],
        sentence=sentence,
        more=_more(report, kind),
        facts=_facts(report),
        failures=report.wrong > 0,
        report=report,
        names=sorted({name for pair in report.pairs for name in pair} | set(report.versions)),
        worst=_worst_differences(report),
        apart=_APART,
        tiers=list(_tiers(report)),
        cards=[_card(failure) for failure in report.failures],
        hidden=report.wrong - len(report.failures),
        tallies={name: tallies.get(name, Cell()) for name in (*tallies, *report.versions)},
        finished=sorted((set(tallies) | set(report.versions)) - set(report.failed)),
    )


def _tallies(report: Report) -> dict[str, Cell]:
    """All of a backend's results in one cell."""
    tallies: dict[str, Cell] = {}
    for (_, backend, _), cell in sorted(report.cells.items()):
        tally = tallies.setdefault(backend, Cell())
        tally.trials += cell.trials
        tally.failed += cell.failed
    return tallies


def _verdict(report: Report) -> tuple[str, str]:
    """The kind of the verdict, which has an icon and a colour, and a sentence."""
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
        sentences.append(f"{listed(sorted(report.failed))} could not be tested.")
    return "bad" if report.wrong else "unsure", " ".join(sentences) or "No backend could be tested."


def _disagreement(report: Report) -> str:
    wrong = {name: tally for name, tally in _tallies(report).items() if tally.failed}
    total = sum(tally.trials for tally in wrong.values())
    bits = {tier in _BITS for (tier, _, _), cell in report.cells.items() if cell.failed}
    how = "wrong" if len(bits) > 1 else "not equal bit for bit" if True in bits else "off by more than rounding allows"
    subject = f"{listed(wrong)} {'disagrees' if len(wrong) == 1 else 'disagree'}" if wrong else "Backends disagree"
    return f"{subject}: {report.wrong:,} of {counted(total, 'result')} {'is' if report.wrong == 1 else 'are'} {how}."


def _first_line(reason: str) -> str:
    line = cut((reason.strip().splitlines() or ["for no known reason"])[0], 160)
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
    """What to say beside the verdict: who agrees all the same, and who isn't here."""
    others, sentences = sorted(set(report.versions) - set(report.failed)), []
    if kind == "unsure" and others:
        sentences.append(f"{listed(others)} {'agree' if len(others) > 1 else 'computes what it should'}.")
    if report.absent:
        sentences.append(f"Not installed here, and so not tested: {listed(sorted(report.absent))}.")
    return " ".join(sentences)


def _worst_differences(report: Report) -> dict[tuple[str, str], float]:
    """The worst difference between two backends, in bounds; of a backend and itself, its worst error."""
    worst = {pair: error for (a, b), error in report.pairs.items() for pair in ((a, b), (b, a))}
    for (tier, backend, _), cell in report.cells.items():
        if tier == "bounded":
            worst[backend, backend] = max(worst.get((backend, backend), 0.0), cell.worst)
    return worst


def _tiers(report: Report) -> Iterable[Tier]:
    """The tables of the tiers that have results, the known tiers first."""
    for name in dict.fromkeys((*TIERS, *sorted(tier for tier, _, _ in report.cells))):
        cells = {(backend, quantity): cell for (tier, backend, quantity), cell in report.cells.items() if tier == name}
        if cells:
            unordered = {quantity for _, quantity in cells}
            quantities = [each for each in _QUANTITIES if each in unordered] + sorted(unordered - {*_QUANTITIES})
            backends = sorted({backend for backend, _ in cells})
            yield Tier(name, _PROMISES.get(name, ""), name in _BITS, backends, quantities, cells)


def _card(failure: Failure) -> Card:
    bits = failure.tier in _BITS
    if failure.image is None or not failure.image.size:
        return Card(failure, bits, None)
    return Card(failure, bits, picture(np.atleast_2d(failure.image)))
