"""Gluon blocks that convlab's models need and gluon hasn't got: borders, ReLU6, and layers for both kinds of arrays.

Gluon's own layers take arrays of `mx.np` after `npx.set_np()`, and otherwise those of `mx.nd`. The layers of the
same names at the end of this file take both at any time.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

from convlab.models.adapters import Node, free_name
from convlab.models.layers.formulas import FORMULAS
from convlab.models.layers.outputs import container_of, names_in_tuples
from convlab.models.layers.reading import INPUT
from convlab.models.layers.spatial import Ends, to_first

from .ops import mx

_DeferredInitialization = mx.gluon.parameter.DeferredInitializationError


@contextlib.contextmanager
def semantics(blocks: Sequence[Any]) -> Iterator[tuple[bool, Any]]:
    """A context with the semantics of MXNet that blocks' parameters have: those of `mx.np` or those of `mx.nd`.

    It gives whether they are those of `mx.np`, and the device of the parameters.
    """
    values = [_value(parameter) for block in blocks for parameter in block.collect_params().values()]
    known = [value for value in values if value is not None]
    numpy = any(isinstance(value, mx.np.ndarray) for value in known)
    array, shape = mx.util.np_array(numpy), mx.util.np_shape(numpy)
    first, second = (shape, array) if numpy else (array, shape)  # MXNet has no `mx.np` arrays without its shapes
    with first, second:
        yield numpy, known[0].ctx if known else mx.cpu()


def _value(parameter: Any) -> Any:
    """A parameter's array on the first of its devices; None before its shape is known."""
    try:
        return parameter.data(parameter.list_ctx()[0])
    except _DeferredInitialization:
        return None


class OnBoth:
    """A block that takes arrays of `mx.np` and of `mx.nd`, and gives back the kind that came in."""

    def __call__(self, x: Any, *others: Any) -> Any:
        """The block's result, computed on arrays of the kind that its parameters are."""
        if not isinstance(x, mx.nd.NDArray):
            return super().__call__(x, *others)  # type: ignore[misc]
        numpy, current = isinstance(x, mx.np.ndarray), mx.util.is_np_array()
        if numpy == current and _kind(self) in (None, numpy):
            return super().__call__(x, *others)  # type: ignore[misc]
        with semantics([self]) as (inside, _):
            y = super().__call__(*(_as_kind(each, inside) for each in (x, *others)))  # type: ignore[misc]
        return _as_kind(y, numpy)


def _kind(block: Any) -> bool | None:
    """Whether a block's parameters are arrays of `mx.np`; None before there are any."""
    values = map(_value, block.collect_params().values())
    first = next((value for value in values if value is not None), None)
    return None if first is None else isinstance(first, mx.np.ndarray)


def _as_kind(x: Any, numpy: bool) -> Any:
    if isinstance(x, (tuple, list)):
        return tuple(_as_kind(each, numpy) for each in x)
    """An array of `mx.np`, or else of `mx.nd`, over the same memory."""
    return x.as_np_ndarray() if numpy else x.as_nd_ndarray()


def _on_both(kind: type) -> type:
    return type(kind.__name__, (OnBoth, kind), {"__module__": __name__, "__doc__": kind.__doc__})


class Border(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
    """A border round images NCHW, or round sequences NCW or volumes NCDHW.

    Args:
        pads: ((top, bottom), (left, right)), or as many pairs as there are axes.
        mode: "constant", "reflect" or "edge".
        value: of a constant border.
    """

    def __init__(self, pads: Ends, mode: str = "constant", value: float = 0.0, **names: Any) -> None:
        super().__init__(**names)
        self.pads, self.mode, self.value = pads, mode, value

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The image with its border."""
        numpy, row = mx.util.is_np_array(), len(self.pads) == 1
        y = x.as_nd_ndarray() if numpy else x
        # F.Pad has no sequences: one is an image of one row. np.pad has no gradient in these modes.
        y = F.expand_dims(y, axis=2) if row else y
        widths = [n for ends in ((0, 0), (0, 0), *(((0, 0),) if row else ()), *self.pads) for n in ends]
        y = F.Pad(y, mode=self.mode, pad_width=tuple(widths), constant_value=self.value)
        y = F.squeeze(y, axis=2) if row else y
        return y.as_np_ndarray() if numpy else y


class Pad2D(Border):
    """A border round images NCHW."""


class ReLU6(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
    """min(max(x, 0), 6)."""

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """Every number, cut off at 0 and at 6."""
        return (F.np if mx.util.is_np_array() else F).clip(x, 0, 6)


class Softmax(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
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


class HardSigmoid(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
    """min(max(x + 3, 0), 6) / 6, or that times x.

    Args:
        times_x: whether it is the hard swish.
    """

    def __init__(self, times_x: bool = False, **names: Any) -> None:
        super().__init__(**names)
        self.times_x = times_x

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The function of each number."""
        share = (F.np if mx.util.is_np_array() else F).clip(x + 3, 0, 6) / 6
        return x * share if self.times_x else share


ELEMENTWISE = ("abs", "sqrt", "exp", "log", "reciprocal")


class Elementwise(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
    """A function of each number.

    Args:
        function: one of `ELEMENTWISE`, or of `FORMULAS`.
        parameter: of the function.
    """

    def __init__(self, function: str, parameter: float = 0.0, **names: Any) -> None:
        super().__init__(**names)
        self.function, self.parameter = function, parameter

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The function of each number."""
        functions = F.np if mx.util.is_np_array() else F
        if self.function in FORMULAS:
            return FORMULAS[self.function](functions, x, self.parameter)
        return getattr(functions, self.function)(x)


class Clip(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
    """Each number, or the nearest one from the least to the most.

    Args:
        least, most: the limits; None for no limit.
    """

    def __init__(self, least: float | None = None, most: float | None = None, **names: Any) -> None:
        super().__init__(**names)
        self.least, self.most = least, most

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The numbers within the limits."""
        functions = F.np if mx.util.is_np_array() else F
        if self.least is not None and self.most is not None:
            return functions.clip(x, self.least, self.most)
        return functions.minimum(x, self.most) if self.least is None else functions.maximum(x, self.least)


class Mish(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
    """x * tanh(log(1 + exp(x)))."""

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The function of each number."""
        if mx.util.is_np_array():
            return x * F.np.tanh(F.npx.activation(x, act_type="softrelu"))
        return x * F.tanh(F.Activation(x, act_type="softrelu"))


class Affine(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
    """x * scale + shift."""

    def __init__(self, scale: float = 1.0, shift: float = 0.0, **names: Any) -> None:
        super().__init__(**names)
        self.scale, self.shift = scale, shift

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The function of each number."""
        y = x if self.scale == 1.0 else x * self.scale
        return y if self.shift == 0.0 else y + self.shift


class Unflatten(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
    """Each row of numbers as an image.

    Args:
        size: the image's rows and columns.
        order: "CHW" if the rows have the images' numbers channel by channel, "HWC" if pixel by pixel.
    """

    def __init__(self, size: tuple[int, ...] = (1, 1), order: str = "CHW", **names: Any) -> None:
        super().__init__(**names)
        self.size, self.order = size, order

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """The rows as (N, C, H, W)."""
        axes = (-1, *self.size) if self.order == "CHW" else (*self.size, -1)
        y = F.npx.reshape(x, (-2, *axes)) if mx.util.is_np_array() else F.reshape(x, (0, *axes))
        return y if self.order == "CHW" else y.transpose(to_first(len(self.size)))


class Add(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
    """The sum of arrays."""

    def hybrid_forward(self, F: Any, *values: Any) -> Any:
        """The sum."""
        return functools.reduce(F.np.add if mx.util.is_np_array() else F.broadcast_add, values)


class Subtract(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
    """The first of two arrays less the second."""

    def hybrid_forward(self, F: Any, x: Any, y: Any) -> Any:
        """The difference."""
        return F.np.subtract(x, y) if mx.util.is_np_array() else F.broadcast_sub(x, y)


class Multiply(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
    """The product of arrays, element by element."""

    def hybrid_forward(self, F: Any, *values: Any) -> Any:
        """The product."""
        return functools.reduce(F.np.multiply if mx.util.is_np_array() else F.broadcast_mul, values)


class Divide(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
    """The first of two arrays by the second, element by element."""

    def hybrid_forward(self, F: Any, x: Any, y: Any) -> Any:
        """The quotient."""
        return F.np.true_divide(x, y) if mx.util.is_np_array() else F.broadcast_div(x, y)


class Concatenate(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
    """The channels of images NCHW or of rows, one after another."""

    def hybrid_forward(self, F: Any, *values: Any) -> Any:
        """All channels."""
        return F.np.concatenate(values, axis=1) if mx.util.is_np_array() else F.concat(*values, dim=1)


class BroadcastLike(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
    """Images NCHW of one pixel, repeated for each pixel of others.

    Args:
        rank: how many axes they have beside those of images and channels.
    """

    def __init__(self, rank: int = 2, **names: Any) -> None:
        super().__init__(**names)
        self.rank = rank

    def hybrid_forward(self, F: Any, x: Any, like: Any) -> Any:
        """The image."""
        repeat = F.npx.broadcast_like if mx.util.is_np_array() else F.broadcast_like
        axes = tuple(range(2, self.rank + 2))
        return repeat(x, like, lhs_axes=axes, rhs_axes=axes)


class Outputs(mx.gluon.HybridBlock):  # type: ignore[misc]
    """Several results of a model in tuples: a block that is hybridized gives no dictionary.

    Args:
        names: what the results are called in the original.
    """

    def __init__(self, names: Sequence[str] = (), **block_names: Any) -> None:
        super().__init__(**block_names)
        self.names = tuple(names)

    def hybrid_forward(self, F: Any, *values: Any) -> Any:
        """The results."""
        return container_of(values, names_in_tuples(self.names))


class Group(mx.gluon.HybridBlock):  # type: ignore[misc]
    """Blocks whose names begin alike; it isn't called itself."""


class Network(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
    """A graph of blocks: a call computes them in order, each of the results that it takes.

    Blocks are attributes by their names, `network.layer1.conv`; one that is put in the place of another is used.

    Args:
        nodes: in order; the last gives the result.
        inputs: the values of its arguments, in order.
    """

    # The class has the names, too, so that no block gets them.
    steps: Sequence[Node] = ()
    inputs: Sequence[str] = (INPUT,)

    def __init__(self, nodes: Sequence[Node], inputs: Sequence[str] = (INPUT,), **names: Any) -> None:
        super().__init__(**names)
        self.inputs = tuple(inputs)
        steps: list[Node] = []
        for name, block, inputs, value in nodes:
            *between, last = free_name(name, Network).split(".")
            outer = self
            for part in between:
                if not isinstance(getattr(outer, part, None), mx.gluon.Block):
                    setattr(outer, part, Group())
                outer = getattr(outer, part)
            setattr(outer, last, block)
            steps.append(Node(name, None, inputs, value))
        self.steps = steps

    def nodes(self) -> Iterator[Node]:
        """The nodes, with the blocks that are attributes now."""
        for node in self.steps:
            yield node._replace(native=functools.reduce(getattr, free_name(node.name, Network).split("."), self))

    def hybrid_forward(self, F: Any, x: Any, *others: Any) -> Any:
        """The result for images NCHW, or a tuple of several."""
        values = dict(zip(self.inputs, (x, *others), strict=True))
        for _, block, inputs, value in self.nodes():
            values[value] = x = block(*[values[name] for name in inputs])
        return x


Activation = _on_both(mx.gluon.nn.Activation)
AvgPool1D = _on_both(mx.gluon.nn.AvgPool1D)
AvgPool2D = _on_both(mx.gluon.nn.AvgPool2D)
AvgPool3D = _on_both(mx.gluon.nn.AvgPool3D)
BatchNorm = _on_both(mx.gluon.nn.BatchNorm)
Conv1D = _on_both(mx.gluon.nn.Conv1D)
Conv2D = _on_both(mx.gluon.nn.Conv2D)
Conv3D = _on_both(mx.gluon.nn.Conv3D)
Conv1DTranspose = _on_both(mx.gluon.nn.Conv1DTranspose)
Conv2DTranspose = _on_both(mx.gluon.nn.Conv2DTranspose)
Conv3DTranspose = _on_both(mx.gluon.nn.Conv3DTranspose)
Dense = _on_both(mx.gluon.nn.Dense)
Dropout = _on_both(mx.gluon.nn.Dropout)
ELU = _on_both(mx.gluon.nn.ELU)
Flatten = _on_both(mx.gluon.nn.Flatten)
GELU = _on_both(mx.gluon.nn.GELU)
GlobalAvgPool1D = _on_both(mx.gluon.nn.GlobalAvgPool1D)
GlobalAvgPool2D = _on_both(mx.gluon.nn.GlobalAvgPool2D)
GlobalAvgPool3D = _on_both(mx.gluon.nn.GlobalAvgPool3D)
GlobalMaxPool1D = _on_both(mx.gluon.nn.GlobalMaxPool1D)
GlobalMaxPool2D = _on_both(mx.gluon.nn.GlobalMaxPool2D)
GlobalMaxPool3D = _on_both(mx.gluon.nn.GlobalMaxPool3D)
HybridSequential = _on_both(mx.gluon.nn.HybridSequential)
LayerNorm = _on_both(mx.gluon.nn.LayerNorm)
LeakyReLU = _on_both(mx.gluon.nn.LeakyReLU)
MaxPool1D = _on_both(mx.gluon.nn.MaxPool1D)
MaxPool2D = _on_both(mx.gluon.nn.MaxPool2D)
MaxPool3D = _on_both(mx.gluon.nn.MaxPool3D)
PReLU = _on_both(mx.gluon.nn.PReLU)
SELU = _on_both(mx.gluon.nn.SELU)
Swish = _on_both(mx.gluon.nn.Swish)


def of_rank(name: str, rank: int, end: str = "") -> Any:
    """The class of this name for so many axes."""
    return globals()[f"{name}{rank}D{end}"]
