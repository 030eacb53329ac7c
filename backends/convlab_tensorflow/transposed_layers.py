"""Transposed convolutions of groups, which Keras hasn't got."""

from __future__ import annotations

from typing import Any

import keras
from keras.saving import register_keras_serializable


class _OfGroups:
    """Keras's transposed convolution, once for each group of channels; the kernel is (..., filters / groups, inputs).

    Args:
        filters, kernel_size, strides, padding, use_bias: as Keras's own.
        groups: of channels.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        groups: int = 1,
        use_bias: bool = True,
        **names: Any,
    ) -> None:
        super().__init__(filters, kernel_size, strides, padding, use_bias=use_bias, **names)  # type: ignore[call-arg]
        self.groups = groups

    def build(self: Any, input_shape: Any) -> None:
        """Make the weights."""
        filters, use_bias = self.filters, self.use_bias
        self.filters, self.use_bias = filters // self.groups, False
        super().build(input_shape)  # type: ignore[misc]
        self.filters, self.use_bias = filters, use_bias
        if use_bias:
            self.bias = self.add_weight(name="bias", shape=(filters,), initializer=self.bias_initializer)

    def call(self: Any, inputs: Any) -> Any:
        """The larger image."""
        split, options = keras.ops.split, {"strides": self.strides, "padding": self.padding}
        both = zip(split(inputs, self.groups, axis=-1), split(self.kernel, self.groups, axis=-1), strict=True)
        parts = [keras.ops.conv_transpose(x, kernel, data_format="channels_last", **options) for x, kernel in both]
        y = keras.ops.concatenate(parts, axis=-1)
        return y if self.bias is None else y + keras.ops.cast(self.bias, y.dtype)

    def get_config(self: Any) -> dict[str, Any]:
        """See `keras.layers.Layer`."""
        return {**super().get_config(), "groups": self.groups}  # type: ignore[misc]


@register_keras_serializable(package="convlab")
class GroupedConv1DTranspose(_OfGroups, keras.layers.Conv1DTranspose):  # type: ignore[misc]
    """`Conv1DTranspose` of groups."""


@register_keras_serializable(package="convlab")
class GroupedConv2DTranspose(_OfGroups, keras.layers.Conv2DTranspose):  # type: ignore[misc]
    """`Conv2DTranspose` of groups."""


@register_keras_serializable(package="convlab")
class GroupedConv3DTranspose(_OfGroups, keras.layers.Conv3DTranspose):  # type: ignore[misc]
    """`Conv3DTranspose` of groups."""


GROUPED = (GroupedConv1DTranspose, GroupedConv2DTranspose, GroupedConv3DTranspose)
