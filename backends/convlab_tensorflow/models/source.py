"""Keras's layers as source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import layers as kl

from convlab.models.adapters import Node
from convlab.models.layers.arguments import input_name
from convlab.models.layers.flattening import Flatten
from convlab.models.layers.inputs import ONE_IMAGE, Inputs
from convlab.models.layers.outputs import Outputs, template_of
from convlab.models.layers.ranks import rank_of
from convlab.models.layers.reading import INPUT, Part, is_chain
from convlab.models.layers.shapes import Known, known_after
from convlab.models.layers.spatial import Size
from convlab.models.source.code import Code, SourceCall, brief, call_of, formatted, imports, parameters_of
from convlab.models.source.forward import is_reassigned, variables_of
from convlab.models.source.functions import called_again, functions
from convlab.models.source.layers import ours, padding, unwritten

from .. import attention_layers, image_layers, resizing_layers
from ..attention_layers import PixelAttention
from ..border_layers import BorderPadding
from ..layers import LOWEST_PADDING, Conv2D
from ..pooling_layers import AdaptivePooling, PaddedAverage
from ..transposed_layers import GROUPED
from . import across_channels
from .activations import gelu_tanh
from .inputs import image_shape
from .readers import DEPTHWISE, RMS_NORMS, TRANSPOSED, each_rank

# Layers that Keras hasn't got.
_OURS = (
    image_layers.ChannelAffine,
    image_layers.Chunk,
    image_layers.ChannelShuffle,
    image_layers.PixelShuffle,
    image_layers.LinearUpSampling,
    image_layers.BroadcastLike,
    image_layers.Clip,
    image_layers.Elementwise,
    image_layers.Divide,
    image_layers.Subsample,
    image_layers.ChannelPool,
    image_layers.GlobalSum,
    image_layers.ChannelSlice,
    resizing_layers.Resize,
    resizing_layers.ResizeLike,
    *across_channels.KINDS,
    AdaptivePooling,
    PaddedAverage,
    *GROUPED,
    attention_layers.WindowAttention,
    attention_layers.ClassToken,
    attention_layers.PositionEmbedding,
    attention_layers.FirstPixel,
    attention_layers.DotProductAttention,
)
_IMPORTS = {
    "keras": "import keras",
    "layers": "from keras import layers",
    " ": "",
    "lab": "from convlab import tensorflow as lab",
    **{
        kind.__name__: f"from {kind.__module__} import {kind.__name__}"
        for kind in (*LOWEST_PADDING, BorderPadding, PixelAttention, *_OURS)
    },
}


def source(parts: Sequence[Part], size: Size | None, inputs: Inputs = ONE_IMAGE) -> str:
    """See `convlab.models.adapters.Models`: a function `build`, of a Sequential or of a functional model."""
    if [part.path for part in parts] == [""]:
        return _text(formatted(f"model = {_made(parts[0])}", 0), between=1)
    dtypes = {_dtype(part.native) for part in parts} - {"float32"}
    further = {"dtype": dtypes.pop()} if dtypes else {}
    if len(inputs) > 1:
        return _of_several_inputs(parts, inputs, further)
    shape, parameters = _image(parts, size)
    image = call_of("keras.Input", keras.Input, shape=shape, **further)
    sections: list[str] = []
    if is_chain(parts) and not called_again(parts):
        chain = [image, *(_made(part) for part in parts)]
        lines = [f"return {SourceCall('keras.Sequential', {'0': chain}, positional=1)}"]
    else:
        sections, (*statements, result) = functions(parts, _made, {INPUT: "inputs"}, returns=False)
        returned = f"return keras.Model(inputs, {result.removeprefix('return ')})"
        lines = [f"inputs = {image}", *statements, returned]
    lines = [f"def build({parameters}):", *(line for each in lines for line in formatted(each, 4))]
    return _text([*(f"{section}\n\n" for section in sections), *lines], between=2)


def _of_several_inputs(parts: Sequence[Part], inputs: Inputs, further: Mapping[str, str]) -> str:
    """A function `build` of a model with several inputs, each with its name."""
    names, made = variables_of(inputs), list[str]()
    variables = {value: f"{name}_input" if is_reassigned(name) else name for value, name in names.items()}
    for (value, variable), shape in zip(variables.items(), inputs.values(), strict=True):
        channels, *pixels = shape or ()
        image = call_of("keras.Input", keras.Input, shape=(*pixels, channels), **further, name=input_name(value))
        made.append(f"{variable} = {image}")
    sections, (*statements, result) = functions(parts, _made, variables, returns=False)
    returned = f"return keras.Model([{', '.join(variables.values())}], {result.removeprefix('return ')})"
    lines = ["def build():", *(line for each in (*made, *statements, returned) for line in formatted(each, 4))]
    return _text([*(f"{section}\n\n" for section in sections), *lines], between=2)


def _image(parts: Sequence[Part], size: Size | None) -> tuple[tuple[Any, ...], str]:
    """The shape of the image, and the parameters of `build`: what a dense layer takes depends on the image's size."""
    rank = rank_of([part.layer for part in parts])
    nodes = [Node(part.path, part.native, part.inputs, part.value) for part in parts]
    *pixels, channels = image_shape(nodes) or (None,) * (rank + 1)
    values = {INPUT: Known()}
    for part in parts:
        inputs = [values[value] for value in part.inputs]
        values[part.value] = known_after(part.layer, inputs)
        if isinstance(part.layer, Flatten) and inputs[0].size is None and len(pixels) == rank:
            names = {1: ("length",), 2: ("rows", "columns"), 3: ("depth", "rows", "columns")}[rank]
            return (*(size or map(Code, names)), channels), "" if size else ", ".join(names)
    return (*pixels, channels), ""


def _text(lines: Sequence[str], between: int) -> str:
    code = "\n".join(lines)
    code = f"{_GELU_TANH}\n\n\n{code}" if "(gelu_tanh)" in code else code
    return imports(code, _IMPORTS) + "\n" * (between + 1) + code + "\n"


def _made(part: Part) -> SourceCall | str:
    """The call that makes a layer, or the expression of several results."""
    if isinstance(part.layer, Outputs):
        return template_of(part.layer.names, "[]")
    kind = type(part.native)
    if kind not in _LAYERS or part.layer is None:
        raise unwritten(part, "Keras")
    made = _LAYERS[kind](part.native)
    further = {"name": part.native.name} if part.native.weights and not part.path.isdigit() else {}
    if _dtype(part.native) != "float32" and kind is not Conv2D:
        further["dtype"] = _dtype(part.native)
    return SourceCall(made.function, {**made.arguments, **further}, made.defaults, made.positional)


def _dtype(native: kl.Layer) -> str:
    return str(native.dtype_policy.name)


def _layer(native: kl.Layer) -> SourceCall:
    """The call with the arguments of a layer's own configuration; those of initialisers and the like stay defaults."""
    kind = type(native)
    config = {name: value for name, value in native.get_config().items() if name in parameters_of(kind)}
    options = {name: brief(value) for name, value in config.items() if not name.endswith(_NOT_WRITTEN)}
    if options.get("activation") == "linear":
        options["activation"] = None
    if options.get("data_format") == keras.config.image_data_format():
        del options["data_format"]
    if kind not in _OURS and "pool_size" in options and options["strides"] == options["pool_size"]:
        options["strides"] = None
    for name in {"padding", "cropping"} & options.keys():
        pads = config[name]
        of_axes = not isinstance(pads, str) and not isinstance(pads[0], int)
        options[name] = padding(tuple(tuple(ends) for ends in pads)) if of_axes else brief(pads)
    return call_of(kind.__name__ if kind in _OURS else f"layers.{kind.__name__}", kind, **options)


_GELU_TANH = """@keras.saving.register_keras_serializable()
def gelu_tanh(x):
    return keras.activations.gelu(x, approximate=True)"""
_NOT_WRITTEN = ("_initializer", "_regularizer", "_constraint", "name", "dtype", "trainable")


def _activation(native: kl.Activation) -> SourceCall:
    if native.activation is gelu_tanh:
        return SourceCall("layers.Activation", {"activation": Code("gelu_tanh")}, {}, 1)
    return SourceCall("layers.Activation", {"activation": native.get_config()["activation"]}, {}, 1)


def _attention(native: PixelAttention) -> SourceCall:
    options = {"num_heads": native.num_heads, "key_dim": native.key_dim, "dropout": native.dropout}
    options |= {"value_dim": None if native.value_dim == native.key_dim else native.value_dim}
    options |= {"use_bias": native.use_bias, "attention_axes": (1, 2)}
    return call_of("PixelAttention", keras.layers.MultiHeadAttention, **options)


def _together(native: keras.Sequential) -> SourceCall:
    """Layers that are one together, such as a change of the shape and a permutation."""
    inside = [_LAYERS[type(layer)](layer) for layer in native.layers]
    return SourceCall("keras.Sequential", {"0": inside}, positional=1)


# Each kind of layer: the call that makes it.
_LAYERS: dict[type[kl.Layer], Callable[[Any], SourceCall]] = {
    Conv2D: lambda native: ours(native.spec),
    **dict.fromkeys(
        LOWEST_PADDING,
        lambda native: SourceCall(type(native).__name__, {"padding": native.padding}, positional=1),
    ),
    BorderPadding: lambda native: call_of(
        "BorderPadding", BorderPadding, padding=native.padding, mode=native.mode, value=native.value
    ),
    kl.Activation: _activation,
    keras.Sequential: _together,
    **dict.fromkeys(_OURS, _layer),
    PixelAttention: _attention,
    **dict.fromkeys(
        (
            *each_rank("Conv"),
            *DEPTHWISE,
            kl.BatchNormalization,
            *TRANSPOSED,
            kl.GroupNormalization,
            kl.LayerNormalization,
            *RMS_NORMS,
            kl.PReLU,
            *each_rank("UpSampling"),
            kl.Resizing,
            *each_rank("Cropping"),
            kl.Dense,
            kl.Dropout,
            *each_rank("SpatialDropout"),
            kl.Flatten,
            kl.Reshape,
            kl.Permute,
            *each_rank("ZeroPadding"),
            *each_rank("MaxPooling"),
            *each_rank("AveragePooling"),
            *each_rank("GlobalMaxPooling"),
            *each_rank("GlobalAveragePooling"),
            kl.ReLU,
            kl.LeakyReLU,
            kl.ELU,
            kl.Softmax,
            kl.Rescaling,
            kl.Add,
            kl.Subtract,
            kl.Multiply,
            kl.Maximum,
            kl.Minimum,
            kl.Concatenate,
        ),
        _layer,
    ),
}
