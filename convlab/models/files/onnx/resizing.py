"""ONNX's operator `Resize`."""

from __future__ import annotations

from collections.abc import Sequence

from ....errors import UnsupportedError
from ...layers.layer import Layer
from ...layers.pixels import Upsample
from ...layers.resizing import Resize
from ..fields import LARGEST, excerpt
from .operation import IMAGES, Operation


def resize(op: Operation) -> Sequence[Layer]:
    """An upsampling by integers, or a resize to a size."""
    op.expect_images()
    for option, expected in (("antialias", 0), ("keep_aspect_ratio_policy", "stretch")):
        if op.options.get(option, expected) != expected:
            raise UnsupportedError(f"got {option} {excerpt(op.options[option])}, expected {expected}")
    sizes = op.constant(3, "sizes")
    if sizes is None or not sizes.size:
        return [_upsample(op)]
    op.expect(IMAGES)
    method, aligned = _method(op)
    axes = op.letters(op.options.get("axes", range(4)))
    given = dict(zip(axes, sizes.ravel().tolist(), strict=True))
    same = all(str(given[axis]) == str(op.sizes[axis]) for axis in axes if axis in "NC")
    after = tuple(given.get(axis) for axis in "HW")
    if not same or not all(isinstance(n, int) and 1 <= n <= LARGEST for n in after):
        raise UnsupportedError(f"got the sizes {excerpt(given)}, expected numbers of rows and columns")
    rows, columns = (int(n) for n in after if n is not None)
    if op.options.get("coordinate_transformation_mode") == "pytorch_half_pixel" and 1 in after:
        raise UnsupportedError("got a resize to one pixel with pytorch_half_pixel, expected more of them")
    return [Resize((rows, columns), method, aligned)]


def _upsample(op: Operation) -> Layer:
    scales = op.constant(2, "scales")
    factors = [] if scales is None else scales.ravel().tolist()
    whole = all(n == int(n) and 1 <= n <= LARGEST for n in factors)
    if len(factors) != 2 + op.rank or factors[:2] != [1, 1] or not whole:
        raise UnsupportedError(f"got scales {excerpt(factors)}, expected integers for rows and columns")
    factor = tuple(map(int, factors[2:]))
    mode, places = op.options.get("mode", "nearest"), op.options.get("coordinate_transformation_mode", "half_pixel")
    if mode == "nearest" and places == "half_pixel":  # A whole factor has no ties, which nearest_mode is for.
        return Upsample(factor, "nearest")
    method, aligned = _method(op)
    return Upsample(factor, "bilinear" if method == "bilinear" else "nearest", aligned)


def _method(op: Operation) -> tuple[str, bool]:
    """The method of `convlab.models.layers.resizing`, and whether corners are aligned."""
    mode, places = op.options.get("mode", "nearest"), op.options.get("coordinate_transformation_mode", "half_pixel")
    if mode == "linear" and places in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return "bilinear", places == "align_corners"
    ties = op.options.get("nearest_mode", "round_prefer_floor")
    if mode == "nearest" and (places, ties) in _NEAREST:
        return _NEAREST[places, ties], False
    raise UnsupportedError(f"got mode {excerpt(mode)} with {excerpt(places)}, expected nearest or linear")


_NEAREST = {("asymmetric", "floor"): "nearest", ("half_pixel", "round_prefer_ceil"): "nearest_exact"}


def attributes_of(layer: Upsample | Resize) -> dict[str, str]:
    """The attributes of the node that a layer is."""
    if layer.method == "bilinear":
        places = "align_corners" if layer.align_corners else "half_pixel"
        return {"mode": "linear", "coordinate_transformation_mode": places}
    places, ties = next(names for names, method in _NEAREST.items() if method == layer.method)
    return {"mode": "nearest", "coordinate_transformation_mode": places, "nearest_mode": ties}
