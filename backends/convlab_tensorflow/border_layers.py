"""A layer with the borders that Keras hasn't got: its own pad with zeros alone."""

from __future__ import annotations

from typing import Any

import keras
from keras.saving import register_keras_serializable

from .image_layers import Moving


@register_keras_serializable(package="convlab")
class BorderPadding(Moving):
    """Images NHWC, sequences (N, L, C) or volumes with a border.

    Args:
        padding: what stands before and behind each axis of pixels.
        mode: what the border is: "reflect" and "symmetric" as in `keras.ops.pad`, "replicate" for the pixels at the
            edge, "circular" for those at the other end, "zeros" for a value.
        value: that of a border of a value.
    """

    options = "padding", "mode", "value"

    def __init__(self, padding: Any, mode: str, value: float = 0.0, **names: Any) -> None:
        super().__init__(**names)
        self.padding = tuple((int(before), int(after)) for before, after in padding)
        self.mode, self.value = mode, value

    def call(self, x: Any) -> Any:
        """The image with its border."""
        widths = ((0, 0), *self.padding, (0, 0))
        if self.mode == "zeros":
            return keras.ops.pad(x, widths, constant_values=self.value)
        if self.mode in ("reflect", "symmetric"):
            return keras.ops.pad(x, widths, mode=self.mode)
        for axis, ends in enumerate(self.padding, 1):
            x = self._extended(x, axis, *ends)
        return x

    def _extended(self, x: Any, axis: int, before: int, after: int) -> Any:
        """The image with what is before and behind one axis."""

        def part(start: int | None, stop: int | None) -> Any:
            return x[(slice(None),) * axis + (slice(start, stop),)]

        if self.mode == "circular":
            borders = part(-before, None) if before else None, part(None, after) if after else None
        else:
            borders = (
                keras.ops.repeat(part(None, 1), before, axis) if before else None,
                keras.ops.repeat(part(-1, None), after, axis) if after else None,
            )
        several = [each for each in (borders[0], x, borders[1]) if each is not None]
        return keras.ops.concatenate(several, axis) if len(several) > 1 else x

    def compute_output_shape(self, input_shape: Any) -> Any:
        """See `keras.layers.Layer`."""
        n, *sizes, channels = input_shape
        both = zip(sizes, self.padding, strict=True)
        return (n, *(None if size is None else size + sum(ends) for size, ends in both), channels)
