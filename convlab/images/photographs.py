"""Photographs as files: reading, filtering and writing them. `filter_photograph` does all three."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..errors import ConvlabError
from .filtering import Filter, filter_image, filter_pixels
from .photograph import ImageError, Photograph
from .reading import read_image, read_photograph
from .writing import check_folder, write_image, write_photograph

__all__ = [
    "Filter",
    "Filtered",
    "ImageError",
    "Photograph",
    "check_folder",
    "filter_image",
    "filter_photograph",
    "read_image",
    "read_photograph",
    "write_image",
    "write_photograph",
]


class Filtered(NamedTuple):
    """What became of a photograph: how many of its numbers were clipped, of how many, and what was changed or lost."""

    clipped: int
    numbers: int
    notes: list[str]


def filter_photograph(
    source: Path,
    target: Path,
    work: Filter,
    quality: int = 95,
    watch: Callable[[], object] = lambda: None,
) -> Filtered:
    """Filter all pages or frames of an image file into another file, which appears whole or not at all.

    The folder of the other file, and those above it, are made if need be.

    Args:
        source: the file that is read.
        target: the file that is written.
        work: what is done.
        quality: of JPEG and AVIF, 1 to 100.
        watch: called before each page, and before the file is written; an exception of it ends the work.

    Raises:
        ImageError: a file that can't be read, or a target that can't hold what is read.
        ConvlabError: pixels that can't be filtered, for example because the border is wider than the image.
    """
    photograph = read_photograph(source)
    pages, clipped = [], 0
    for page in photograph.pages:
        watch()
        try:
            filtered, count = filter_pixels(page, work, photograph.alpha)
        except ConvlabError as error:
            raise ImageError(f"{source}: {error}") from error
        pages.append(filtered)
        clipped += count
    watch()
    notes = write_photograph(target, replace(photograph, pages=pages), quality, makes=True)
    return Filtered(clipped, sum(page.size for page in pages), [*photograph.notes, *notes])
