"""Images of Pillow, as they are."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import scipy.ndimage

import convlab
from convlab import errors

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype="uint8")
KERNEL = np.array([[1, 0, -1], [2, 3, -2]])


def test_an_image_of_pillow(lab) -> None:
    image = PIL.Image.fromarray(PIXELS)
    y = lab.to_numpy(lab.corr2d(image, KERNEL, data_format="NHWC", padding="same", origin=0, padding_mode="symmetric"))
    theirs = [scipy.ndimage.correlate(PIXELS[..., c].astype(int), KERNEL) for c in range(3)]
    np.testing.assert_array_equal(y, np.stack(theirs, -1))
    several = lab.to_numpy(lab.corr2d([image.convert("L")] * 2, KERNEL))
    grey = np.asarray(image.convert("L")).astype(int)
    np.testing.assert_array_equal(several[1], convlab.testing.oracle(grey, KERNEL))


def test_a_palette_is_no_image() -> None:
    with pytest.raises(errors.DTypeError, match=r"numbers of colours in a palette.*image\.convert"):
        convlab.corr2d(PIL.Image.fromarray(PIXELS).convert("P"), KERNEL)
