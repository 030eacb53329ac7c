"""Reading photographs: all pages or frames of a file, upright, with its profile, resolution and EXIF data."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConvlabError
from ..geometry.limits import memory
from .deep import read_deep_pages, read_with_tifffile, stored_deep
from .photograph import ImageError, Photograph, check_dtype

# The formats whose further images are frames of an animation.
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF", "FLI")
# What Pillow's modes become if they can't stay, and how the summary says so.
_CONVERSIONS = {
    "1": ("L", "1 bit became 8-bit grey"),
    "P": ("RGB", "a palette became RGB"),
    "PA": ("RGBA", "a palette became RGB with alpha"),
    "YCbCr": ("RGB", "YCbCr became RGB"),
}
_SAVE_AS = "open and save it with another program."


def read_image(path: str | Path) -> np.ndarray:
    """The first page of an image as (H, W) or (H, W, C): uint8, uint16, or of an .npy or a float TIFF any real dtype.

    C is 2 for grey with alpha, 3 for RGB, 4 for RGB with alpha. The EXIF orientation is applied. Palettes and CMYK
    become RGB.

    Raises:
        ImageError: no such file, not an image, a damaged one, or one of more than some 180 million pixels.
    """
    with unwarned():
        photograph = read_photograph(path)
    pixels = photograph.pages[0]
    if photograph.inks:
        from PIL import Image

        return np.asarray(Image.frombuffer("CMYK", pixels.shape[1::-1], pixels, "raw", "CMYK", 0, 1).convert("RGB"))
    return pixels


@contextlib.contextmanager
def unwarned() -> Iterator[None]:
    """Within the block, Pillow's warnings of large or odd files are ignored: what matters raises an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def read_photograph(path: str | Path) -> Photograph:
    """All pages or frames of an image file, or the array in an .npy.

    Raises:
        ImageError: no such file, not an image, a damaged one, one that is too large, or of a kind that would be
            changed by reading it; the error says what to do.
    """
    from PIL import Image, UnidentifiedImageError

    path = Path(path)
    if not path.is_file():
        kind = "no such file" if not path.exists() else "a folder" if path.is_dir() else "not a file"
        raise ImageError(f"{path}: {kind}, expected an image.", hint="check the path.")
    try:
        if path.suffix.lower() == ".npy":
            return _read_array(path)
        try:
            with Image.open(path) as image:
                return _read_open(path, image)
        except UnidentifiedImageError:
            # Pillow doesn't know colour TIFFs of floats.
            with path.open("rb") as file:
                signature = file.read(4)
            if signature in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                return read_with_tifffile(path)
            raise
    except ConvlabError:
        raise
    except PermissionError as error:
        raise ImageError(f"{path}: can't be read ({error.strerror}).", hint="check its permissions.") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not an image that Pillow knows.", hint="PNG, JPEG and TIFF work.") from None
    except (Image.DecompressionBombError, MemoryError) as error:
        reason = str(error) or "more than memory holds"
        raise ImageError(f"{path}: too large ({reason}).", hint="cut it into tiles first.") from None
    except Exception as error:
        # Pillow raises errors of all kinds on damaged files.
        reason = str(error).strip() or type(error).__name__
        raise ImageError(f"{path}: damaged ({reason}).", hint=_SAVE_AS) from error


def _read_array(path: Path) -> Photograph:
    """An array (H, W) or (H, W, C); no channel is opacity."""
    pixels = np.load(path, allow_pickle=False)
    if not isinstance(pixels, np.ndarray) or pixels.ndim not in (2, 3) or 0 in pixels.shape or pixels.shape[2:] > (4,):
        raise ImageError(
            f"{path}: got shape {getattr(pixels, 'shape', ())}, expected (H, W), or (H, W, C) with up to 4 channels.",
            hint="save one image to a file; convlab.corr2d takes any array.",
        )
    check_dtype(path, pixels.dtype)
    native = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    return Photograph([native])


def _read_open(path: Path, image: Any) -> Photograph:
    """All of a file that Pillow has opened."""
    stored = stored_deep(image)
    number = getattr(image, "n_frames", 1)
    photograph = Photograph([], subsampling=_subsampling(image))
    if number > 1 and image.format == "MPO":
        photograph.notes.append(f"of {number} pictures in one JPEG the first was taken")
        number = 1
    _check(path, image, number)
    photograph.dpi = _resolution(image)
    photograph.profile = image.info.get("icc_profile") or b""
    photograph.exif = _upright_exif(image, photograph.notes)
    if stored:
        photograph.pages, photograph.alpha = read_deep_pages(path, image, stored, number)
        return photograph
    images = []
    for index in range(number):
        image.seek(index)
        if index and stored_deep(image):
            raise ImageError(
                f"{path}: page {index + 1} of {number} has another dtype than page 1.",
                hint="save its pages to files of their own.",
            )
        images.append(_plain(path, image, index, photograph))
        if number > 1 and image.format in _ANIMATED:
            photograph.durations.append(float(image.info.get("duration", 0)))
    photograph.loop = image.info.get("loop")
    if photograph.durations:
        # Frames of one animation may come as RGB and as RGBA. What was composed isn't worth a note.
        photograph.notes.clear()
        images = [frame.convert("RGBA") for frame in images]
        if all(frame.getextrema()[3][0] == 255 for frame in images):
            images = [frame.convert("RGB") for frame in images]
    kinds = [(frame.mode, frame.size) for frame in images]
    for index, kind in enumerate(kinds):
        if kind != kinds[0]:
            (mode, (width, height)), (first_mode, (first_width, first_height)) = kind, kinds[0]
            raise ImageError(
                f"{path}: page {index + 1} of {number} is {width} x {height} {mode}, expected "
                f"{first_width} x {first_height} {first_mode} like page 1.",
                hint="save its pages to files of their own.",
            )
    photograph.alpha, photograph.inks = images[0].mode in ("LA", "RGBA"), images[0].mode == "CMYK"
    photograph.pages = [_array(path, frame) for frame in images]
    return photograph


def _check(path: Path, image: Any, number: int) -> None:
    """Refuse files of which Pillow would show only a part, and those that memory doesn't hold."""
    if number > 1 and image.format != "TIFF" and image.format not in _ANIMATED:
        raise ImageError(f"{path}: has {number} pictures or layers, expected one.", hint="save the one you mean.")
    if getattr(image, "default_image", False):
        raise ImageError(f"{path}: has a picture beside its animation.", hint="save it without.")
    tags = getattr(image, "tag_v2", {})
    samples, bands = tags.get(277, 1), len(image.getbands())
    if samples > bands and image.mode != "P":
        raise ImageError(
            f"{path}: has {samples} channels, of which only {bands} would be read.",
            hint="save them as .npy, or the alpha channel as such.",
        )
    size = image.width * image.height * bands * number
    if number > 1 and 2 * size > memory():
        raise ImageError(
            f"{path}: too large ({number} pages of {image.width} x {image.height} pixels).",
            hint="filter a TIFF into a .zarr, which needn't fit into memory.",
        )


def _plain(path: Path, image: Any, index: int, photograph: Photograph) -> Any:
    """The image that a file is at, upright, in a mode that convlab filters."""
    from PIL import ImageOps

    image.load()
    upright = image.copy() if index or getattr(image, "n_frames", 1) > 1 else image
    ImageOps.exif_transpose(upright, in_place=True)
    mode, deep = upright.mode, upright.mode.startswith("I")
    transparent = "transparency" in upright.info
    if transparent and (deep or mode == "F"):
        raise ImageError(f"{path}: has 16 bits and one transparent value.", hint="give it an alpha channel.")
    target, note = mode, ""
    if mode in _CONVERSIONS:
        target, note = _CONVERSIONS[mode]
    if transparent and target in ("L", "RGB"):
        target, note = ("LA" if target == "L" else "RGBA"), note or "a transparent colour became an alpha channel"
    if target not in ("L", "LA", "RGB", "RGBA", "CMYK", "F") and not deep:
        raise ImageError(f"{path}: has the mode {mode}, expected grey, RGB or CMYK.", hint="convert it to RGB first.")
    if mode == "I" and image.format not in ("PNG", "PPM"):
        note = "32-bit integers became 16 bits"
    if note and note not in photograph.notes:
        photograph.notes.append(note)
    if deep and getattr(image, "tag_v2", {}).get(262) == 0:
        raise ImageError(f"{path}: 0 is white in its 16 bits, expected black.", hint=_SAVE_AS)
    return upright if target == mode else upright.convert(target)


def _array(path: Path, image: Any) -> np.ndarray:
    """The pixels of an image of Pillow's."""
    if not image.mode.startswith("I"):
        width, height = image.size
        bands = len(image.getbands())
        pixels = np.empty(
            (height, width, bands)[: 3 if bands > 1 else 2], np.float32 if image.mode == "F" else np.uint8
        )
        # Pillow copies a few rows two times faster than all of them.
        for top in range(0, height, 64):
            pixels[top : top + 64] = np.asarray(image.crop((0, top, width, min(top + 64, height))))
        return pixels
    values = np.asarray(image)
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < 2**16:
        raise ImageError(
            f"{path}: 32-bit integers are read from .tif and .npy only.", hint="save it as a .tif of float32."
        )
    return values.astype(np.uint16)


def _subsampling(image: Any) -> int | None:
    from PIL import JpegImagePlugin

    sampling = JpegImagePlugin.get_sampling(image) if image.format in ("JPEG", "MPO") else -1
    return sampling if sampling >= 0 else None


def _resolution(image: Any) -> tuple[float, float] | None:
    """Pixels per inch of the upright image, or None if the file doesn't say."""
    dpi = image.info.get("dpi")
    if not dpi or not all(0 < float(value) < 1e9 for value in dpi):
        return None
    exif = image.getexif()
    # Without a resolution Pillow says (1, 1) of a TIFF, and (72, 72) of a JPEG that has EXIF data.
    if image.format in ("TIFF", "JPEG", "MPO") and not image.info.get("jfif_unit") and 0x011A not in exif:
        return None
    turned = exif.get(0x0112, 1) >= 5
    right, down = map(float, dpi)
    return (down, right) if turned else (right, down)


# TIFF's own tags that are EXIF data too: description, maker, model, software, date, artist, copyright, GPS, the rest.
_DESCRIPTIVE = (270, 271, 272, 305, 306, 315, 33432, 34853, 34665)


def _upright_exif(image: Any, notes: list[str]) -> bytes:
    """The EXIF data with the orientation of an upright image."""
    from PIL import Image

    try:
        exif = image.getexif()
        kept = Image.Exif()
        for tag in list(exif):
            if image.format == "TIFF" and tag not in _DESCRIPTIVE:
                continue
            # By such a description tifffile finds the pages in a file as it writes it, and not in others.
            if tag == 270 and str(exif[tag]).startswith('{"shape"'):
                continue
            kept[tag] = exif.get_ifd(tag) if tag in (34853, 34665) else exif[tag]
        if 0x0112 in kept:
            kept[0x0112] = 1
        return kept.tobytes() if len(kept) else b""
    except Exception:
        # Damaged EXIF data raises errors of all kinds, and the pixels may be whole.
        notes.append("damaged EXIF data was left out")
        return b""
