"""What is too large to be computed, found before a framework sees it: some would abort the process or return garbage.

No axis of a padded image or of a result is longer than `LONGEST`, and neither takes more bytes than this machine has
memory; or, where it isn't certain that this machine will compute it, than any has (`MOST_BYTES`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal

from ..errors import GeometryError
from .geometry import LONGEST, MOST_BITS, NO_PADDING, Geometry, PaddingName
from .lower import lower
from .options import channels_follow

# All the memory that an x86-64 processor can address with four levels of page tables: 64 TiB.
MOST_BYTES = 2**46


def laid_out(
    geometry: Geometry,
    padding_name: PaddingName | Literal[""],
    size: Sequence[int | None],
    planes: tuple[int, int] = (1, 1),
    item_bytes: int = 2,
    most: int = MOST_BYTES,
) -> Geometry:
    """`lower` for a correlation that is to be computed.

    Args:
        geometry: the checked options.
        padding_name: the padding's name, "" for integers.
        size: the image's rows and columns; None for one that isn't known while tracing.
        planes: how many images of one channel X and the result are.
        item_bytes: the bytes of a number.
        most: the most bytes of an array; 0 where it is in pieces, each of which is checked by itself.

    Raises:
        GeometryError: a padded image or a result that is longer than `LONGEST` or takes more bytes than `most`.
        ShapeError: as `lower`.
    """
    for axis, extent in zip(("rows", "columns"), geometry.extent, strict=True):
        if extent > LONGEST:
            raise GeometryError(
                f"dilation: got {geometry.dilation}, with which a kernel of {geometry.kernel_size} spans {extent} "
                f"{axis}, expected at most {LONGEST}.",
                hint="use a smaller dilation.",
            )
    geometry = lower(geometry, padding_name, size)
    for axis, n, pads in zip(("height", "width"), size, geometry.padding, strict=True):
        border = sum(pads)
        total = border + (n if type(n) is int else 0)
        if (total if most else border) > LONGEST:
            raise GeometryError(
                f"padding: got {pads} around an image of {axis} {n}, which makes {total} in all, "
                f"expected at most {LONGEST}.",
                hint="use a smaller padding, or cut the image.",
            )
    height, width = size
    if most and type(height) is int and type(width) is int:
        rows, columns = (n + sum(pads) for n, pads in zip((height, width), geometry.padding, strict=True))
        if geometry.padding != NO_PADDING:
            check_held("padding", "a padded image", (planes[0], rows, columns), item_bytes, most)
        check_held("X, K", "a result", (planes[1], *geometry.output_size((height, width))), item_bytes, most)
    return geometry


def check_held(name: str, what: str, shape: Sequence[int], item_bytes: int, most: int | None = None) -> None:
    """Raise `GeometryError` for an array that is longer than `LONGEST` along an axis or takes more than `most` bytes.

    By default `most` is this machine's memory.
    """
    most = memory() if most is None else most
    size = item_bytes * math.prod(shape)
    if size > most or any(n > LONGEST for n in shape):
        taken = f"{size / 2**30:.4g} GiB" if size.bit_length() <= MOST_BITS else f"2**{size.bit_length()} bytes"
        raise GeometryError(
            f"{name}: got values that make {what} of {' x '.join(map(str, shape))} numbers, {taken}, expected at most "
            f"{most / 2**30:.4g} GiB and {LONGEST} numbers along an axis.",
            hint="no array of that size can be computed here; look for a number that is too large.",
        )


@functools.cache
def memory() -> int:
    """The bytes of this machine's memory, swap counted, where it says so, or else `MOST_BYTES`."""
    try:
        # pathlib isn't used, since its import takes half as long as convlab's.
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":") for line in file)
        return 1024 * sum(int(lines[name].split()[0]) for name in ("MemTotal", "SwapTotal"))
    except (OSError, ValueError, LookupError):
        return MOST_BYTES


def planes(shape: Sequence[int | None], kernel: Sequence[int | None], geometry: Geometry) -> tuple[int, int]:
    """How many images of one channel X and the result are; a count that isn't known is 1.

    >>> planes((8, 3, 224, 224), (64, 3, 7, 7), Geometry((7, 7)))
    (24, 512)
    """
    channels_last = channels_follow(shape, kernel, geometry) or (len(kernel) == 4 and geometry.data_format == "NHWC")
    known = [n if type(n) is int else 1 for n in shape]
    images, channels = (known[:-3], known[-1:]) if channels_last else (known[:-3], known[-3:-2])
    outputs = channels if len(kernel) == 2 else [kernel[3 if channels_last else 0] or 1]
    return math.prod(images + channels), math.prod(images + outputs)
