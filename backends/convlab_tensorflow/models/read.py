"""Keras's layers, read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from convlab.errors import UnsupportedError
from convlab.models.adapters import as_arrays
from convlab.models.layers.arguments import arguments_needed, examples_of, input_values
from convlab.models.layers.flattening import Flatten, Unflatten
from convlab.models.layers.layer import Layer
from convlab.models.layers.moved import layer_that_moves
from convlab.models.layers.ranks import rank_of
from convlab.models.layers.reading import (
    INPUT,
    InputShape,
    Model,
    Part,
    chained,
    consumers,
    loose_array,
    loose_code,
    replaces,
    unbuilt,
    walk,
)
from convlab.models.layers.spatial import to_first, to_last

from .. import private
from .activations import NOTHING
from .arrays import array_of
from .graph import graph_of
from .readers import (
    DEPTHWISE,
    FORMATS,
    JOINING,
    READERS,
    SEPARABLE,
    WEIGHTED,
    children,
    each_rank,
    layout,
    read_layer,
    takes_rows,
)
from .run import run
from .tokens import convolution_of_patches, of_itself

Shape = Sequence[int | None] | None

# What changes images, or numbers, in training alone; some of them aren't in each Keras.
_AUGMENTATIONS = """
RandomFlip RandomRotation RandomTranslation RandomZoom RandomShear RandomPerspective RandomElasticTransform
RandomBrightness RandomContrast RandomHue RandomSaturation RandomSharpness RandomGrayscale RandomInvert RandomErasing
RandomColorJitter RandomColorDegeneration RandomPosterization RandomGaussianBlur MixUp CutMix AugMix RandAugment
GaussianNoise GaussianDropout AlphaDropout ActivityRegularization
"""
_IN_TRAINING = {getattr(kl, name) for name in _AUGMENTATIONS.split() if hasattr(kl, name)}


def read(model: kl.Layer, inputs: Any = None) -> Model:
    """See `convlab.models.adapters.Models`."""
    parts, with_code = walk(model, _inside, _parts, _is_chain, "/")
    unused = dict(_in_training(model, ""))
    layouts = {layout(part.native) for part in parts} - {None}
    one_layout, why = len(layouts) <= 1, {}
    if one_layout and (with_code or any(part.layer is None for part in parts)):
        rank = rank_of([part.layer for part in parts])
        # Code may be known for images of the examples' size alone.
        for alone in (False, True) if inputs is not None else (False,):
            try:
                return replace(_graph(model, inputs, layouts, rank, alone), unused=unused)
            except UnsupportedError as error:
                path, _, rest = str(error).rstrip(".").partition(": ")
                why = {path: rest} if path in with_code else {"": str(error).rstrip(".")}
    whole = not with_code and one_layout
    parts = [_with_reason(part, why.get("", "")) for part in parts] if whole else parts
    parts = [*_with_order(chained(parts))] if whole else parts
    loose = _loose(model, {} if whole else with_code or {"": model}, why)
    return Model("tensorflow", parts, whole, model, _inputs(model).get(INPUT), loose, unused=unused)


def _graph(model: kl.Layer, inputs: Any, layouts: set[str | None], rank: int, alone: bool) -> Model:
    """A model whose parts aren't one after another; `alone` for images of the size of the examples alone."""
    named = _inputs(model)
    shapes = dict.fromkeys(named) if len(named) > 1 else _shapes(model, inputs, layouts, rank)
    channels_last = (layouts or {FORMATS[keras.config.image_data_format()]}) == {"NHWC"}
    parts = graph_of(model, lambda layer, path: [*_parts(layer, path)], JOINING, shapes, channels_last, alone)
    taken = dict.fromkeys(shapes) | named if {*named} <= {*shapes} else dict.fromkeys(shapes)
    if alone:
        first = "NCHW" in layouts
        given = {value: tuple(each or ())[1:] for value, each in shapes.items()}
        taken = {value: each if first else (each[-1], *each[:-1]) for value, each in given.items()}
    return Model("tensorflow", [*_with_order(parts)], True, model, taken.get(INPUT), alone=alone, inputs=taken)


def _with_reason(part: Part, why: str) -> Part:
    """A layer of a model that isn't known, with why the graph that it is in isn't."""
    return replace(part, note=f"{part.note}: {why}") if part.layer is None and part.path and why else part


def _in_training(layer: kl.Layer, path: str) -> Iterator[tuple[str, str]]:
    """The paths of the layers that do something in training alone and aren't ported, and what they are."""
    if type(layer) in _IN_TRAINING:
        yield path, f"{type(layer).__name__}, which does nothing in inference"
    for name, child in _inside(layer):
        yield from _in_training(child, f"{path}/{name}" if path else name)


def _with_order(parts: Sequence[Part]) -> Iterator[Part]:
    """The parts, where two are one: a permutation of an image's axes and a change of shape are, channel by channel."""
    takers, by_value = consumers(parts), {part.value: part for part in parts}
    joined: dict[str, tuple[Part, Layer]] = {}
    for part in parts:
        first = by_value.get(part.inputs[0])
        both = None if first is None or len(takers[first.value]) != 1 else _together(first, part)
        if first is not None and both is not None:
            joined[part.value] = first, both
    needless = {first.value for first, _ in joined.values()}
    for part in parts:
        if part.value in joined:
            first, both = joined[part.value]
            native = keras.Sequential([first.native, part.native])
            yield Part(part.path, native, both, type(both).__name__, first.inputs, part.value)
        elif part.value not in needless:
            yield part


def _permutes(part: Part, order: Sequence[int]) -> bool:
    return isinstance(part.native, kl.Permute) and (0, *part.native.dims) == order


def _axes_of_reshape(part: Part) -> int:
    """The axes that it gives each image, or each row of numbers; 0 for another layer."""
    return len(part.native.target_shape) if isinstance(part.native, kl.Reshape) and takes_rows(part.native) else 0


def _together(first: Part, second: Part) -> Layer | None:
    """What a permutation and a flattening, an image of rows and a permutation, or patches and a dense layer are."""
    if (convolution := convolution_of_patches(first, second)) is not None:
        return convolution
    rank = _axes_of_reshape(first) - 1
    if isinstance(second.layer, Flatten) and any(_permutes(first, to_first(n)) for n in (1, 2, 3)):
        return Flatten("CHW")
    if rank > 0 and _permutes(second, to_last(rank)):
        return Unflatten(tuple(first.native.target_shape[1:]), "CHW")
    return None


def _shapes(model: kl.Layer, inputs: Any, layouts: set[str | None], rank: int) -> Mapping[str, Shape]:
    """The shapes, with the batch, of what a model with a `call` of its own takes, by the values of its inputs."""
    built = (model.get_build_config() or {}) if model.built else {}
    own_code = type(model).call is not private.functional_class().call  # type: ignore[attr-defined]
    names = (arguments_needed(model.call) if own_code else []) or ["inputs"]
    given: Any = built.get("input_shape")
    several = isinstance(given, (tuple, list)) and any(isinstance(each, (tuple, list)) for each in given)
    if several and len(names) == 1:  # one argument, which is a list
        names = [f"{names[0]}_{number}" for number in range(len(given))]
    examples = examples_of(inputs, names)
    if examples is not None:
        shapes = [_with_batch(np.shape(x), layouts, rank) for x in examples]
    elif len(names) > 1:
        shapes = [*given] if several else [(built.get("shapes_dict") or {}).get(f"{name}_shape") for name in names]
    else:
        shapes = [given if isinstance(given, (tuple, list)) else None]
    return dict(zip(input_values(names), shapes, strict=True))


def _with_batch(shape: Sequence[int], layouts: set[str | None], rank: int) -> Shape:
    """The shape of images, or rows, as Keras has them, of one example or several."""
    n, *image = shape if len(shape) == rank + 2 or (len(shape) == 2 and rank > 1) else (1, *shape)
    return (n, *image) if "NCHW" in layouts else (n, *image[1:], image[0])


def _inside(layer: kl.Layer) -> list[tuple[str, kl.Layer]]:
    """The layers inside a container, by name."""
    return [] if isinstance(layer, tuple(READERS)) else [(child.name, child) for child in children(layer)]


def _inputs(model: kl.Layer) -> dict[str, InputShape | None]:
    """The inputs that a model says it takes, with their shapes, (C, H, W)."""
    inputs = getattr(model, "inputs", None) if isinstance(model, keras.Model) else None
    if not inputs:
        return {INPUT: None}
    nhwc = (layout(model) or FORMATS[keras.config.image_data_format()]) == "NHWC"
    shapes = [tuple(tensor.shape[1:]) for tensor in inputs]
    shapes = [(shape[-1], *shape[:-1]) if nhwc else shape for shape in shapes]
    return dict(zip(input_values([tensor.name for tensor in inputs]), shapes, strict=True))


def _loose(model: kl.Layer, with_code: Mapping[str, kl.Layer], why: Mapping[str, str]) -> dict[str, str]:
    """Weights and operations that belong to no known layer."""
    loose: dict[str, str] = {}

    def visit(layer: kl.Layer, path: str) -> None:
        inside = _inside(layer)
        if not inside and all(part.layer is not None for part in _parts(layer, path)):
            return
        below = {id(variable) for _, child in inside for variable in child.weights}
        for variable in layer.weights:
            if id(variable) not in below:
                loose[f"{path}/{variable.name}".lstrip("/")] = loose_array("weight", variable.shape)
        for name, child in inside:
            visit(child, f"{path}/{name}" if path else name)

    visit(model, "")
    for path, layer in with_code.items():
        loose[f"{path}/call()".lstrip("/")] = loose_code(layer, "call", [why[path]] if path in why else [])
    return loose


def _is_chain(layer: kl.Layer) -> bool:
    """Whether a layer calls its children once each, one after another, and does nothing else."""
    if isinstance(layer, keras.Sequential):
        return not replaces(layer, keras.Sequential, "call")
    functional: Any = private.functional_class()
    if not isinstance(layer, functional) or replaces(layer, functional, "call"):
        return False
    calls = private.calls(layer)
    if calls is None:
        return False
    layers = [call.operation for call in calls if isinstance(call.operation, kl.Layer)]
    return (
        len(layer.inputs) == len(layer.outputs) == 1
        and len(calls) == len(layers) == len(set(map(id, layers)))
        and all(len(call.input_tensors) == 1 for call in calls)
        and all(value is None for call in calls for value in call.arguments.kwargs.values())
    )


def _parts(layer: kl.Layer, path: str) -> Iterator[Part]:
    """The part that a layer is, or two if there is an activation inside; none for a layer that does nothing."""
    activation = None if isinstance(layer, kl.Activation) else getattr(layer, "activation", None)
    if isinstance(layer, WEIGHTED) and not layer.built:
        raise unbuilt(path, layer, "call it once")
    if type(layer) in SEPARABLE:
        yield from _separable(layer, path)
    else:
        known_layer, note = read_layer(layer)
        known_layer = known_layer or _moving(layer)
        if not path and of_itself(layer) is not layer:
            known_layer, note = None, f"{note}: alone it takes queries and values, not one tensor"
        if known_layer is None or activation in NOTHING:
            if not _does_nothing(layer):
                yield Part(path, layer if known_layer is None else of_itself(layer), known_layer, note)
            return
        yield Part(path, _without_activation(layer), known_layer, note)
    if activation in NOTHING:
        return
    native = activation if isinstance(activation, kl.Layer) else kl.Activation(activation, autocast=False)
    yield Part(path, native, *read_layer(native))


def _moving(layer: kl.Layer) -> Layer | None:
    """What anyone's layer without weights computes, such as a `Lambda`, if it only moves numbers of images."""
    if layer.weights or private.layers_inside(layer) or isinstance(layer, (*READERS, kl.InputLayer)):
        return None
    try:
        shape = tuple(layer.input.shape)
    except (AttributeError, ValueError):  # It wasn't called, or more than once.
        shape = (layer.get_build_config() or {}).get("input_shape") or () if layer.built else ()
    channels = shape[-1] if len(shape) == 4 and keras.config.image_data_format() == "channels_last" else None

    def called(x: np.ndarray) -> np.ndarray:
        (result,) = as_arrays(run([layer], x, layer.compute_dtype))
        return result

    return layer_that_moves(called, channels) if channels else None


def _separable(layer: Any, path: str) -> Iterator[Part]:
    """The two convolutions that a separable one is: of each channel by itself, and of each pixel."""
    config = layer.get_config()
    shared = {name: config[name] for name in ("data_format", "dtype")}
    options = {name: config[name] for name in ("strides", "padding", "dilation_rate", "depth_multiplier")}
    rank = SEPARABLE.index(type(layer)) + 1
    depthwise = DEPTHWISE[rank - 1](config["kernel_size"], **options, use_bias=False, **shared)
    pointwise = each_rank("Conv")[rank - 1](config["filters"], 1, use_bias=config["use_bias"], **shared)
    channels = layer.get_build_config()["input_shape"]
    after, unknown = layer.pointwise_kernel.shape[-2], (None,) * rank
    bias = [] if layer.bias is None else [layer.bias]
    first = layout(layer) == "NCHW"
    for native, shape, variables in (
        (depthwise, channels, [layer.depthwise_kernel]),
        (pointwise, (None, after, *unknown) if first else (None, *unknown, after), [layer.pointwise_kernel, *bias]),
    ):
        native.build(shape)
        native.set_weights([array_of(variable) for variable in variables])
        yield Part(f"{path}/{'depthwise' if native is depthwise else 'pointwise'}", native, *read_layer(native))


def _does_nothing(layer: kl.Layer) -> bool:
    if isinstance(layer, kl.Activation):
        return layer.activation in NOTHING
    return type(layer) in {kl.Identity, kl.InputLayer, *_IN_TRAINING}


def _without_activation(layer: kl.Layer) -> kl.Layer:
    other = type(layer).from_config({**layer.get_config(), "activation": None})
    other.build_from_config(layer.get_build_config())
    other.set_weights(layer.get_weights())
    return other
