"""Mistakes that people make when they copy a model, each planted into one node of a model: `FAULTS`, for `faults.py`.

To add a fault, write a function and register it: `@in_layer` for a mistake in one layer, `@in_graph` for one in what
takes what. It gives the model with the fault, or None where the model has none to plant there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from convlab.geometry.geometry import Pads
from convlab.models.layers.activations import FUNCTIONS, Activation, Affine
from convlab.models.layers.flattening import Flatten
from convlab.models.layers.joining import Add, Concatenate, Multiply
from convlab.models.layers.layer import BatchNorm, Convolution, Dense, Dropout, Layer
from convlab.models.layers.pooling import GlobalPool, Pool
from convlab.models.layers.reading import INPUT, Part, consumers, without
from convlab.models.layers.transposed import TransposedConvolution

Rng = np.random.Generator


@dataclass(frozen=True)
class Planted:
    """A model with a fault.

    Attributes:
        parts: its parts, with the paths of the model that it was; a new part's path begins with "new".
        paths: where a comparison may say that the models diverge; the fault is at the first of them.
        inside: what is done to the fault's native layer, which reading the model doesn't show; None for nothing.
    """

    parts: list[Part]
    paths: tuple[str, ...]
    inside: Callable[[Any], None] | None = None


@dataclass(frozen=True)
class FaultKind:
    """A kind of fault.

    Attributes:
        plant: the parts of a model and the index of one of them, which gets the fault.
        words: a pattern of what a diagnosis must say.
        backends: in whose models it can be planted; () for all.
    """

    plant: Callable[[Rng, list[Part], int], Planted | None]
    words: str
    backends: tuple[str, ...] = ()


FAULTS: dict[str, FaultKind] = {}
# What has kernels, and what computes sums of products.
_KERNELS = Convolution, TransposedConvolution
_PRODUCTS = *_KERNELS, Dense
_NO_ACTIVATION = f"has no ({'|'.join(FUNCTIONS)})"


def in_graph(name: str, words: str, *backends: str) -> Callable[[Any], Any]:
    return lambda plant: FAULTS.setdefault(name, FaultKind(plant, words, backends))


def in_layer(name: str, words: str, *kinds: type[Layer]) -> Callable[[Any], Any]:
    """Register a function that gives the layer with the fault, or None if it can't have it."""

    def register(change: Callable[[Rng, Any], Layer | None]) -> Any:
        def plant(rng: Rng, parts: list[Part], index: int) -> Planted | None:
            part = parts[index]
            layer = change(rng, part.layer) if isinstance(part.layer, kinds) else None
            if layer is None:
                return None
            return Planted([*parts[:index], replace(part, layer=layer), *parts[index + 1 :]], (part.path,))

        FAULTS[name] = FaultKind(plant, words)
        return change

    return register


def _geometry(layer: Convolution, **options: Any) -> Convolution:
    return replace(layer, spec=replace(layer.spec, **options))


def _pads(layer: Convolution) -> Pads:
    assert not isinstance(layer.spec.padding, str)
    return layer.spec.padding


@in_layer("other padding", "the first pads", Convolution)
def _other_padding(rng: Rng, layer: Convolution) -> Layer | None:
    change = int(rng.choice((-1, 1, 2)))
    rows, columns = (tuple(max(0, n + change) for n in ends) for ends in _pads(layer))
    return _geometry(layer, padding=(rows, columns))


@in_layer("padding at one end", "the first pads", Convolution)
def _uneven_padding(rng: Rng, layer: Convolution) -> Layer | None:
    rows, columns = ((before - 1, after + 1) for before, after in _pads(layer))
    return _geometry(layer, padding=(rows, columns)) if rows[0] >= 0 else None


@in_layer("padding mode", r"the border \(padding_mode\) is", Convolution)
def _padding_mode(rng: Rng, layer: Convolution) -> Layer | None:
    modes = [mode for mode in ("zeros", "reflect", "replicate", "circular") if mode != layer.spec.padding_mode]
    return _geometry(layer, padding_mode=str(rng.choice(modes))) if max(map(max, _pads(layer))) else None


@in_layer("stride", "stride is", Convolution)
def _stride(rng: Rng, layer: Convolution) -> Layer | None:
    return _geometry(layer, stride=(1, 1) if layer.spec.stride != (1, 1) else (2, 2))


@in_layer("dilation", "dilation is", Convolution)
def _dilation(rng: Rng, layer: Convolution) -> Layer | None:
    return _geometry(layer, dilation=(1, 1) if layer.spec.dilation != (1, 1) else (2, 2))


@in_layer("kernel flipped", "kernel flipped", *_KERNELS)
def _flipped(rng: Rng, layer: Any) -> Layer | None:
    return replace(layer, kernel=np.ascontiguousarray(np.flip(layer.kernel, (2, 3))))


@in_layer("kernel transposed", "kernel transposed", *_KERNELS)
def _transposed(rng: Rng, layer: Any) -> Layer | None:
    return replace(layer, kernel=np.ascontiguousarray(layer.kernel.swapaxes(2, 3)))


@in_layer("kernel's memory read in another layout", "kernel layout", Convolution)
def _layout(rng: Rng, layer: Convolution) -> Layer | None:
    return replace(layer, kernel=layer.kernel.transpose(2, 3, 1, 0).reshape(layer.kernel.shape))


@in_layer("permuted outputs", "permuted outputs|output channels reversed|channel groups", *_PRODUCTS)
def _permuted_outputs(rng: Rng, layer: Any) -> Layer | None:
    axis = _outputs_of(layer)
    order = rng.permutation(layer.kernel.shape[axis])
    bias = None if layer.bias is None else layer.bias[order]
    return replace(layer, kernel=np.take(layer.kernel, order, axis), bias=bias)


def _outputs_of(layer: Any) -> int:
    """The axis of a layer's kernel that its outputs are on."""
    return int(isinstance(layer, TransposedConvolution))


@in_layer("permuted inputs", "permuted inputs|input channels reversed|channel groups", *_PRODUCTS)
def _permuted_inputs(rng: Rng, layer: Any) -> Layer | None:
    axis = 1 - _outputs_of(layer)
    order = rng.permutation(layer.kernel.shape[axis])
    return replace(layer, kernel=np.ascontiguousarray(np.take(layer.kernel, order, axis)))


@in_layer("padding of a transposed convolution", "other padding|crop is", TransposedConvolution)
def _other_crop(rng: Rng, layer: TransposedConvolution) -> Layer | None:
    change = int(rng.choice((-1, 1)))
    rows, columns = ((start + change, end + change) for start, end in layer.crop)
    return replace(layer, crop=(rows, columns)) if rows[0] >= 0 else None


@in_layer("output_padding forgotten", "other padding|crop is", TransposedConvolution)
def _no_output_padding(rng: Rng, layer: TransposedConvolution) -> Layer | None:
    rows, columns = ((start, start) for start, _ in layer.crop)
    return replace(layer, crop=(rows, columns)) if layer.crop != (rows, columns) else None


@in_layer("groups in another order", "permuted outputs|output channels reversed|channel groups", Convolution)
def _groups(rng: Rng, layer: Convolution) -> Layer | None:
    groups = np.split(layer.kernel, layer.spec.groups)
    order = rng.permutation(len(groups))
    return replace(layer, kernel=np.concatenate([groups[i] for i in order])) if len(groups) > 1 else None


@in_layer("scaled weights", "scaled weights", *_PRODUCTS)
def _scaled(rng: Rng, layer: Any) -> Layer | None:
    return replace(layer, kernel=layer.kernel * np.float32(rng.choice((0.5, 2.0, 1 / 255, 1.1))))


@in_layer("negated weights", "negated weights", *_PRODUCTS)
def _negated(rng: Rng, layer: Any) -> Layer | None:
    return replace(layer, kernel=-layer.kernel)


@in_layer("no bias", "the first has a bias, the second none", *_PRODUCTS)
def _no_bias(rng: Rng, layer: Any) -> Layer | None:
    if layer.bias is None:
        return None
    return replace(_geometry(layer, use_bias=False) if isinstance(layer, Convolution) else layer, bias=None)


@in_layer("another bias", "bias (negated|doubled|reversed)|bias differs", *_PRODUCTS)
def _another_bias(rng: Rng, layer: Any) -> Layer | None:
    if layer.bias is None:
        return None
    return replace(layer, bias=[-layer.bias, layer.bias[::-1].copy(), 2 * layer.bias][rng.integers(3)])


@in_layer("a few weights changed", "some outputs", *_PRODUCTS)
def _few_weights(rng: Rng, layer: Any) -> Layer | None:
    kernel = layer.kernel.copy()
    of_output = np.moveaxis(kernel, _outputs_of(layer), 0)
    of_output[rng.integers(len(of_output))] += np.float32(0.1)
    return replace(layer, kernel=kernel)


@in_layer("flattened in another order", "flattened in another order", Dense)
def _flatten_order(rng: Rng, layer: Dense) -> Layer | None:
    pixels = [n for n in (4, 9, 16, 64) if layer.kernel.shape[1] % n == 0 and layer.kernel.shape[1] > n]
    if not pixels:
        return None
    by_pixel = layer.kernel.reshape(len(layer.kernel), -1, pixels[0]).swapaxes(1, 2)
    return replace(layer, kernel=by_pixel.reshape(layer.kernel.shape))


@in_layer("epsilon", "epsilon is", BatchNorm)
def _epsilon(rng: Rng, layer: BatchNorm) -> Layer | None:
    return replace(layer, epsilon=float(rng.choice((1e-5, 1e-2))))


@in_layer("mean and variance swapped", "mean and variance swapped", BatchNorm)
def _statistics_swapped(rng: Rng, layer: BatchNorm) -> Layer | None:
    return replace(layer, mean=layer.variance, variance=np.abs(layer.mean))


@in_layer("scale and shift swapped", "scale and shift swapped", BatchNorm)
def _scale_swapped(rng: Rng, layer: BatchNorm) -> Layer | None:
    return replace(layer, scale=layer.shift, shift=layer.scale)


@in_layer("statistics of another momentum", "statistics of another momentum", BatchNorm)
def _momentum(rng: Rng, layer: BatchNorm) -> Layer | None:
    share = np.float32(rng.choice((0.1, 0.01, 0.9)))
    return replace(layer, mean=layer.mean * share, variance=1 + (layer.variance - 1) * share)


@in_layer("statistics not loaded", "statistics not loaded", BatchNorm)
def _fresh(rng: Rng, layer: BatchNorm) -> Layer | None:
    return replace(layer, mean=np.zeros_like(layer.mean), variance=np.ones_like(layer.variance))


_OTHERS = ("relu", "relu6", "silu", "hard_swish", "elu", "tanh", "sigmoid", "hard_sigmoid", "softplus", "mish", "selu")


@in_layer("another activation", "function is", Activation)
def _another_activation(rng: Rng, layer: Activation) -> Layer | None:
    function = str(rng.choice([each for each in _OTHERS if each != layer.function]))
    return Activation(function, 1.0 if function == "elu" else 0.0)


@in_layer("another slope", "parameter is", Activation)
def _slope(rng: Rng, layer: Activation) -> Layer | None:
    return replace(layer, parameter=layer.parameter + 0.2) if layer.function in ("leaky_relu", "elu") else None


@in_layer("another GELU", "function is gelu", Activation)
def _gelu(rng: Rng, layer: Activation) -> Layer | None:
    variants = {"gelu": "gelu_tanh", "gelu_tanh": "gelu"}
    return Activation(variants[layer.function]) if layer.function in variants else None


@in_layer("average and maximum", "function is", Pool, GlobalPool)
def _pooling(rng: Rng, layer: Any) -> Layer | None:
    return replace(layer, function={"max": "average", "average": "max"}[layer.function])


@in_layer("border counted in the mean", "count_padding", Pool)
def _counted(rng: Rng, layer: Pool) -> Layer | None:
    return replace(layer, count_padding=not layer.count_padding) if layer.function == "average" else None


@in_layer("ceil_mode", "ceil is", Pool)
def _ceil(rng: Rng, layer: Pool) -> Layer | None:
    return replace(layer, ceil=not layer.ceil)


@in_layer("pooling's window", "size is", Pool)
def _window(rng: Rng, layer: Pool) -> Layer | None:
    return replace(layer, size=(layer.size[0] + 1,) * 2)


@in_layer("number between layers", "scale is", Affine)
def _number(rng: Rng, layer: Affine) -> Layer | None:
    return replace(layer, scale=layer.scale / 2)


def _dropped(name: str, words: str, *kinds: type[Layer]) -> None:
    """Register the fault that a layer is missing."""

    @in_graph(name, words)
    def plant(rng: Rng, parts: list[Part], index: int) -> Planted | None:
        path = parts[index].path
        if not isinstance(parts[index].layer, kinds):
            return None
        return Planted(without(parts, lambda part: part.path == path), (path,))


_dropped("missing activation", _NO_ACTIVATION, Activation)
_dropped("missing batch norm", "has no batch_norm", BatchNorm)
_dropped("missing pooling", "has no pool", Pool)
_dropped("missing number", "has no affine", Affine)
_dropped("missing convolution", "has no conv", *_KERNELS)


def _inserted(parts: list[Part], after: str, layer: Layer) -> Planted:
    """The model with a new layer between a value and all that take it."""
    new = Part("new", None, layer, layer.kind, (after,), "new")
    moved = [replace(part, inputs=tuple("new" if value == after else value for value in part.inputs)) for part in parts]
    place = next((i + 1 for i, part in enumerate(parts) if part.value == after), 0)
    return Planted([*moved[:place], new, *moved[place:]], ("new",))


@in_graph("activation too many", "first model has no relu")
def _too_many(rng: Rng, parts: list[Part], index: int) -> Planted | None:
    return _inserted(parts, parts[index].value, Activation("relu")) if parts[index].layer.arrays else None


@in_graph("normalised inputs", "normalised inputs")
def _normalised(rng: Rng, parts: list[Part], index: int) -> Planted | None:
    ones = np.ones(3, "float32")
    mean, deviation = (np.array(each, "float32") for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    ways = [Affine(1 / 255), Affine(2 / 255, -1.0), BatchNorm(mean, deviation**2, ones, 0 * ones, 1e-7, 0.9)]
    return _inserted(parts, INPUT, ways[rng.integers(len(ways))]) if index == 0 else None


@in_graph("activation before batch norm", f"{_NO_ACTIVATION}|has no batch_norm")
def _order(rng: Rng, parts: list[Part], index: int) -> Planted | None:
    part = parts[index]
    before = next((each for each in parts if each.value == part.inputs[0]), None)
    if before is None or not (isinstance(part.layer, Activation) and isinstance(before.layer, BatchNorm)):
        return None
    if len(consumers(parts)[before.value]) > 1:
        return None
    places = {before.path: replace(before, layer=part.layer), part.path: replace(part, layer=before.layer)}
    return Planted([places.get(each.path, each) for each in parts], (part.path, before.path))


@in_graph("swapped inputs", "swapped inputs")
def _swapped(rng: Rng, parts: list[Part], index: int) -> Planted | None:
    if not isinstance(parts[index].layer, Concatenate):
        return None
    part = replace(parts[index], inputs=parts[index].inputs[::-1])
    return Planted([*parts[:index], part, *parts[index + 1 :]], (part.path,))


@in_graph("other inputs", "other inputs")
def _other_inputs(rng: Rng, parts: list[Part], index: int) -> Planted | None:
    part = parts[index]
    earlier = [each.value for each in parts[:index] if each.value not in part.inputs]
    # A step begins with its flattening, and so a dense layer's inputs are those of that.
    if not earlier or isinstance(part.layer, (Flatten, Dense, Dropout)):
        return None
    inputs = [*part.inputs]
    inputs[rng.integers(len(inputs))] = str(rng.choice(earlier[-6:]))
    others = [*parts[:index], replace(part, inputs=tuple(inputs)), *parts[index + 1 :]]
    # Where nothing else takes what was taken before, a layer is missing.
    return Planted(others, (part.path,)) if len(needed(others)) == len(parts) else None


@in_graph("dropped branch", "has no (add|multiply|concatenate)")
def _dropped_branch(rng: Rng, parts: list[Part], index: int) -> Planted | None:
    part = parts[index]
    if not isinstance(part.layer, (Add, Multiply)):
        return None
    kept = part.inputs[int(rng.integers(len(part.inputs)))]
    passed = [replace(part, inputs=(kept,)) if each is part else each for each in parts]
    left = needed(without(passed, lambda each: each.path == part.path))
    paths = {each.path for each in left}
    return Planted(left, tuple(each.path for each in parts if each.path not in paths))


@in_graph("a sum for a product", "the first has (add|multiply)")
def _joined_otherwise(rng: Rng, parts: list[Part], index: int) -> Planted | None:
    others = {Add: Multiply(), Multiply: Add()}
    part = parts[index]
    if type(part.layer) not in others:
        return None
    other = replace(part, layer=others[type(part.layer)])
    return Planted([*parts[:index], other, *parts[index + 1 :]], (part.path,))


@in_graph("the batch's statistics", "training mode", "torch")
def _training(rng: Rng, parts: list[Part], index: int) -> Planted | None:
    def in_training(native: Any) -> None:
        from torch.nn.functional import batch_norm

        native.register_forward_hook(
            lambda module, inputs, result: batch_norm(
                inputs[0], None, None, module.weight, module.bias, True, 0.0, module.eps
            )
        )

    is_norm = isinstance(parts[index].layer, BatchNorm)
    return Planted(parts, (parts[index].path,), in_training) if is_norm else None


def needed(parts: list[Part]) -> list[Part]:
    """The parts that the result depends on."""
    wanted = {parts[-1].value}
    for part in reversed(parts):
        if part.value in wanted:
            wanted.update(part.inputs)
    return [part for part in parts if part.value in wanted]
