"""PyTorch's functions that layers call with their arrays, such as `F.conv2d`, as the layers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from convlab.errors import UnsupportedError

from .functions import of_rank
from .rewriting import arguments_of
from .sizes import TRANSPOSED

_VIEWS = ("view", "reshape", "unsqueeze", "squeeze", "flatten", "permute", "transpose", "expand_as", "contiguous")
Arrays = Mapping[torch.fx.Node, Tensor]


def view_of(node: torch.fx.Node, arrays: Arrays) -> Tensor | None:
    """An array of the model's own with other axes, where a node gives it those; None for another call."""
    name = "__getitem__" if node.target is operator.getitem else str(getattr(node.target, "__name__", node.target))
    array, *axes = node.args or (None,)
    adds_axes = name == "__getitem__" and all(each in (slice(None), None, ...) for each in _items(axes[0]))
    if (
        not (name in _VIEWS or adds_axes)
        or array not in arrays
        or any(isinstance(each, torch.fx.Node) for each in axes)
    ):
        return None
    viewed: Tensor = getattr(arrays[array], name)(*axes, **node.kwargs)  # type: ignore[index]
    same = isinstance(arrays[array], nn.Parameter)  # type: ignore[index]
    return nn.Parameter(viewed.detach()) if same else viewed


def _items(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def layer_of(
    node: torch.fx.Node, arrays: Arrays, rank: int, channels: Callable[[Any], int]
) -> tuple[nn.Module, torch.fx.Node] | None:
    """The layer that a function of a tensor and the layer's arrays is, and the tensor; None for another function.

    Args:
        node: the call.
        arrays: the arrays by the nodes that fetch them.
        rank: how many axes the tensor has beside those of images and channels.
        channels: gives the number of a node's channels, 0 for an unknown one.

    Raises:
        UnsupportedError: an array isn't one of the model's own, or convlab can't tell what the function does.
    """
    function = next((each for each in _LAYERS if node.target in each), None)
    if function is None:
        return None
    names, make = _LAYERS[function]
    given = arguments_of(node, *names)
    own: dict[str, Tensor | None] = {}
    for name in ("weight", "bias", "running_mean", "running_var"):
        array = given.pop(name, None)
        if array is not None and array not in arrays:
            raise UnsupportedError(f"its {name} is computed")
        own[name] = None if array is None else arrays[array]
    tensor = given.pop("input")
    if not isinstance(tensor, torch.fx.Node) or tensor in arrays:
        raise UnsupportedError("it computes an array of the model's own")
    if make in (_batch_norm, _instance_norm):
        given["rank"] = rank
    if make in (_group_norm, _instance_norm):
        given["channels"] = channels(tensor)
    return make(own, given).eval(), tensor


Own = Mapping[str, Tensor | None]


def _with(module: nn.Module, own: Own, *names: str) -> nn.Module:
    """A module with these arrays for parameters."""
    for name in names:
        array = own[name]
        parameter = array if array is None or isinstance(array, nn.Parameter) else nn.Parameter(array.detach())
        module.register_parameter(name, parameter)
    return module


def _convolution(kind: type[nn.Module]) -> Callable[[Own, dict[str, Any]], nn.Module]:
    def make(own: Own, given: dict[str, Any]) -> nn.Module:
        weight, groups = own["weight"], given.get("groups", 1)
        assert weight is not None
        first, second = weight.shape[0], weight.shape[1]
        channels = (first, second * groups) if kind in TRANSPOSED else (second * groups, first)
        options = {name: _pair(value) for name, value in given.items() if name != "groups"}
        conv = kind(*channels, tuple(weight.shape[2:]), groups=groups, device="meta", **options)
        return _with(conv, own, "weight", "bias")

    return make


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _linear(own: Own, given: dict[str, Any]) -> nn.Module:
    weight = own["weight"]
    assert weight is not None
    return _with(nn.Linear(weight.shape[1], weight.shape[0], device="meta"), own, "weight", "bias")


def _batch_norm(own: Own, given: dict[str, Any]) -> nn.Module:
    mean, variance = own["running_mean"], own["running_var"]
    if given.get("training", False) or mean is None or variance is None:
        raise UnsupportedError("it normalises by the statistics of the batch, in inference, too")
    kind = of_rank("BatchNorm", given["rank"])
    norm: nn.Module = kind(len(mean), given.get("eps", 1e-5), given.get("momentum", 0.1) or 0.1, device="meta")
    norm.register_buffer("running_mean", mean)
    norm.register_buffer("running_var", variance)
    norm.num_batches_tracked = None  # type: ignore[assignment]
    return _with(norm, own, "weight", "bias")


def _group_norm(own: Own, given: dict[str, Any]) -> nn.Module:
    norm = nn.GroupNorm(given["num_groups"], _channels(own, given), given.get("eps", 1e-5), device="meta")
    return _with(norm, own, "weight", "bias")


def _instance_norm(own: Own, given: dict[str, Any]) -> nn.Module:
    if not given.get("use_input_stats", True) or own["running_mean"] is not None:
        raise UnsupportedError("it takes running statistics")
    kind = of_rank("InstanceNorm", given["rank"])
    norm: nn.Module = kind(_channels(own, given), given.get("eps", 1e-5), affine=True, device="meta")
    return _with(norm, own, "weight", "bias")


def _channels(own: Own, given: Mapping[str, Any]) -> int:
    weight = own["weight"] if own["bias"] is None else own["bias"]
    channels: int = given["channels"] if weight is None else len(weight)
    if not channels:
        raise UnsupportedError("it has neither a weight nor a bias, and its channels aren't known")
    return channels


def _prelu(own: Own, given: dict[str, Any]) -> nn.Module:
    weight = own["weight"]
    assert weight is not None
    return _with(nn.PReLU(weight.numel(), device="meta"), own, "weight")


# What normalises by the numbers that it is given, and may have none of the model's own.
NORMS = (F.group_norm, F.instance_norm, F.layer_norm, F.rms_norm)
_CONVOLUTION = ("input", "weight", "bias", "stride", "padding")
_TRANSPOSED = (*_CONVOLUTION, "output_padding", "groups", "dilation")
# The functions, the names of their arguments, and the layer that they are.
_LAYERS: dict[tuple[Any, ...], tuple[tuple[str, ...], Callable[[Own, dict[str, Any]], nn.Module]]] = {
    (F.conv1d, torch.conv1d): ((*_CONVOLUTION, "dilation", "groups"), _convolution(nn.Conv1d)),
    (F.conv2d, torch.conv2d): ((*_CONVOLUTION, "dilation", "groups"), _convolution(nn.Conv2d)),
    (F.conv3d, torch.conv3d): ((*_CONVOLUTION, "dilation", "groups"), _convolution(nn.Conv3d)),
    (F.conv_transpose1d, torch.conv_transpose1d): (_TRANSPOSED, _convolution(nn.ConvTranspose1d)),
    (F.conv_transpose2d, torch.conv_transpose2d): (_TRANSPOSED, _convolution(nn.ConvTranspose2d)),
    (F.conv_transpose3d, torch.conv_transpose3d): (_TRANSPOSED, _convolution(nn.ConvTranspose3d)),
    (F.linear,): (("input", "weight", "bias"), _linear),
    (F.batch_norm,): (
        ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
        _batch_norm,
    ),
    (F.group_norm,): (("input", "num_groups", "weight", "bias", "eps"), _group_norm),
    (F.instance_norm,): (
        ("input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps"),
        _instance_norm,
    ),
    (F.prelu, torch.prelu): (("input", "weight"), _prelu),
}
