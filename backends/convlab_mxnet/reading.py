"""Gluon's layers, read: see `convlab.models`."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from convlab.errors import UnsupportedError
from convlab.geometry.geometry import NO_PADDING, Pads
from convlab.models.layers.activations import Activation
from convlab.models.layers.layer import LOWEST, BatchNorm, Convolution, Dense, Dropout, Flatten, Layer, Pad
from convlab.models.layers.pooling import GlobalPool, Pool
from convlab.models.layers.reading import Model, Part, around, known, loose_array, loose_code, unbuilt

from .layers import Conv2D
from .ops import mx, ops

Block = mx.gluon.Block
nn = mx.gluon.nn


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
        """x with its border."""
        widths = (0, 0, 0, 0, *self.pads[0], *self.pads[1])
        # np.pad has no such gradients.
        y = F.Pad(x.as_nd_ndarray(), mode=self.mode, pad_width=widths, constant_value=self.value)
        return y.as_np_ndarray() if mx.util.is_np_array() else y


class ReLU6(mx.gluon.HybridBlock):  # type: ignore[misc]
    """min(max(x, 0), 6)."""

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """x, cut off."""
        return (F.np if mx.util.is_np_array() else F).clip(x, 0, 6)


def read(model: Block, inputs: Any = None) -> Model:
    """See `convlab.models.adapters`."""
    with_code: dict[str, Block] = {}  # containers that do more than call their layers in turn

    def parts(block: Block, path: str) -> Iterator[Part]:
        if isinstance(block, tuple(_READERS)) or not block._children:
            yield from _parts(block, path)
            return
        if not _is_chain(block):
            with_code[path] = block
        for name, child in block._children.items():
            yield from parts(child, f"{path}.{name}" if path else name)

    found = list(parts(model, ""))
    loose = _loose(model, found, with_code)
    in_turn = list(_flattened(found)) if not with_code and _is_chain(model) else found
    return Model("mxnet", in_turn, not with_code, model, loose=loose)


def _loose(model: Block, parts: Sequence[Part], with_code: Mapping[str, Block]) -> dict[str, str]:
    """Parameters and operations that belong to no known layer."""
    inside = [part.native.collect_params().values() for part in parts if part.layer is not None]
    known_parameters = {id(parameter) for parameters in inside for parameter in parameters}
    named = model._collect_params_with_prefix().items()
    loose = {
        name: loose_array("parameter", parameter.shape or ())
        for name, parameter in named
        if id(parameter) not in known_parameters
    }
    for path, block in with_code.items():
        method = "hybrid_forward" if isinstance(block, mx.gluon.HybridBlock) else "forward"
        loose[f"{path}.{method}()".lstrip(".")] = loose_code(block, method)
    return loose


def _is_chain(block: Block) -> bool:
    kind = type(block)
    if isinstance(block, nn.HybridSequential):
        own = nn.HybridSequential
        return kind.hybrid_forward is own.hybrid_forward and kind.forward is own.forward
    return isinstance(block, nn.Sequential) and kind.forward is nn.Sequential.forward


def _parts(block: Block, path: str) -> Iterator[Part]:
    """A block as one part, or, if there is an activation inside, two; what does nothing is none."""
    if type(block) in (mx.gluon.contrib.nn.Identity, nn.Sequential, nn.HybridSequential):
        return
    if isinstance(block, tuple(_READERS)) and any(each._data is None for each in block._reg_params.values()):
        raise unbuilt(path, block, "initialise it and call it once")
    found, note = _read(block)
    activation = getattr(block, "act", None)
    if found is None or activation is None:
        yield Part(path, block, found, note)
        return
    alone = copy.copy(block)  # with the same parameters
    vars(alone).update(act=None, _children=OrderedDict(), _active=False, _cached_op=None, _cached_graph=())
    yield Part(path, alone, found, note)
    yield Part(path, activation, *_read(activation))


def _flattened(parts: Sequence[Part]) -> Iterator[Part]:
    """The parts of a chain, and before a Dense that flattens images a part that does."""
    images: bool | None = None
    for part in parts:
        if isinstance(part.layer, Dense) and part.native._flatten and images is not False:
            yield Part(part.path, nn.Flatten(), Flatten("CHW"), "Dense: it flattens")
        if isinstance(part.layer, Dense) and not part.native._flatten and images:
            yield Part(part.path, part.native, None, "Dense: it is applied to each row of pixels")
        else:
            yield part
        if isinstance(part.layer, (Dense, Flatten)):
            images = False
        elif isinstance(part.layer, (Convolution, Pool, GlobalPool, Pad)):
            images = True


def _read(block: Block) -> tuple[Layer | None, str]:
    name = type(block).__name__
    kind = next((kind for kind in _READERS if isinstance(block, kind)), None)
    if kind and any(getattr(type(block), each) is not getattr(kind, each) for each in ("hybrid_forward", "forward")):
        return None, f"{name}: it is a {kind.__name__} with a hybrid_forward of its own"
    layout = getattr(block, "_kwargs", {}).get("layout", "NCHW")
    if kind and layout != "NCHW":
        return None, f"{name}: its layout is {layout}"
    return known(block, _READERS)


def value_of(parameter: Any) -> Any:
    """Its array, on the first of its devices."""
    return parameter.data(parameter.list_ctx()[0])


def _array(parameter: Any) -> np.ndarray | None:
    return None if parameter is None else ops.to_numpy(value_of(parameter))


def _dtype(parameter: Any) -> str:
    return str(np.dtype(parameter.dtype).name)


def _convolution(m: Any) -> Layer:
    options = m._kwargs
    return Convolution.of(
        ops.to_numpy(value_of(m.weight)),
        _array(m.bias),
        _dtype(m.weight),
        options["num_group"],
        stride=tuple(options["stride"]),
        padding=around(options["pad"]),
        dilation=tuple(options["dilate"]),
    )


def _ours(m: Conv2D) -> Layer:
    return Convolution.ours(m.spec, ops.to_numpy(value_of(m.weight)), _array(m.bias), _dtype(m.weight))


def _batch_norm(m: Any) -> Layer:
    options = m._kwargs
    if options["axis"] != 1:
        raise UnsupportedError(f"axis {options['axis']} isn't the channels'")
    arrays = [_array(each) for each in (m.running_mean, m.running_var, m.gamma, m.beta)]
    if options["fix_gamma"]:
        arrays[2] = np.ones_like(arrays[2])
    return BatchNorm(*arrays, options["eps"], options["momentum"], _dtype(m.running_mean))


def _pool(function: str) -> Callable[[Any], Layer]:
    def read(m: Any) -> Layer:
        options = m._kwargs
        padding, ceil = around(options["pad"]), options["pooling_convention"] == "full"
        counted = options.get("count_include_pad", False) and padding != NO_PADDING
        layer = Pool(function, tuple(options["kernel"]), tuple(options["stride"]), padding, counted, ceil)
        if ceil and not rounds_alike(layer):
            raise UnsupportedError("its ceil_mode begins windows beyond the image")
        return layer

    return read


def rounds_alike(layer: Pool) -> bool:
    """Whether MXNet's ceil_mode, unlike PyTorch's, adds no window that begins beyond the image."""
    each = zip(layer.padding, layer.stride, layer.size, strict=True)
    return all(before + stride <= size for (before, _), stride, size in each)


ACTIVATIONS = {"relu": "relu", "sigmoid": "sigmoid", "tanh": "tanh", "softrelu": "softplus"}


def _activation(m: Any) -> Layer:
    if m._act_type not in ACTIVATIONS:
        raise UnsupportedError(f"{m._act_type} is none of convlab's functions")
    return Activation(ACTIVATIONS[m._act_type])


def _swish(m: Any) -> Layer:
    if m._beta != 1:
        raise UnsupportedError(f"beta {m._beta} is MXNet's alone")
    return Activation("silu")


def _dropout(m: Any) -> Layer:
    if m._axes:
        raise UnsupportedError("axes are MXNet's alone")
    return Dropout(m._rate)


def _reflection(m: Any) -> Layer:
    *_, top, bottom, left, right = m._padding
    return Pad(((top, bottom), (left, right)), "reflect")


MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge"}
_READERS: dict[type, Callable[[Any], Layer]] = {
    Conv2D: _ours,
    nn.Conv2D: _convolution,
    nn.BatchNorm: _batch_norm,
    nn.MaxPool2D: _pool("max"),
    nn.AvgPool2D: _pool("average"),
    nn.GlobalMaxPool2D: lambda m: GlobalPool("max"),
    nn.GlobalAvgPool2D: lambda m: GlobalPool("average"),
    nn.Flatten: lambda m: Flatten("CHW"),
    nn.Dense: lambda m: Dense(ops.to_numpy(value_of(m.weight)), _array(m.bias), _dtype(m.weight)),
    nn.Dropout: _dropout,
    nn.ReflectionPad2D: _reflection,
    Pad2D: lambda m: Pad(m.pads, LOWEST if m.value else next(mode for mode, name in MODES.items() if name == m.mode)),
    nn.Activation: _activation,
    ReLU6: lambda m: Activation("relu6"),
    mx.gluon.model_zoo.vision.mobilenet.RELU6: lambda m: Activation("relu6"),
    nn.LeakyReLU: lambda m: Activation("leaky_relu", _single(m._alpha)),
    nn.ELU: lambda m: Activation("elu", _single(m._alpha)),
    nn.GELU: lambda m: Activation("gelu"),
    nn.Swish: _swish,
}


def _single(number: float) -> float:
    return float(np.float32(number))  # which is how MXNet holds it, whatever the dtype
