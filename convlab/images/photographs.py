"""Reading, writing and filtering photographs as NumPy arrays: grey and colour, of 8 and 16 bits, upright."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import whole
from ..correlation.corr2d import corr2d
from ..errors import ConvlabError
from ..lab import backend
from ..registry import pip_command


class ImageError(ConvlabError, OSError):
    """A file that can't be read or written as an image."""


def read_image(path: str | Path) -> np.ndarray:
    """An image as (H, W) or (H, W, C): uint8 or uint16 (float32 for a file of floats); RGB, or RGB with alpha.

    The EXIF orientation is applied. Palettes, CMYK and the like become RGB.

    Raises:
        ImageError: no such file, not an image, a damaged one, or one of more than some 180 million pixels.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = Path(path)
    if not path.is_file():
        kind = "no such file" if not path.exists() else "a folder" if path.is_dir() else "not a file"
        raise ImageError(f"{path}: {kind}, expected an image.", hint="check the path.")
    try:
        with warnings.catch_warnings():
            # An image twice as large is refused by an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                arguments: Any = image.tile[0].args if image.tile else ""
                stored_mode = arguments if isinstance(arguments, str) else arguments[0]
                if image.mode in ("RGB", "RGBA", "LA") and "16" in stored_mode:
                    # Loading raises an error for a damaged file, before OpenCV reads all the bits.
                    image.load()
                    upright = _UPRIGHT.get(image.getexif().get(0x0112, 1), np.asarray)
                    return np.ascontiguousarray(upright(_read_deep_colour(path)))
                return _pixels(ImageOps.exif_transpose(image))
    except ConvlabError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not an image that Pillow knows.", hint="PNG, JPEG and TIFF work.") from None
    except (Image.DecompressionBombError, MemoryError) as error:
        reason = str(error) or "more than memory holds"
        raise ImageError(f"{path}: too large ({reason}).", hint="cut it into tiles first.") from None
    except Exception as error:
        # Pillow raises errors of all kinds on damaged files.
        raise ImageError(f"{path}: damaged ({error}).", hint="open and save it with another program.") from error


def _pixels(image: Any) -> np.ndarray:
    """The pixels of an image of Pillow's, in one of the modes that convlab knows."""
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):
        values = np.asarray(image)
        if values.size and not 0 <= int(values.min()) <= int(values.max()) < 2**16:
            raise ValueError("its integers need more than 16 bits")
        return values.astype(np.uint16)
    if image.mode not in ("L", "RGB", "RGBA", "F"):
        transparent = "A" in image.mode or "transparency" in image.info
        image = image.convert("L" if image.mode == "1" else "RGBA" if transparent else "RGB")
    return np.asarray(image)


def _read_deep_colour(path: Path) -> np.ndarray:
    """Colour of 16 bits, of which Pillow keeps only 8, with alpha, in the orientation in which it is stored."""
    cv2 = _opencv(path)
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ImageError(f"{path}: damaged.", hint="open and save it with another program.")
    return np.ascontiguousarray(pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])


# The function that turns stored pixels upright, by EXIF orientation.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}


def write_image(path: str | Path, pixels: np.ndarray) -> None:
    """Write (H, W) or (H, W, C) of uint8 or uint16 in the format of the path's suffix.

    The file appears whole or not at all. A format of 8 bits (JPEG) gets the upper 8 of 16; one without transparency
    loses the alpha channel.

    Raises:
        ImageError: an unknown suffix, or a folder that can't be written to.
    """
    from PIL import Image

    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in Image.registered_extensions():
        raise ImageError(f"{path}: unknown image format {suffix!r}.", hint=".png, .jpg and .tif work.")
    if suffix not in (".png", ".tif", ".tiff"):
        pixels = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
        pixels = pixels[..., :3] if pixels.ndim == 3 and suffix not in (".webp",) else pixels
    if pixels.dtype.kind == "f" and suffix not in (".tif", ".tiff"):
        raise ImageError(f"{path}: {suffix} can't hold an image of floats.", hint="write a .tif.")
    check_folder(path)
    try:
        with whole(path) as part:
            if pixels.dtype == np.uint16 and pixels.ndim == 3:
                channels = [2, 1, 0, 3][: pixels.shape[2]]
                if not _opencv(path).imwrite(str(part), np.ascontiguousarray(pixels[..., channels])):
                    raise OSError("OpenCV didn't write it")
            else:
                Image.fromarray(pixels).save(part, format=Image.registered_extensions()[suffix])
    except ConvlabError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise ImageError(f"{path}: can't be written ({error}).", hint="check the folder and the suffix.") from error


def check_folder(path: Path) -> None:
    """Raise `ImageError` unless a file can be created at a path."""
    if not path.parent.is_dir():
        raise ImageError(f"{path}: there is no folder {path.parent}.", hint=f"mkdir -p {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise ImageError(f"{path}: the folder {path.parent} can't be written to.", hint="choose another output.")


def _opencv(path: Path) -> Any:
    """OpenCV's module, or an `ImageError` that says which file needs it."""
    try:
        import cv2
    except ImportError as error:
        raise ImageError(f"{path}: 16-bit colour needs OpenCV.", hint=pip_command("opencv-python-headless")) from error
    return cv2


def filter_image(pixels: Any, kernel: np.ndarray, name: str, *, signed: bool = False) -> Any:
    """Correlate each colour channel with a kernel on the backend of that name; size, dtype and alpha stay.

    Pixels beyond the border are the image's reflection. The response of a kernel that sums to 0, an edge or a
    derivative, is shown by its magnitude, or with `signed` around mid-grey (signed integers and floats: around 0); any
    other is clipped to the dtype's range. A Dask array gives a lazy one.

    >>> ramp = np.tile(np.arange(0, 250, 10, dtype=np.uint8), (5, 1))
    >>> filter_image(ramp, np.array([[-0.5, 0.0, 0.5]]), "numpy")[2, 1:-1].tolist() == [10] * 23
    True
    """
    colour = pixels[..., None] if pixels.ndim == 2 else pixels
    colour, alpha = (colour[..., :3], colour[..., 3:]) if colour.shape[2] == 4 else (colour, None)
    response = _responses(np.moveaxis(colour, -1, 0), kernel, name)
    limits = np.iinfo(pixels.dtype) if pixels.dtype.kind in "ui" else None
    if abs(kernel.sum()) <= 1e-9 * np.abs(kernel).sum():
        grey = limits.max / 2 if limits and pixels.dtype.kind == "u" else 0.0
        response = response / 2 + grey if signed else np.abs(response)
    if limits:
        response = np.clip(np.rint(response), limits.min, limits.max)
    result = np.moveaxis(response, 0, -1).astype(pixels.dtype)
    if alpha is not None:
        result = np.concatenate([result, alpha], -1)
    return result[..., 0] if pixels.ndim == 2 else result


def _responses(planes: Any, kernel: np.ndarray, name: str) -> Any:
    """The correlation of each plane in float32, or in float64 where float32 doesn't hold the pixels."""
    options: dict[str, Any] = {"padding": "same", "padding_mode": "reflect"}
    dtype = np.result_type(planes.dtype, np.float32)
    framework = backend(name)
    if isinstance(planes, np.ndarray):
        return framework.to_numpy(framework.corr2d(framework.asarray(planes.astype(dtype)), kernel, **options))
    return corr2d(planes, backend("dask").asarray(kernel, dtype), backend=name, **options)
