"""Reports as one page to look at, which needs nothing beside itself: no network, no fonts, no scripts."""

from __future__ import annotations

import base64
import html
import math
import re
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files

import numpy as np

# Errors in bounds are coloured in steps up to and including these; then come all finite ones, and infinity.
EDGES = (0.25, 0.5, 1.0, 2.0, 10.0, 100.0, 1000.0, float(np.finfo(np.float64).max))
LABELS = ("≤ ¼", "≤ ½", "≤ 1", "≤ 2", "≤ 10", "≤ 100", "≤ 1000", "> 1000", "∞")
AGREE = 3
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
_FAVICON = {"good": "%2315803d", "bad": "%23b91c1c", "unsure": "%23a16207"}


def document(name: str, kind: str, word: str, sentence: str, more: str, facts: Mapping[str, str], body: str) -> str:
    """A whole page, as HTML to be written in UTF-8: a verdict, and what it rests on.

    Args:
        name: of the command that made it.
        kind: "good", "bad" or "unsure", each with its icon and colour; `word` says it in a word.
        sentence: the verdict; `more` and `facts` are what else to know at once.
        body: sections, as HTML.
    """
    icon_ = f"<svg xmlns='http://www.w3.org/2000/svg'><circle r='50%' cx='50%' cy='50%' fill='{_FAVICON[kind]}'/></svg>"
    # Should markup slip into the page in spite of all: it may load nothing and run nothing.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    figures = "".join(f"<div><dt>{fact}</dt><dd>{value}</dd></div>" for fact, value in facts.items())
    lines = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{name}: {text(sentence)}</title>",
        f'<link rel="icon" href="data:image/svg+xml,{icon_}">',
        f"<style>\n{_style()}</style>\n</head>\n<body>",
        f'<header class="verdict {kind}">\n<div class="inner">',
        f'<p class="eyebrow"><span>{name}</span><span class="badge">{icon(kind)}{word}</span></p>',
        f"<h1>{text(sentence)}</h1>",
        f'<p class="more">{text(more)}</p>' if more else "",
        f"<dl>{figures}</dl>",
        '<p><a href="#failures">See what failed</a></p>' if 'id="failures"' in body else "",
        "</div>\n</header>",
        f"<main>\n{body}\n</main>\n</body>\n</html>\n",
    )
    return "\n".join(filter(None, lines))


def text(text: str) -> str:
    """Text as HTML; what HTML can't hold, or a terminal would obey, becomes a replacement character."""
    return html.escape(re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text))


def cut(text: str, length: int = 4000) -> str:
    """A text's beginning."""
    return text if len(text) <= length else f"{text[:length].rstrip()} …"


def code(command: str) -> str:
    """A command to copy."""
    return f'<pre class="command"><code>{text(command)}</code></pre>'


def number(error: float) -> str:
    """An error in bounds, short; never "1.00" for one that is beyond the bound.

    >>> [number(error) for error in (0.0, 0.001, 0.131, 1.0, 1.0001, 12.34, 4321.0, 123456.0, np.inf)]
    ['0', '< 0.01', '0.13', '1.00', '1.01', '12.3', '4321', '1.2e5', '∞']
    """
    if not math.isfinite(error):
        return "∞"
    if error < 0.01:
        return "< 0.01" if error else "0"
    if error < 10:
        return f"{max(error, 1.01) if error > 1 else error:.2f}"
    return f"{error:.1f}" if error < 100 else f"{error:.0f}" if error < 1e4 else f"{error:.1e}".replace("e+0", "e")


def listed(names: Iterable[str]) -> str:
    """Names as one says them.

    >>> listed(["torch", "mxnet", "jax"])
    'torch, mxnet and jax'
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def count(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def step(error: float) -> int:
    """The step of the scale of colours that an error in bounds belongs to: CSS classes s0, s1, …."""
    return int(np.searchsorted(EDGES, error))


def icon(kind: str) -> str:
    """The icon of "good", "bad" or "unsure"."""
    return f'<svg class="icon {kind}" viewBox="0 0 24 24" aria-hidden="true"><path d="{_ICONS[kind]}"/></svg>'


def table(name: str, head: Sequence[str], rows: Iterable[str]) -> str:
    """A table in a box of its own that scrolls; rows are complete elements, the head is HTML."""
    columns = "".join(f'<th scope="col">{each}</th>' if each else "<td></td>" for each in head)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(name)}">\n<table>\n'
        f"<thead><tr>{columns}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody>\n</table>\n</div>"
    )


def figure(image: np.ndarray) -> str:
    """Errors in bounds, as a picture."""
    rows, columns = image.shape
    small, block = _smaller(image)
    steps = np.searchsorted(EDGES, small)
    wrong = int((~(image <= 1)).sum())
    size = f"{count(rows, 'row')} × {count(columns, 'column')}"
    merged = f", each pixel the worst of {block} × {block}" if block > 1 else ""
    alt = f"Errors of {rows} by {columns} elements; {wrong:,} of {image.size:,} are beyond the bound."
    height, width = steps.shape
    zoom = max(min(300 // max(height, width), 32), min(-(-8 // min(height, width)), 2400 // max(height, width)), 1)
    light, dark = (_data(steps, palette) for palette in (_LIGHT, _DARK))
    key = [f'<i class="s{step}"></i>' for step in range(len(LABELS))]
    return (
        '<figure>\n<div class="picture" role="region" tabindex="0" aria-label="Picture of the errors"><picture>'
        f'<source media="screen and (prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{alt}" width="{width * zoom}" height="{height * zoom}"></picture></div>\n'
        f"<figcaption><span>{size}{merged}</span><span>{wrong:,} beyond the bound</span>"
        f'<span class="key">0{"".join(key[:AGREE])}1{"".join(key[AGREE:])}∞ bounds</span></figcaption>\n</figure>'
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
    sheet = files(__package__).joinpath("page.css").read_text("utf-8")
    return "\n".join((scale(_LIGHT), dark, sheet + steps, ""))


def _ink(colour: str) -> str:
    """Black or white, whichever has more contrast on a colour."""
    red, green, blue = (((part / 255 + 0.055) / 1.055) ** 2.4 for part in bytes.fromhex(colour))
    return "101010" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else "ffffff"
