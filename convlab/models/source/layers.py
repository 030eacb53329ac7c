"""What the sources of all frameworks have in common."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...contract.layer import LayerSpec
from ...errors import UnsupportedError
from ..layers.reading import Part
from ..layers.spatial import is_around, starts
from .code import SourceCall, brief, call_of


class Written(NamedTuple):
    """How the source has a layer.

    Attributes:
        made: the call that makes it; None for a function, which isn't made.
        inline: the expression that a class has in its place, with {0} for the first value; it needs no attribute then.
        item: it between the layers of a sequential container; None where it can't stand there.
    """

    made: SourceCall | None = None
    inline: str = ""
    item: Any = None


def layer(made: SourceCall, inline: str = "") -> Written:
    """A layer that is made, and can stand in a sequential container."""
    return Written(made, inline, made)


def unwritten(part: Part, framework: str) -> UnsupportedError:
    """The error for a layer that has no source in a framework."""
    kind = getattr(part.native, "__name__", type(part.native).__name__)
    return UnsupportedError(
        f"{part.path or 'the layer'}: got {kind}, which convlab can't write as source of {framework}.",
        hint="convlab.save keeps the model in a file, layers and weights.",
    )


def ours(spec: LayerSpec, function: str = "lab.Conv2D", **further: Any) -> SourceCall:
    """The call that makes a `Conv2D` of convlab's."""
    options = {
        "kernel_size": brief(spec.kernel_size),
        "in_channels": spec.in_channels,
        "out_channels": spec.out_channels,
    }
    options |= {"stride": brief(spec.stride), "padding": padding(spec.padding), "padding_mode": spec.padding_mode}
    options |= {"dilation": brief(spec.dilation), "groups": spec.groups, "use_bias": spec.use_bias}
    options |= {"data_format": spec.data_format, "padding_value": spec.padding_value}
    if spec.dtype not in (None, "float32"):
        options["dtype"] = spec.dtype
    return call_of(function, LayerSpec, **options, **further)


def padding(pads: Any) -> Any:
    """Both ends of both axes as briefly as they can be said.

    >>> padding(((1, 1), (1, 1))), padding(((1, 1), (2, 2))), padding(((0, 1), (0, 1))), padding("same")
    (1, (1, 2), ((0, 1), (0, 1)), 'same')
    """
    if isinstance(pads, str) or not is_around(pads):
        return pads
    return brief(starts(pads))


def affine(scale: float = 1.0, shift: float = 0.0) -> str:
    """The expression of a value times a number, and another number added.

    >>> affine(2.0), affine(1.0, -0.5)
    ('{0} * 2.0', '{0} + -0.5')
    """
    scaled = "{0}" if scale == 1.0 else f"{{0}} * {scale!r}"
    return scaled if shift == 0.0 else f"{scaled} + {shift!r}"
