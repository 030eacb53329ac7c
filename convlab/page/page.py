"""Reports as one page to look at, which needs nothing beside itself: no network, no fonts, no scripts.

Each report is a Jinja template, which extends `base.html` and lies beside the module that renders it. Every value is
escaped. Jinja is imported when a page is made, and not before.
"""

from __future__ import annotations

import base64
import functools
import math
import re
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jinja2 import Environment

# Errors in bounds are coloured in steps up to and including these; then come all finite ones, and infinity.
EDGES = (0.25, 0.5, 1.0, 2.0, 10.0, 100.0, 1000.0, float(np.finfo(np.float64).max))
LABELS = ("≤ ¼", "≤ ½", "≤ 1", "≤ 2", "≤ 10", "≤ 100", "≤ 1000", "> 1000", "∞")
# The first steps are within the bound.
AGREE = 3
# The steps grow darker, or brighter on a dark page: their order survives colour blindness and a grey printer. The
# steps that agree are blue and the others orange, which nearly everybody tells apart.
_LIGHT = ("eaf2fb", "d4e5f7", "b4d1f0", "fbb961", "f2933a", "dc6a1c", "9a3412", "6b1a1a", "2e0714")
_DARK = ("16263b", "1c3757", "244a77", "96520f", "bd6c17", "e58b3c", "f6b06a", "fdd9ae", "fff7ec")
_PIXELS, _LONGEST = 90 * 90, 512
# HTML can't hold these characters, or a terminal would obey them.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def render_page(template: str, **values: Any) -> str:
    """A page as HTML to be written in UTF-8.

    Args:
        template: the template's path within the package convlab.
        values: the template's variables; `base.html` says which each page needs.
    """
    return _environment().get_template(template).render(**values)


@functools.cache
def _environment() -> Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("convlab", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        counted=counted, cut=cut, ink=_ink, number=number, percent=_percent, step=step, thousands="{:,}".format
    )
    environment.globals.update(labels=LABELS, agreeing=AGREE, light=_LIGHT, dark=_DARK)
    return environment


def _printable(value: Any) -> Any:
    """A value of a template, with a replacement character for each unprintable one."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", value) if type(value) is str else value


def cut(text: str, length: int = 4000) -> str:
    """The beginning of a text."""
    return text if len(text) <= length else f"{text[:length].rstrip()} …"


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


def _percent(share: float) -> str:
    """A share of the whole, at most all of it."""
    return f"{100 * min(share, 1.0) if math.isfinite(share) else 100:.0f}%"


def listed(names: Iterable[str]) -> str:
    """Names as they are listed in a sentence.

    >>> listed(["torch", "mxnet", "jax"])
    'torch, mxnet and jax'
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "trial"), counted(1234, "trial")
    ('1 trial', '1,234 trials')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def step(error: float) -> int:
    """The step of the scale of colours that an error in bounds belongs to: CSS classes s0, s1, …."""
    return int(np.searchsorted(EDGES, error))


@dataclass(frozen=True)
class Picture:
    """Errors in bounds as a picture.

    Attributes:
        rows, columns: of the errors; `size` is their product.
        wrong: how many errors are beyond the bound.
        block: the side of the squares of errors that are one pixel, which shows the worst of them.
        width, height: of the picture on the page.
        light, dark: the picture for a light and for a dark page, as data URLs.
    """

    rows: int
    columns: int
    wrong: int
    block: int
    width: int
    height: int
    light: str
    dark: str

    @property
    def size(self) -> int:
        """The number of errors."""
        return self.rows * self.columns


def picture(image: np.ndarray) -> Picture:
    """Errors in bounds, rows by columns, as a picture."""
    small, block = _smaller(image)
    steps = np.searchsorted(EDGES, small)
    height, width = steps.shape
    zoom = max(min(300 // max(height, width), 32), min(-(-8 // min(height, width)), 2400 // max(height, width)), 1)
    return Picture(
        rows=image.shape[0],
        columns=image.shape[1],
        wrong=int((~(image <= 1)).sum()),
        block=block,
        width=width * zoom,
        height=height * zoom,
        light=_data_url(steps, _LIGHT),
        dark=_data_url(steps, _DARK),
    )


def _smaller(image: np.ndarray) -> tuple[np.ndarray, int]:
    """The largest error of each square block, and the side of the blocks, so that the picture has few enough pixels."""
    rows, columns = image.shape
    block = 1
    while max(rows, columns) > _LONGEST * block or -(-rows // block) * -(-columns // block) > _PIXELS:
        block += 1
    image = np.maximum.reduceat(image, np.arange(0, rows, block), axis=0)
    return np.maximum.reduceat(image, np.arange(0, columns, block), axis=1), block


def _data_url(steps: np.ndarray, palette: tuple[str, ...]) -> str:
    colours = np.array([tuple(bytes.fromhex(colour)) for colour in palette], np.uint8)
    return "data:image/png;base64," + base64.b64encode(_png(colours[steps])).decode()


def _png(pixels: np.ndarray) -> bytes:
    """A PNG file of pixels, rows by columns by red, green and blue, 8 bits each."""
    height, width, _ = pixels.shape
    lines = np.hstack(
        (np.zeros((height, 1), np.uint8), pixels.reshape(height, -1))
    )  # Each line begins with the number of its filter.
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _ink(colour: str) -> str:
    """Black or white, whichever has more contrast on a colour."""
    red, green, blue = (((part / 255 + 0.055) / 1.055) ** 2.4 for part in bytes.fromhex(colour))
    return "101010" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else "ffffff"
