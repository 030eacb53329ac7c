"""A report as one page to look at, which needs nothing beside itself: no network, no fonts, no scripts."""

from __future__ import annotations

import base64
import html
import math
import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from importlib.resources import files

import numpy as np

from .run import Cell, Failure, Report
from .suite import TIERS

_EXPLAINED = {
    "exact": "Integers, and sums that the dtype holds: every result is the very number.",
    "bounded": "Any finite values: every element lies within the bound.",
    "learned": "A kernel learned by gradient descent: it and every loss lie within the bounds of that descent.",
    "reproducible": "With reproducible=True: the same bits on every backend, whatever the values.",
}
_BITS = ("exact", "reproducible")
_QUANTITIES = ("result", "gradient of X", "gradient of K", "gradient of bias")  # and then all others

# Errors in bounds are coloured in steps up to and including these; then come all finite ones, and infinity.
_EDGES = (0.25, 0.5, 1.0, 2.0, 10.0, 100.0, 1000.0, float(np.finfo(np.float64).max))
_LABELS = ("≤ ¼", "≤ ½", "≤ 1", "≤ 2", "≤ 10", "≤ 100", "≤ 1000", "> 1000", "∞")
_AGREE = 3
_APART = 2  # bounds: two right results, one on either side of the exact one
# Ever darker, or ever brighter in the dark: the order survives every kind of colour blindness, and a grey printer.
# Blue agrees and orange doesn't, which nearly everybody tells apart.
_LIGHT = ("eaf2fb", "d4e5f7", "b4d1f0", "fbb961", "f2933a", "dc6a1c", "9a3412", "6b1a1a", "2e0714")
_DARK = ("16263b", "1c3757", "244a77", "96520f", "bd6c17", "e58b3c", "f6b06a", "fdd9ae", "fff7ec")
_PIXELS, _LONGEST = 90 * 90, 512

_ICONS = {
    "good": "M5 13l5 5L20 7",
    "bad": "M6 6l12 12M18 6L6 18",
    "unsure": "M12 4v10M12 19v.5",
}
_WORDS = {"good": "Agreement", "bad": "Disagreement", "unsure": "Incomplete"}
_FAVICON = {"good": "%2315803d", "bad": "%23b91c1c", "unsure": "%23a16207"}


def render(report: Report) -> str:
    """The page, as HTML to be written in UTF-8; the same report gives the same page."""
    kind, sentence = _verdict(report)
    sections = (_header(report, kind, sentence), "<main>", _matrix(report), _tiers(report), _failures(report))
    icon = f"<svg xmlns='http://www.w3.org/2000/svg'><circle r='50%' cx='50%' cy='50%' fill='{_FAVICON[kind]}'/></svg>"
    # Should markup slip into the page in spite of all: it may load nothing and run nothing.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>convlab parity: {_text(sentence)}</title>",
        f'<link rel="icon" href="data:image/svg+xml,{icon}">',
        f"<style>\n{_style()}</style>\n</head>\n<body>",
    )
    return "\n".join((*head, *filter(None, sections), _backends(report), _again(report), "</main>\n</body>\n</html>\n"))


def _text(text: str) -> str:
    """Text as HTML; what HTML can't hold, or a terminal would obey, becomes a replacement character."""
    return html.escape(re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text))


def _cut(text: str, length: int = 4000) -> str:
    return text if len(text) <= length else f"{text[:length].rstrip()} …"


def _code(command: str) -> str:
    return f'<pre class="command"><code>{_text(command)}</code></pre>'


def _number(error: float) -> str:
    """An error in bounds, short; never "1.00" for one that is beyond the bound.

    >>> [_number(error) for error in (0.0, 0.001, 0.131, 1.0, 1.0001, 12.34, 4321.0, 123456.0, np.inf)]
    ['0', '< 0.01', '0.13', '1.00', '1.01', '12.3', '4321', '1.2e5', '∞']
    """
    if not math.isfinite(error):
        return "∞"
    if error < 0.01:
        return "< 0.01" if error else "0"
    if error < 10:
        return f"{max(error, 1.01) if error > 1 else error:.2f}"
    return f"{error:.1f}" if error < 100 else f"{error:.0f}" if error < 1e4 else f"{error:.1e}".replace("e+0", "e")


def _names(names: Iterable[str]) -> str:
    """Names as one says them.

    >>> _names(["torch", "mxnet", "jax"])
    'torch, mxnet and jax'
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _step(error: float) -> int:
    return int(np.searchsorted(_EDGES, error))


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
        sentences.append(f"{_names(sorted(report.failed))} could not be tested.")
    return "bad" if report.wrong else "unsure", " ".join(sentences) or "No backend could be tested."


def _disagreement(report: Report) -> str:
    wrong = {name: tally for name, tally in _tallies(report).items() if tally.failed}
    total = sum(tally.trials for tally in wrong.values())
    bits = {tier in _BITS for (tier, _, _), cell in report.cells.items() if cell.failed}
    how = "wrong" if len(bits) > 1 else "not equal bit for bit" if True in bits else "off by more than rounding allows"
    subject = f"{_names(wrong)} {'disagrees' if len(wrong) == 1 else 'disagree'}" if wrong else "Backends disagree"
    return f"{subject}: {report.wrong:,} of {_count(total, 'result')} {'is' if report.wrong == 1 else 'are'} {how}."


def _first_line(reason: str) -> str:
    line = _cut((reason.strip().splitlines() or ["for no known reason"])[0], 160)
    return line if line.endswith((".", "!", "?", "…")) else f"{line}."


def _header(report: Report, kind: str, sentence: str) -> str:
    results = sum(cell.trials for cell in report.cells.values())
    facts = {
        "trials": f"{report.trials:,}",
        "results": f"{results:,}",
        "wrong": f"{report.wrong:,}",
        "seconds": f"{report.seconds:,.1f}",
        "seed": str(report.seed),
    }
    others = sorted(set(report.versions) - set(report.failed))
    more = []
    if kind == "unsure" and others:
        more.append(f"{_names(others)} {'agree' if len(others) > 1 else 'computes what it should'}.")
    more += [f"Not installed here, and so not tested: {_names(sorted(report.absent))}."] if report.absent else []
    lines = (
        f'<header class="verdict {kind}">\n<div class="inner">',
        f'<p class="eyebrow"><span>convlab parity</span><span class="badge">{_icon(kind)}{_WORDS[kind]}</span></p>',
        f"<h1>{_text(sentence)}</h1>",
        f'<p class="more">{_text(" ".join(more))}</p>' if more else "",
        "<dl>" + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items()) + "</dl>",
        '<p><a href="#failures">See what failed</a></p>' if report.failures else "",
        "</div>\n</header>",
    )
    return "\n".join(filter(None, lines))


def _icon(kind: str) -> str:
    return f'<svg class="icon {kind}" viewBox="0 0 24 24" aria-hidden="true"><path d="{_ICONS[kind]}"/></svg>'


# Tables.


def _table(name: str, head: Sequence[str], rows: Iterable[str]) -> str:
    """A table in a box of its own that scrolls; rows are complete elements, the head is HTML."""
    columns = "".join(f'<th scope="col">{each}</th>' if each else "<td></td>" for each in head)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{_text(name)}">\n<table>\n'
        f"<thead><tr>{columns}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody>\n</table>\n</div>"
    )


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
        f'<tr><th scope="row">{_text(a)}</th>' + "".join(_pair(a, b, worst.get((a, b))) for b in names) + "</tr>"
        for a in names
    )
    table = _table("How far backends are from each other", ("", *map(_text, names)), rows)
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
    return f'<td class="s{_step(error)}{own}">{mark}{_number(error)}</td>'


def _legend() -> str:
    steps = [f'<li class="s{step}">{label}</li>' for step, label in enumerate(_LABELS)]
    return (
        '<div class="legend">\n<p class="measure">One <dfn>bound</dfn> is how far rounding alone may take a result, '
        "computed from the data: up to 1 is agreement. Two backends on either side of the exact result can be up to "
        f"{_APART} apart; ✗ marks what rounding can’t explain.</p>\n"
        f'<div class="scales"><div><p>✓ within the bound</p><ol>{"".join(steps[:_AGREE])}</ol></div>'
        f"<div><p>beyond the bound</p><ol>{''.join(steps[_AGREE:])}</ol></div></div>\n</div>"
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
        f'<tr><th scope="row">{_text(name)}</th>'
        + "".join(_result(tier, mine.get((name, quantity))) for quantity in quantities)
        + "</tr>"
        for name in names
    )
    table = _table(f"Tier {tier}", ("backend", *map(_text, quantities)), rows)
    return f"<section>\n<h3>{_text(tier)}</h3>\n<p>{_text(_EXPLAINED.get(tier, ''))}</p>\n{table}\n</section>"


def _result(tier: str, cell: Cell | None) -> str:
    if cell is None:
        return '<td class="none">–</td>'
    kind, mark = ("bad", "✗") if cell.failed else ("good", "✓")
    if tier in _BITS:
        what = f"of {cell.trials:,} differ" if cell.failed else "equal bit for bit"
        return f'<td class="{kind}"><b>{mark} {cell.failed or cell.trials:,}</b> <small>{what}</small></td>'
    width = f"{100 * min(cell.worst, 1.0) if math.isfinite(cell.worst) else 100:.0f}%"
    bar = f'<span class="bar" aria-hidden="true"><i style="width:{width}"></i></span>'
    failed = f"{cell.failed:,} of {cell.trials:,} failed" if cell.failed else _count(cell.trials, "trial")
    return f'<td class="{kind}"><span class="worst"><b>{mark} {_number(cell.worst)}</b> {failed}</span>{bar}</td>'


def _backends(report: Report) -> str:
    tallies = _tallies(report)
    answered = set(tallies) | set(report.versions)
    rows = [_row(report, name, tallies.get(name, Cell())) for name in sorted(answered - set(report.failed))]
    rows += [_row(report, name, tallies.get(name, Cell())) for name in sorted(report.failed)]
    rows += [
        f'<tr class="absent"><th scope="row">{_text(name)}</th><td>not installed</td>'
        f'<td colspan="2" class="long">{_text(_cut(reason))}</td></tr>'
        for name, reason in sorted(report.absent.items())
    ]
    table = _table("Backends and versions", ("backend", "state", "results", "versions"), rows)
    return f'<section id="backends">\n<h2>Who took part</h2>\n{table}\n</section>'


def _row(report: Report, name: str, tally: Cell) -> str:
    """A backend that was started."""
    versions = "".join(f"<li>{_text(of)} {_text(each)}</li>" for of, each in report.versions.get(name, {}).items())
    versions = f'<ul class="versions">{versions}</ul>' if versions else ""
    start = f'<th scope="row">{_text(name)}</th>'
    if name in report.failed:
        reason = f'<td colspan="2" class="long">{_text(_cut(report.failed[name]))}{versions}</td>'
        state = "stopped" if name in report.versions else "not tested"
        return f'<tr class="failed">{start}<td><b>✗ {state}</b></td>{reason}</tr>'
    state = '<td class="bad"><b>✗ disagrees</b></td>' if tally.failed else '<td class="good"><b>✓ agrees</b></td>'
    wrong = f", {tally.failed:,} wrong" if tally.failed else ""
    return f"<tr>{start}{state}<td>{tally.trials:,}{wrong}</td><td>{versions}</td></tr>"


def _again(report: Report) -> str:
    return f'<section id="again">\n<h2>Make this report again</h2>\n{_code(report.command)}\n</section>'


# Failures.


def _failures(report: Report) -> str:
    if not report.wrong:
        return ""
    hidden = report.wrong - len(report.failures)
    rest = f"{_count(hidden, 'more wrong result')} {'is' if hidden == 1 else 'are'} not shown."
    more = f'<p class="measure">{rest}</p>' if hidden > 0 else ""
    cards = "\n".join(_card(failure) for failure in report.failures)
    return f'<section id="failures">\n<h2>What failed</h2>\n{more}\n<div class="cards">\n{cards}\n</div>\n</section>'


def _card(failure: Failure) -> str:
    worst = "not equal bit for bit" if failure.tier in _BITS else f"worst error {_number(failure.worst)} bounds"
    lines = (
        '<article class="card">',
        f"<h3>{_icon('bad')}<span>{_text(failure.backend)} · {_text(failure.quantity)}</span></h3>",
        f'<p class="place"><b>{_text(failure.trial)}</b>',
        f"<span>tier {_text(failure.tier)}</span><span>{worst}</span></p>",
        f'<p class="message">{_text(_cut(failure.message))}</p>',
        "" if failure.image is None or not failure.image.size else _figure(np.atleast_2d(failure.image)),
        f'<p class="label">To see it again</p>\n{_code(failure.command)}',
        "</article>",
    )
    return "\n".join(filter(None, lines))


def _figure(image: np.ndarray) -> str:
    """Errors in bounds, as a picture."""
    rows, columns = image.shape
    small, block = _smaller(image)
    steps = np.searchsorted(_EDGES, small)
    wrong = int((~(image <= 1)).sum())
    size = f"{_count(rows, 'row')} × {_count(columns, 'column')}"
    merged = f", each pixel the worst of {block} × {block}" if block > 1 else ""
    alt = f"Errors of {rows} by {columns} elements; {wrong:,} of {image.size:,} are beyond the bound."
    height, width = steps.shape
    zoom = max(min(300 // max(height, width), 32), min(-(-8 // min(height, width)), 2400 // max(height, width)), 1)
    light, dark = (_data(steps, palette) for palette in (_LIGHT, _DARK))
    key = [f'<i class="s{step}"></i>' for step in range(len(_LABELS))]
    return (
        '<figure>\n<div class="picture" role="region" tabindex="0" aria-label="Picture of the errors"><picture>'
        f'<source media="screen and (prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{alt}" width="{width * zoom}" height="{height * zoom}"></picture></div>\n'
        f"<figcaption><span>{size}{merged}</span><span>{wrong:,} beyond the bound</span>"
        f'<span class="key">0{"".join(key[:_AGREE])}1{"".join(key[_AGREE:])}∞ bounds</span></figcaption>\n</figure>'
    )


def _smaller(image: np.ndarray) -> tuple[np.ndarray, int]:
    """The largest of each square block, and the side of the blocks: so that the picture has few enough pixels."""
    rows, columns = image.shape
    block = 1
    while max(rows, columns) > _LONGEST * block or -(-rows // block) * -(-columns // block) > _PIXELS:
        block += 1
    image = np.maximum.reduceat(image, np.arange(0, rows, block), axis=0)
    return np.maximum.reduceat(image, np.arange(0, columns, block), axis=1), block


def _data(steps: np.ndarray, palette: tuple[str, ...]) -> str:
    colours = np.array([tuple(bytes.fromhex(colour)) for colour in palette], np.uint8)
    return "data:image/png;base64," + base64.b64encode(_png(colours[steps])).decode()


def _png(pixels: np.ndarray) -> bytes:
    """Rows by columns by red, green and blue, 8 bits each, as a PNG file."""
    height, width, _ = pixels.shape
    lines = np.hstack((np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)))  # each begins with its filter
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _style() -> str:
    def scale(palette: tuple[str, ...]) -> str:
        return ":root{" + "".join(f"--s{i}:#{c};--t{i}:#{_ink(c)};" for i, c in enumerate(palette)) + "}"

    steps = "".join(f".s{i}{{background:var(--s{i});color:var(--t{i})}}" for i in range(len(_LIGHT)))
    dark = f"@media screen and (prefers-color-scheme:dark){{{scale(_DARK)}}}"
    sheet = files(__package__).joinpath("report.css").read_text("utf-8")
    return "\n".join((scale(_LIGHT), dark, sheet + steps, ""))


def _ink(colour: str) -> str:
    """Black or white, whichever has more contrast on a colour."""
    red, green, blue = (((part / 255 + 0.055) / 1.055) ** 2.4 for part in bytes.fromhex(colour))
    return "101010" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else "ffffff"
