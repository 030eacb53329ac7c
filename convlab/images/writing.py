"""Writing photographs: whole or not at all, with what the format can hold, and with a word on what it can't."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..atomic import whole
from ..errors import ConvlabError
from .deep import has_more_exif, write_deep_png, write_deep_tiff
from .photograph import ImageError, Photograph


class _Format(NamedTuple):
    """What a format holds beside grey and RGB of 8 bits.

    Attributes:
        dtypes: the pixels' dtypes.
        alpha: whether it has transparency.
        extras: which of the profile, the resolution and the EXIF data it keeps.
        several: "pages", "frames" or nothing.
    """

    dtypes: tuple[str, ...] = ("uint8",)
    alpha: bool = False
    extras: tuple[str, ...] = ()
    several: str = ""


_ALL = ("profile", "dpi", "exif")
_DTYPES = ("uint8", "uint16", "int8", "int16", "uint32", "int32", "float16", "float32", "float64")
_FORMATS = {
    "PNG": _Format(("uint8", "uint16"), True, _ALL, "frames"),
    "TIFF": _Format(_DTYPES, True, _ALL, "pages"),
    "JPEG": _Format(extras=_ALL),
    "WEBP": _Format(alpha=True, extras=("profile", "exif"), several="frames"),
    "AVIF": _Format(alpha=True, extras=("profile", "exif")),
    "JPEG2000": _Format(alpha=True),
    "BMP": _Format(extras=("dpi",)),
    "PPM": _Format(),
    "GIF": _Format(),
    "NPY": _Format(_DTYPES, True),
}
_EXTRAS = {"profile": "ICC profile", "dpi": "resolution", "exif": "EXIF data"}


def write_image(path: str | Path, pixels: np.ndarray) -> None:
    """Write (H, W) or (H, W, C) in the format of the path's suffix; two and four channels end with opacity.

    The file appears whole or not at all. A format of 8 bits (JPEG) gets 16 bits rounded to 8; one without transparency
    loses the alpha channel.

    Raises:
        ImageError: an unknown suffix, a dtype that the format doesn't hold, or a folder that can't be written to.
    """
    write_photograph(path, Photograph([pixels], alpha=pixels.ndim == 3 and pixels.shape[2] in (2, 4)))


def write_photograph(path: str | Path, photograph: Photograph, quality: int = 95, makes: bool = False) -> list[str]:
    """Write all pages or frames of a photograph; return what was left out, in a few words each.

    Args:
        path: the file, replaced if it exists; its suffix names the format.
        photograph: what is written.
        quality: of JPEG and AVIF, 1 to 100. All other formats keep each pixel.
        makes: whether to make the folder, and those above it.

    Raises:
        ImageError: an unknown suffix, something that the format can't hold, or a folder that can't be written to.
    """
    path = Path(path)
    form = check_suffix(path)
    photograph, notes = _fitted(path, photograph, form)
    if makes:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
    check_folder(path)
    try:
        with whole(path) as part:
            _write(part, path, photograph, form, quality)
    except ConvlabError:
        raise
    except Exception as error:
        # Encoders raise errors of all kinds.
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise ImageError(f"{path}: can't be written ({reason}).", hint="check the folder and the suffix.") from error
    return notes


def written_format(path: Path) -> str:
    """The format that a path's suffix names, or "" if it isn't written."""
    from PIL import Image

    suffix = path.suffix.lower()
    form = "NPY" if suffix == ".npy" else Image.registered_extensions().get(suffix, "")
    return form if form in _FORMATS else ""


def check_suffix(path: Path, dtype: str = "") -> str:
    """The format that a path's suffix names, or an `ImageError`, also if it can't hold a dtype that is given."""
    suffix, form = path.suffix.lower(), written_format(path)
    if not form:
        got = f"unknown image format {suffix!r}" if suffix else "no suffix, expected one that names a format"
        raise ImageError(f"{path}: {got}.", hint=".png, .jpg, .tif and .npy work; a folder ends with a slash.")
    if dtype and dtype not in _FORMATS[form].dtypes:
        hint = "write a .tif or .npy, or use --dtype uint8." if dtype in _DTYPES else "convert it to float64 first."
        raise ImageError(f"{path}: {suffix} can't hold {dtype}.", hint=hint)
    return form


def check_folder(path: Path) -> None:
    """Raise `ImageError` unless a file can be created at a path."""
    if not path.parent.is_dir():
        raise ImageError(f"{path}: there is no folder {path.parent}.", hint=f"mkdir -p {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise ImageError(f"{path}: the folder {path.parent} can't be written to.", hint="choose another output.")


def _fitted(path: Path, photograph: Photograph, form: str) -> tuple[Photograph, list[str]]:
    """The photograph as a format can hold it, and what was left out; an `ImageError` if that would be too much."""
    holds, pages, suffix, notes = _FORMATS[form], photograph.pages, path.suffix.lower(), []
    first = pages[0]
    channels = first.shape[2] if first.ndim == 3 else 1
    _check_several(path, photograph, form)
    if photograph.inks and form not in ("TIFF", "JPEG", "NPY"):
        raise ImageError(f"{path}: {suffix} can't hold CMYK.", hint="write a .tif or .jpg, or convert it to RGB first.")
    if not photograph.inks and not photograph.alpha and channels in (2, 4) and form != "NPY":
        raise ImageError(f"{path}: {suffix} can't hold {channels} plain channels.", hint="write a .npy.")
    if form == "GIF" and channels > 1:
        raise ImageError(f"{path}: a GIF has only 256 colours.", hint="write a .png, or a .webp.")
    if first.dtype == np.uint16 and "uint16" not in holds.dtypes:
        pages = [((page.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8) for page in pages]
        notes.append(f"16 bits became 8 in {suffix}")
    else:
        check_suffix(path, first.dtype.name)
    if photograph.alpha and not holds.alpha:
        pages = [page[..., 0] if channels == 2 else page[..., :3] for page in pages]
        notes.append(f"transparency was left out of {suffix}")
    if pages[0].shape[2:] == (1,) and form != "NPY":
        pages = [page[..., 0] for page in pages]
    lost = [name for name in _ALL if getattr(photograph, name) and name not in holds.extras]
    if photograph.exif and form == "TIFF" and not _by_pillow(pages[0]) and has_more_exif(photograph):
        lost.append("exif")
    if photograph.durations and form == "TIFF":
        notes.append(f"durations left out of {suffix}")
    if lost:
        notes.append(f"{', '.join(_EXTRAS[name] for name in lost)} left out of {suffix}")
    return replace(photograph, pages=pages, alpha=photograph.alpha and holds.alpha), notes


def _check_several(path: Path, photograph: Photograph, form: str) -> None:
    """Refuse pages in a format of frames, and either in one of single images."""
    number = len(photograph.pages)
    have = "frames" if photograph.durations else "pages"
    hint = "write a .png or .webp, which are animated, or a .tif." if have == "frames" else "write a .tif."
    if number > 1 and form != "TIFF" and _FORMATS[form].several != have:
        raise ImageError(f"{path}: {path.suffix.lower()} can't hold {number} {have}.", hint=hint)
    if number > 1 and form != "TIFF" and photograph.pages[0].dtype != np.uint8:
        raise ImageError(f"{path}: frames have 8 bits, got {photograph.pages[0].dtype}.", hint="leave --dtype out.")


def _by_pillow(pixels: np.ndarray) -> bool:
    """Whether Pillow has a mode for an image."""
    return pixels.dtype == np.uint8 or (pixels.ndim == 2 and pixels.dtype in (np.uint16, np.float32))


def _write(part: Path, path: Path, photograph: Photograph, form: str, quality: int) -> None:
    """Write a photograph that fits its format."""
    first = photograph.pages[0]
    if form == "NPY":
        np.save(part, first)
        return
    if not _by_pillow(first):
        (write_deep_tiff if form == "TIFF" else write_deep_png)(part, path, photograph)
        return
    options: dict[str, Any] = {}
    for name, option in (("profile", "icc_profile"), ("dpi", "dpi"), ("exif", "exif")):
        if getattr(photograph, name) and name in _FORMATS[form].extras:
            options[option] = getattr(photograph, name)
    if form in ("JPEG", "AVIF"):
        options["quality"] = quality
    if form == "JPEG" and photograph.subsampling is not None and first.ndim == 3:
        options["subsampling"] = photograph.subsampling
    if form == "WEBP":
        options |= {"lossless": True, "exact": True}
    images = [_image(page, photograph.inks) for page in photograph.pages]
    if len(images) > 1:
        options |= {"save_all": True, "append_images": images[1:]}
    if len(images) > 1 and form != "TIFF":
        durations = photograph.durations if form == "PNG" else [round(each) for each in photograph.durations]
        options |= {"duration": durations, "loop": 1 if photograph.loop is None else photograph.loop}
    images[0].save(part, format=form, **options)


def _image(pixels: np.ndarray, inks: bool) -> Any:
    """An image of Pillow's."""
    from PIL import Image

    if pixels.dtype != np.uint8:
        return Image.fromarray(np.ascontiguousarray(pixels))
    mode = "CMYK" if inks else ("L", "LA", "RGB", "RGBA")[pixels.shape[2] - 1 if pixels.ndim == 3 else 0]
    return Image.frombuffer(mode, pixels.shape[1::-1], np.ascontiguousarray(pixels), "raw", mode, 0, 1)
