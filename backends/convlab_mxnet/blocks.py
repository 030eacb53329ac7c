"""Gluon blocks that convlab's models need and gluon hasn't got."""

from __future__ import annotations

from typing import Any

from convlab.geometry.geometry import Pads

from .ops import mx


class Pad2D(mx.gluon.HybridBlock):  # type: ignore[misc]
    """A border round images NCHW.

    Args:
        pads: ((top, bottom), (left, right)).
        mode: "constant", "reflect" or "edge".
        value: of a constant border.
    """

    def __init__(self, pads: Pads, mode: str = "constant", value: float = 0.0, **names: Any) -> None:
        super().__init__(**names)
        self.pads, self.mode, self.value = pads, mode, value

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The image with its border."""
        widths = (0, 0, 0, 0, *self.pads[0], *self.pads[1])
        # np.pad has no gradient in these modes.
        y = F.Pad(x.as_nd_ndarray(), mode=self.mode, pad_width=widths, constant_value=self.value)
        return y.as_np_ndarray() if mx.util.is_np_array() else y


class ReLU6(mx.gluon.HybridBlock):  # type: ignore[misc]
    """min(max(x, 0), 6)."""

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """Every number, cut off at 0 and at 6."""
        return (F.np if mx.util.is_np_array() else F).clip(x, 0, 6)


class Softmax(mx.gluon.HybridBlock):  # type: ignore[misc]
    """The softmax over the channels, axis 1 of images and of rows of numbers.

    Args:
        log: whether its logarithm is computed.
    """

    def __init__(self, log: bool = False, **names: Any) -> None:
        super().__init__(**names)
        self.log = log

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The shares of the channels, which sum up to 1, or their logarithms."""
        functions = F.npx if mx.util.is_np_array() else F
        return (functions.log_softmax if self.log else functions.softmax)(x, axis=1)
