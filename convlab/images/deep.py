"""What Pillow doesn't hold, such as colour of more than 8 bits: read and written by OpenCV and tifffile."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..registry import pip_command
from .photograph import ImageError, Photograph, check_dtype

_AS_RGB = "save it as RGB, with or without a plain alpha channel."


def stored_deep(image: Any) -> str:
    """The stored mode of the page at which an image is, if Pillow would change its numbers; "" for others.

    It is known only until Pillow loads the page.
    """
    arguments: Any = image.tile[0].args if image.tile else ""
    stored = str(arguments if isinstance(arguments, str) else arguments[0])
    tags = getattr(image, "tag_v2", {})
    # BitsPerSample, and SampleFormat, in which 2 is signed integers (TIFF 6.0, section 19).
    bits, signed = max(tags.get(258, (8,))), 2 in tags.get(339, ())
    if len(image.getbands()) == 1:
        deep = signed or bits == 64 or (bits >= 32 and image.mode != "F")
    else:
        deep = signed or "16" in stored or bits > 8
    return stored or "unknown" if deep else ""


def read_deep_pages(path: Path, image: Any, stored: str, number: int) -> tuple[list[np.ndarray], bool]:
    """All pages in a mode of `stored_deep`, upright, and whether the last channel is opacity."""
    if "transparency" in image.info:
        raise ImageError(f"{path}: has 16 bits and one transparent colour.", hint="give it an alpha channel.")
    if image.format == "PNG" and number > 1:
        raise ImageError(f"{path}: an animation of 16-bit frames.", hint="save its frames as a TIFF.")
    if not stored.startswith(("RGB;16", "RGBA;16", "LA;16")):
        # OpenCV has other ideas of planes, inks and premultiplied colours.
        photograph = read_with_tifffile(path)
        return photograph.pages, photograph.alpha
    orientation = image.getexif().get(0x0112, 1)
    for index in range(number):
        # Loading raises an error for a damaged file, before OpenCV reads all the bits.
        image.seek(index)
        image.load()
    data, cv2 = np.fromfile(path, np.uint8), opencv(path)
    pages = cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED)[1] if number > 1 else [cv2.imdecode(data, -1)]
    if len(pages) != number or any(page is None or page.dtype != np.uint16 for page in pages):
        raise ImageError(f"{path}: damaged.", hint="open and save it with another program.")
    if any(page.shape != pages[0].shape for page in pages):
        raise ImageError(f"{path}: its pages differ in size.", hint="save its pages to files of their own.")
    # OpenCV turns a TIFF upright, and no PNG.
    upright = UPRIGHT.get(orientation, np.asarray) if image.format == "PNG" else np.asarray
    channels = [2, 1, 0, 3][: pages[0].shape[2]]
    return [np.ascontiguousarray(upright(page)[..., channels]) for page in pages], len(channels) == 4


# The function that turns stored pixels upright, by EXIF orientation.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}


def read_with_tifffile(path: Path) -> Photograph:
    """A TIFF of any real dtype, in planes or not, by tifffile."""
    with tifffile(path).TiffFile(path) as file:
        pages: list[np.ndarray] = []
        first = file.pages[0]
        for index, page in enumerate(file.pages):
            pixels = page.asarray()
            pixels = np.moveaxis(pixels, 0, -1) if page.axes == "SYX" else pixels
            kind = (page.photometric.name, page.extrasamples)
            if kind not in (("MINISBLACK", ()), ("RGB", ()), ("RGB", (2,))):
                what = f"{page.photometric.name} with {page.samplesperpixel} channels of {page.dtype}"
                raise ImageError(f"{path}: {what} isn't known.", hint=_AS_RGB)
            check_dtype(path, pixels.dtype)
            if pages and (pixels.shape, pixels.dtype) != (pages[0].shape, pages[0].dtype):
                raise ImageError(
                    f"{path}: page {index + 1} has shape {pixels.shape} and dtype {pixels.dtype}, expected "
                    f"{pages[0].shape} and {pages[0].dtype} like page 1.",
                    hint="save its pages to files of their own.",
                )
            orientation = page.tags.valueof(274, 1)
            pages.append(np.ascontiguousarray(UPRIGHT.get(orientation, np.asarray)(pixels)))
        unit = {2: 1.0, 3: 2.54}.get(int(first.resolutionunit))
        right, down = first.resolution
        return Photograph(
            pages,
            alpha=bool(first.extrasamples),
            profile=first.tags.valueof(34675, b""),
            dpi=(right * unit, down * unit) if unit and 282 in first.tags else None,
        )


# Description, maker, model, software, date, artist and copyright: the EXIF data that are a TIFF's own tags.
_TEXTS = (270, 271, 272, 305, 306, 315, 33432)


def has_more_exif(photograph: Photograph) -> bool:
    """Whether the EXIF data hold more than `write_deep_tiff` keeps."""
    return bool(set(_exif(photograph)) - {*_TEXTS, 0x0112})


def _exif(photograph: Photograph) -> Any:
    from PIL import Image

    exif = Image.Exif()
    exif.load(photograph.exif)
    return exif


def write_deep_tiff(part: Path, path: Path, photograph: Photograph) -> None:
    """Write pages of any real dtype as an uncompressed TIFF."""
    texts = [(tag, "s", 0, str(text), True) for tag, text in _exif(photograph).items() if tag in _TEXTS]
    colour = photograph.pages[0].ndim == 3 and photograph.pages[0].shape[2] >= 3
    with tifffile(path).TiffWriter(part) as file:
        for page in photograph.pages:
            file.write(
                page,
                photometric="rgb" if colour else "minisblack",
                planarconfig="contig" if page.ndim == 3 else None,
                extrasamples=["unassalpha"] if photograph.alpha else None,
                resolution=photograph.dpi,
                resolutionunit="inch" if photograph.dpi else None,
                iccprofile=photograph.profile or None,
                metadata=None,
                software=False,
                extratags=texts,
                contiguous=False,
            )


def write_deep_png(part: Path, path: Path, photograph: Photograph) -> None:
    """Write 16-bit colour as a PNG, with the profile, the resolution and the EXIF data in chunks of their own."""
    pixels = photograph.pages[0]
    channels = [2, 1, 0, 3][: pixels.shape[2]]
    if not opencv(path).imwrite(str(part), np.ascontiguousarray(pixels[..., channels])):
        raise OSError("OpenCV didn't write it")
    chunks = b""
    if photograph.profile:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(photograph.profile))
    if photograph.dpi:
        per_metre = (round(value / 0.0254) for value in photograph.dpi)
        chunks += _chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1))
    if photograph.exif:
        chunks += _chunk(b"eXIf", photograph.exif.removeprefix(b"Exif\0\0"))
    if chunks:
        data = part.read_bytes()
        # The signature and the header come first: 8 bytes and 25.
        part.write_bytes(data[:33] + chunks + data[33:])


def _chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG: its length, its name, its data and their checksum (PNG specification, section 5.3)."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def opencv(path: Path) -> Any:
    """OpenCV's module, or an `ImageError` that says which file needs it."""
    try:
        import cv2
    except ImportError as error:
        raise ImageError(f"{path}: 16-bit colour needs OpenCV.", hint=pip_command("opencv-python-headless")) from error
    return cv2


def tifffile(path: Path) -> Any:
    """The module tifffile, or an `ImageError` that says which file needs it."""
    try:
        import tifffile as module
    except ImportError as error:
        raise ImageError(f"{path}: a TIFF of this dtype needs tifffile.", hint=pip_command("tifffile")) from error
    return module
