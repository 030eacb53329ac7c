"""The arguments of `Conv2D` that are the same on every backend, and its errors."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import convlab
from convlab import errors
from convlab.contract.layer import LayerSpec
from convlab.contract.native_layer import NativeLayer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out_chanels": 8}, "out_chanels: got an argument that Conv2D doesn't have. Hint: did you mean out_channels"),
        ({"groop": 1}, "groop: got an argument that Conv2D doesn't have. Hint: did you mean groups"),
        ({"quantum": 1}, "quantum: got an argument that Conv2D doesn't have. Hint: there are "),
    ],
)
def test_unknown_arguments(lab, arguments, message) -> None:
    for layer in (lab.Conv2D, lambda *sizes, **options: convlab.Conv2D(*sizes, backend=lab.name, **options)):
        with pytest.raises(errors.OptionError) as caught:
            layer(3, **arguments)
        assert str(caught.value).startswith(message)
        assert isinstance(caught.value, TypeError)


def test_a_layer_needs_a_kernel_size(lab) -> None:
    for call in (lab.Conv2D, lambda: lab.Conv2D(out_channels=8), lambda: lab.Conv2D(kernel_size=None)):
        with pytest.raises(errors.OptionError, match="kernel_size: got none, expected an int or a pair"):
            call()
    with pytest.raises(errors.OptionError, match="got 30 positional arguments, expected"):
        lab.Conv2D(*range(30))
    with pytest.raises(errors.OptionError, match="channels: got out_channels twice"):
        NativeLayer("gluon's", ("channels", "kernel_size")).arguments((8, 3), {"out_channels": 8})


def test_other_frameworks_words_are_translated() -> None:
    with pytest.raises(errors.OptionError, match=r"filters: got an argument .* Hint: write out_channels=8\."):
        NativeLayer().arguments((3,), {"filters": 8})
    with pytest.raises(errors.UnsupportedError, match=r"mask: got \[1\], which Flax takes .* Hint: multiply\."):
        NativeLayer("Flax", refused={"mask": "multiply."}).arguments((3,), {"mask": [1]})
    with pytest.raises(errors.OptionError, match="seed, kernel_init: got both, expected one"):
        NativeLayer("Flax", own=("kernel_init",)).arguments((3,), {"seed": 0, "kernel_init": 1})


@pytest.mark.parametrize(
    ("shape", "warned"),
    [
        ((16, 16, 3), True),
        ((2, 9, 8, 4), True),
        ((5, 2, 1), True),
        ((3, 16, 16), False),
        ((16, 16, 2), False),
        ((4, 9, 3), False),
        ((9, 3, 3), False),
        ((None, 16, 16, 3), True),
        ((None, 16, None, 3), False),
    ],
)
def test_images_that_look_channels_last(shape, warned) -> None:
    spec = LayerSpec(1, out_channels=4, layout_given=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert spec.fit(shape).in_channels == shape[-3]
        spec.output_shape(shape)
        for silent in ({"data_format": "NCHW"}, {"in_channels": shape[-3], "layout_given": False}):
            LayerSpec(1, out_channels=4, **silent).fit(shape)
    messages = [str(warning.message) for warning in caught]
    text = (
        f"X: got shape {shape}, which looks like (H, W, C), while data_format is 'NCHW'. Hint: data_format='NHWC' if "
    )
    assert messages == [f"{text}the last axis is the channels, data_format='NCHW' to say that it isn't."] * warned


def test_numpys_layer_warns(lab) -> None:
    if lab.name not in ("numpy", "dask"):
        return
    with pytest.warns(errors.LayoutWarning, match=r"got shape \(16, 16, 3\)"):
        lab.Conv2D(3, out_channels=2, seed=0)(lab.asarray(np.ones((16, 16, 3))))
