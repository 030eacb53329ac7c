"""PyTorch's layers, read."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from convlab.errors import UnsupportedError
from convlab.models.layers.across_channels import GatedLinearUnit
from convlab.models.layers.activations import Activation, PReLU, Softmax
from convlab.models.layers.arguments import arguments_needed, examples_of
from convlab.models.layers.channels import ChannelShuffle, PixelShuffle
from convlab.models.layers.flattening import Flatten, Unflatten
from convlab.models.layers.folded import convolution
from convlab.models.layers.inputs import behind, takes_rows
from convlab.models.layers.layer import BatchNorm, Convolution, Dense, Dropout, Layer
from convlab.models.layers.pixels import Upsample
from convlab.models.layers.ranks import own_rank, rank_of
from convlab.models.layers.reading import (
    INPUT,
    Model,
    Part,
    chained,
    known,
    loose_array,
    loose_code,
    replaces,
    unbuilt,
    walk,
)
from convlab.models.layers.shapes import gives_rows
from convlab.models.layers.spatial import WHAT, around, per_axis
from convlab.models.layers.transposed import transposed_convolution

from ..layers import Conv2D
from ..ops import ops
from ..private import hooks_before
from . import across_channels, activations, attention, borders, modules, partitions, pooling, resizing, written_out
from .attention import SHIFTED_WINDOWS
from .channel_convolutions import RowConvolution, read_row_convolution
from .functions import class_path, read_function
from .modules import StochasticDepth
from .network import Network
from .norms import (
    array_of,
    dtype_of,
    read_batch_norm,
    read_channel_affine,
    read_group_norm,
    read_instance_norm,
    read_layer_norm,
    read_norm_of_one_pixel,
    read_rms_norm,
)
from .pooling import rank_of_class
from .sizes import channels_of_first
from .trace import traced
from .tracer import unchanged
from .wrappers import unwrapped


def read(model: nn.Module, inputs: Any = None) -> Model:
    """See `convlab.models.adapters.Models`."""
    written_out.forget()
    model = unwrapped(model)
    if not isinstance(model, nn.Module):
        return Model("torch", [Part("", model, *read_function(model))], True, model)
    if type(model) is Network:
        parts = [*_with_rows([*_of_network(model)], model.inputs)]
        return Model("torch", parts, True, model, inputs=dict.fromkeys(model.inputs))
    with inference([model]):  # in training a parametrisation may change with each look
        _compute_kernels(model)
        parts, with_code = walk(model, _children, _parts, _is_chain, ".")
        unknown: dict[str, list[str]] = {}
        if with_code or any(part.layer is None and not _of_torch(part.native) for part in parts):
            whole, unknown = _traced(model, None)
            at_size = None
            if inputs is not None:
                at_size, unknown = _at_size(model, inputs, whole, unknown)
            if at_size is not None:
                return at_size
            if whole is not None:
                return whole
        parts = [_with_reason(part, unknown) for part in parts]
        parts = parts if with_code else [*_with_rows(parts)]
        loose = _loose(model, parts, with_code, unknown)
    return Model("torch", parts, not with_code, model, loose=loose)


def _at_size(
    model: nn.Module, inputs: Any, whole: Model | None, unknown: dict[str, list[str]]
) -> tuple[Model | None, dict[str, list[str]]]:
    """The model for inputs of these shapes, if it isn't known for all; None, and what convlab doesn't know."""
    try:
        for shapes in _shapes(model, inputs):
            size = max(shapes.values(), key=len)[1:]
            if not size or (whole is not None and whole.holds_at(size)):
                break
            at_size, unknown = _traced(model, shapes)
            if at_size is not None and (whole is None or at_size.holds_at(size)):
                return at_size, {}
    except UnsupportedError as error:
        unknown = {"": [str(error)]}
    return None, unknown


def _shapes(model: nn.Module, inputs: Any) -> Iterator[dict[str, tuple[int, ...]]]:
    """The shapes of a model's arguments by their names, as examples have them; of one image the model tells more."""
    names = arguments_needed(model.forward) or [*inspect.signature(model.forward).parameters][:1]
    shapes = {name: each.shape[1:] for name, each in zip(names, examples_of(inputs, names) or (), strict=True)}
    if len(names) == 1:
        told = {names[0]: (channels_of_first(model), *shapes[names[0]][1:])}
        yield from (told,) if told == shapes else (told, shapes)
    else:
        yield shapes


def _traced(
    model: nn.Module, shapes: Mapping[str, tuple[int, ...]] | None
) -> tuple[Model | None, dict[str, list[str]]]:
    """A model with code of its own, for inputs (C, H, W) alone or for all; None, and what convlab doesn't know."""
    try:
        with unchanged(model):
            trace = traced(model, _is_leaf, _of_torch, lambda module, path: [*_parts(module, path)], shapes)
    except UnsupportedError as error:
        return None, {"": [str(error).rstrip(".")]}
    if trace.unknown:
        return None, trace.unknown
    whole = [*_with_rows(trace.parts, [*trace.inputs])]
    unused, inputs = _loose(model, whole, {}, {}) | trace.unused, trace.inputs
    image, alone = inputs.get(INPUT), shapes is not None
    return Model("torch", whole, True, model, image, {}, trace.multiple, unused, alone=alone, inputs=inputs), {}


def _compute_kernels(model: nn.Module) -> None:
    """Let the hooks that compute kernels from others do so, as each call of the model does before anything else."""
    with torch.no_grad():
        for module in model.modules():
            for hook in hooks_before(module):
                if isinstance(hook, (SpectralNorm, WeightNorm)):
                    hook(module, ())


def _with_reason(part: Part, unknown: Mapping[str, Sequence[str]]) -> Part:
    """A layer that isn't known, with what of its code isn't."""
    why = unknown.get(part.path, ()) if part.layer is None and part.path else ()
    return replace(part, note=f"{part.note}: {', '.join(dict.fromkeys(why))}") if why else part


def _of_network(network: Network) -> Iterator[Part]:
    for name, native, inputs, value in network:
        parts = (
            [*_parts(native, name)] if isinstance(native, nn.Module) else [Part(name, native, *read_function(native))]
        )
        yield replace(parts[0] if parts else Part(name, native, Dropout(0.0)), inputs=inputs, value=value)


def _of_torch(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.")


def _is_leaf(module: nn.Module) -> bool:
    kind = next((kind for kind in (*_READERS, nn.MultiheadAttention) if isinstance(module, kind)), None)
    if kind is not None and not replaces(module, kind, "forward"):
        return True
    named = *SHIFTED_WINDOWS, *partitions.ATTENTION, *_BY_NAME
    return class_path(module) in named or written_out.written_attention(module) is not None


@contextlib.contextmanager
def inference(natives: Sequence[nn.Module]) -> Iterator[None]:
    """A context in which modules, and all inside them, are in inference mode."""
    modes = [(module, module.training) for native in natives for module in native.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """What is right inside a container; unlike in `named_children`, a module that stands there twice counts twice."""
    if _is_leaf(module):
        return []
    inside = module.named_modules(remove_duplicate=False)
    return [(name, child) for name, child in inside if name and "." not in name]


def _is_chain(module: nn.Module) -> bool:
    return not replaces(module, nn.Sequential, "forward")


def _parts(module: nn.Module, path: str) -> Iterator[Part]:
    empty = type(module) is nn.Sequential and not len(module)
    if not empty and (not isinstance(module, nn.Identity) or replaces(module, nn.Identity, "forward")):
        for each in borders.crop_and_border(module):
            yield Part(path, each, *_read(each, path))


_ELEMENTWISE = (Activation, BatchNorm, Dropout, PReLU)


_NORMS_OF_ROWS: dict[type, Callable[[Any], Layer]] = {nn.LayerNorm: read_layer_norm, nn.RMSNorm: read_rms_norm}
# What goes along an axis, which is the last one of rows of numbers.
_OVER_LAST: dict[type, Layer] = {nn.Softmax: Softmax(), nn.LogSoftmax: Softmax(log=True), nn.GLU: GatedLinearUnit()}


def _with_rows(parts: Sequence[Part], inputs: Sequence[str] = (INPUT,)) -> Iterator[Part]:
    """The parts, where the last axis of rows of numbers, behind a flattening, is that of the channels."""
    parts = parts if all(part.value for part in parts) else chained(parts)
    rows = {value for value in inputs if _are_rows([part.layer for part in behind(parts, value)], len(inputs) > 1)}
    images, rank = set[str](), rank_of([part.layer for part in parts if not resizing.is_of_any_rank(part.native)])
    for part in parts:
        of_rows = part.inputs[0] in rows
        over_any = isinstance(part.native, (nn.Softmax, nn.LogSoftmax))
        if of_rows and type(part.native) in _OVER_LAST and part.native.dim == -1:
            part = replace(part, layer=_OVER_LAST[type(part.native)])
        if of_rows and type(part.native) in _NORMS_OF_ROWS:
            part = replace(part, layer=_NORMS_OF_ROWS[type(part.native)](part.native))
        if isinstance(part.layer, Upsample) and resizing.is_of_any_rank(part.native):
            part = replace(part, layer=replace(part.layer, factor=part.layer.factor[:1] * rank))
        wanted = 0 if of_rows else rank
        if isinstance(part.layer, BatchNorm) and part.layer.rank != wanted:
            fits = isinstance(part.native, nn.BatchNorm1d) and wanted == 1
            layer = replace(part.layer, rank=wanted) if fits else None
            part = replace(part, layer=layer, note=part.note if fits else f"{part.note}: it normalises {WHAT[wanted]}")
        if wanted == 1 and over_any and part.native.dim is None:
            part = replace(part, layer=None, note=f"{part.note}: without dim, it goes over the images")
        if isinstance(part.layer, Unflatten) and not of_rows:
            part = replace(part, layer=None, note=f"{part.note}: it is given images, expected rows of numbers")
        if isinstance(part.layer, Dense) and part.inputs[0] in images:
            part = replace(part, layer=None, note=f"{part.note}: it is applied to each row of pixels")
        yield part
        as_before = isinstance(part.layer, _ELEMENTWISE) and part.inputs[0] in images
        if as_before or (own_rank(part.layer) and not gives_rows(part.layer)):
            images.add(part.value)
        if isinstance(part.layer, Unflatten):
            continue
        if of_rows or gives_rows(part.layer) or isinstance(part.layer, (Dense, Flatten)):
            rows.add(part.value)


def _are_rows(layers: Sequence[Layer | None], beside_others: bool) -> bool:
    """Whether layers take rows of numbers first; `beside_others`, perhaps joined with those of another input."""
    if beside_others:
        return takes_rows(layers)
    first = layers[0] if layers else None
    # A BatchNorm1d takes rows, too, where nothing says that there are sequences.
    of_rows = isinstance(first, BatchNorm) and first.rank == 0 and not any(map(own_rank, layers))
    return isinstance(first, Dense) or of_rows


def _loose(
    model: nn.Module, parts: Sequence[Part], with_code: Mapping[str, nn.Module], unknown: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Parameters, buffers and operations that belong to no known layer."""
    natives = [part.native for part in parts if part.layer is not None and isinstance(part.native, nn.Module)]
    inside = {id(array) for native in natives for array in (*native.parameters(), *native.buffers())}
    taken = {part.path for part in parts}
    loose = {}
    for kind, arrays in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, array in arrays:
            owner, _, own = name.rpartition(".")
            counts = own == "num_batches_tracked" and id(model.get_submodule(owner).running_mean) in inside
            if id(array) in inside or name in taken or counts:
                continue
            module = model.get_submodule(owner)
            if owner and owner not in taken and not with_code and type(module) in _READERS:
                loose[owner] = f"a {type(module).__name__} that the model's code doesn't call"
            else:
                loose[name] = loose_array(kind, array.shape)
    refused = {part.path for part in parts if part.layer is None}
    for path, module in with_code.items():
        inside_it = [at for at in unknown if at not in refused and _around(at, with_code) == path]
        if inside_it:
            whys = [why for at in inside_it for why in unknown[at]]
            loose[f"{path}.forward()".lstrip(".")] = loose_code(module, "forward", whys)
    return loose


def _around(path: str, with_code: Mapping[str, nn.Module]) -> str:
    """The module with code of its own that a path is of, or is in."""
    while path and path not in with_code:
        path = path.rpartition(".")[0]
    return path


def _read(module: nn.Module, path: str) -> tuple[Layer | None, str]:
    if any(is_lazy(array) or array.is_meta for array in [*module.parameters(), *module.buffers()]):
        raise unbuilt(path, module, "run it once")
    if class_path(module) in _BY_NAME:
        return _BY_NAME[class_path(module)](module), type(module).__name__
    return known(module, _READERS, "forward")


def _convolution(m: Any, padding: Any = None) -> Layer:
    padding, kernel = m.padding if padding is None else padding, ops.to_numpy(m.weight)
    rank = kernel.ndim - 2
    return convolution(
        kernel,
        array_of(m.bias),
        dtype_of(m.weight),
        stride=per_axis(m.stride, rank),
        padding=padding if isinstance(padding, str) else around(per_axis(padding, rank)),
        padding_mode=m.padding_mode,
        dilation=per_axis(m.dilation, rank),
        groups=m.groups,
    )


def _flatten(m: nn.Flatten) -> Layer:
    if (m.start_dim, m.end_dim) != (1, -1):
        raise UnsupportedError(f"it flattens the axes {m.start_dim} to {m.end_dim}, expected 1 to -1")
    return Flatten("CHW")


def _unflatten(m: nn.Unflatten) -> Layer:
    sizes = tuple(m.unflattened_size)
    if m.dim not in (1, -1) or not 1 < len(sizes) < 5 or not all(isinstance(n, int) and n > 0 for n in sizes[1:]):
        raise UnsupportedError(f"it gives axis {m.dim} the sizes {sizes}, expected (channels, rows, columns) of axis 1")
    return Unflatten(sizes[1:])


def _softmax(m: Any) -> Layer:
    # Without a dim, PyTorch takes the channels of images and of rows, and warns.
    if m.dim not in (1, None):
        raise UnsupportedError(f"its axis is {m.dim}, expected 1, the channels")
    return Softmax(isinstance(m, nn.LogSoftmax))


def _transposed(m: Any) -> Layer:
    if m.padding_mode != "zeros":
        raise UnsupportedError(f"its padding_mode is {m.padding_mode}, expected zeros")
    crop = tuple((before, before - more) for before, more in zip(m.padding, m.output_padding, strict=True))
    options = m.stride, crop, m.dilation, m.groups
    return transposed_convolution(ops.to_numpy(m.weight), array_of(m.bias), *options, dtype_of(m.weight))


def _of_pixels(m: modules.PixelLinear) -> Layer:
    kernel = ops.to_numpy(m.weight)
    return convolution(kernel.reshape(*kernel.shape, *(1,) * m.rank), array_of(m.bias), dtype_of(m.weight))


def _ours(m: Conv2D) -> Layer:
    return Convolution.ours(m.spec, ops.to_numpy(m.weight), array_of(m.bias), dtype_of(m.weight))


_READERS: dict[type[nn.Module], Callable[[Any], Layer]] = {
    Conv2D: _ours,
    RowConvolution: read_row_convolution,
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _transposed),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), read_batch_norm),
    nn.GroupNorm: read_group_norm,
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), read_instance_norm),
    modules.LayerNorm2d: read_layer_norm,
    nn.LayerNorm: read_norm_of_one_pixel,
    modules.RMSNorm2d: read_rms_norm,
    modules.ChannelAffine: read_channel_affine,
    modules.PixelLinear: _of_pixels,
    **attention.READERS,
    **written_out.READERS,
    **partitions.READERS,
    nn.Upsample: resizing.read_upsample,
    nn.ChannelShuffle: lambda m: ChannelShuffle(m.groups),
    nn.PixelShuffle: lambda m: PixelShuffle(m.upscale_factor),
    **across_channels.MODULES,
    **pooling.READERS,
    nn.Flatten: _flatten,
    nn.Linear: lambda m: Dense(ops.to_numpy(m.weight), array_of(m.bias), dtype_of(m.weight)),
    nn.Dropout: lambda m: Dropout(m.p),
    **dict.fromkeys(
        (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d), lambda m: Dropout(m.p, channels=True, rank=rank_of_class(m))
    ),
    StochasticDepth: lambda m: Dropout(m.p, images=True),
    nn.Unflatten: _unflatten,
    nn.PReLU: lambda m: PReLU(ops.to_numpy(m.weight), dtype_of(m.weight)),
    nn.Softmax: _softmax,
    nn.LogSoftmax: _softmax,
    **activations.READERS,
    **borders.READERS,
}

# Classes of others, by the names that they are imported by, which keep their forward.
_BY_NAME: dict[str, Callable[[Any], Layer]] = {
    "timm.layers.conv2d_same.Conv2dSame": lambda m: _convolution(m, padding="same"),
    **pooling.BY_NAME,
}
