"""PyTorch's layers, read and built: see `convlab.models`."""

from __future__ import annotations

import contextlib
import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from convlab.errors import ModelError, UnsupportedError
from convlab.models.adapters import ROLES
from convlab.models.layers.activations import Activation
from convlab.models.layers.layer import (
    LOWEST,
    BatchNorm,
    Convolution,
    Dense,
    Dropout,
    Flatten,
    Layer,
    Pad,
    depends_on_size,
)
from convlab.models.layers.pooling import GlobalPool, Pool
from convlab.models.layers.reading import Model, Part, around, is_around, known, loose_array, loose_code, unbuilt

from .layers import Conv2D
from .ops import ops

BUILTIN = True
SAME = False  # whether its convolution pads by the image's size
LAYOUT = "NCHW"
FILES = (".pt", ".pth")


def read(model: nn.Module, inputs: Any = None) -> Model:
    """See `convlab.models.adapters`."""
    with_code: dict[str, nn.Module] = {}  # containers that do more than call their layers in turn

    def parts(module: nn.Module, path: str) -> Iterator[Part]:
        children = [(name, child) for name, child in module._modules.items() if child is not None]
        if isinstance(module, tuple(_READERS)) or not children:
            if not isinstance(module, nn.Identity) or not _forwards_as(module, nn.Identity):
                yield Part(path, module, *_read(module, path))
            return
        if not _forwards_as(module, nn.Sequential):
            with_code[path] = module
        for name, child in children:
            yield from parts(child, f"{path}.{name}" if path else name)

    with _inference([model]):  # in which a parametrisation doesn't change with each look
        found = list(parts(model, ""))
        loose = _loose(model, found, with_code)
    return Model("torch", found, not with_code, model, loose=loose)


def _loose(model: nn.Module, parts: Sequence[Part], with_code: Mapping[str, nn.Module]) -> dict[str, str]:
    """Parameters, buffers and operations that belong to no known layer."""
    inside = {id(module) for part in parts if part.layer is not None for module in part.native.modules()}
    loose = {}
    for path, module in model.named_modules():
        if id(module) not in inside:
            arrays = [("parameter", module.named_parameters), ("buffer", module.named_buffers)]
            for kind, named in arrays:
                for name, array in named(path, recurse=False):
                    loose[name] = loose_array(kind, array.shape)
    operations = _operations(model) if with_code else {}
    for path, module in with_code.items():
        loose[f"{path}.forward()".lstrip(".")] = loose_code(module, "forward", operations.get(path, ()))
    return loose


class _Tracer(torch.fx.Tracer):
    def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(module, tuple(_READERS)) or not module._modules


def _operations(model: nn.Module) -> dict[str, list[str]]:
    """What the containers in a model call beside their layers, by their paths, as far as it can be traced."""
    operations: dict[str, list[str]] = {}
    try:
        nodes = _Tracer().trace(model).nodes
    except Exception:  # whatever the model's own code does with a proxy
        return operations
    for node in nodes:
        if node.op in ("call_function", "call_method"):
            path = next(reversed(node.meta.get("nn_module_stack") or [""]))
            operations.setdefault(path, []).append(_name(node.target))
    return operations


def _name(target: Any) -> str:
    return target if isinstance(target, str) else str(getattr(target, "__name__", target))


def _read(module: nn.Module, path: str) -> tuple[Layer | None, str]:
    if any(is_lazy(each) or each.is_meta for each in [*module.parameters(), *module.buffers()]):
        raise unbuilt(path, module, "run it once")
    kind = next((kind for kind in _READERS if isinstance(module, kind)), None)
    if kind and not _forwards_as(module, kind):
        return None, f"{type(module).__name__}: it is a {kind.__name__} with a forward of its own"
    return known(module, _READERS)


def _forwards_as(module: nn.Module, kind: type[nn.Module]) -> bool:
    return getattr(type(module), "forward", None) is kind.forward and "forward" not in vars(module)


def _array(x: Tensor | None) -> np.ndarray | None:
    return None if x is None else ops.to_numpy(x)


def _dtype(x: Tensor) -> str:
    return str(ops.dtype(x))


def _pair(value: Any) -> tuple[int, int]:
    first, second = value if isinstance(value, (tuple, list)) else (value, value)
    return first, second


def _convolution(m: nn.Conv2d) -> Layer:
    return Convolution.of(
        ops.to_numpy(m.weight),
        _array(m.bias),
        _dtype(m.weight),
        stride=_pair(m.stride),
        padding=m.padding if isinstance(m.padding, str) else around(_pair(m.padding)),
        padding_mode=m.padding_mode,
        dilation=_pair(m.dilation),
        groups=m.groups,
    )


def _batch_norm(m: nn.BatchNorm2d) -> Layer:
    if m.running_mean is None or m.running_var is None:
        raise UnsupportedError("it keeps no running statistics")
    ones = torch.ones_like(m.running_mean)
    scale, shift = (ones, 0 * ones) if m.weight is None else (m.weight, m.bias)
    arrays = [ops.to_numpy(each) for each in (m.running_mean, m.running_var, scale, shift)]
    # None: the mean of all batches so far.
    return BatchNorm(*arrays, m.eps, round(1 - (0.1 if m.momentum is None else m.momentum), 12), _dtype(m.running_mean))


def _max_pool(m: nn.MaxPool2d) -> Layer:
    if _pair(m.dilation) != (1, 1) or m.return_indices:
        raise UnsupportedError("dilation and return_indices are PyTorch's alone")
    return Pool("max", _pair(m.kernel_size), _pair(m.stride), around(_pair(m.padding)), False, m.ceil_mode)


def _average_pool(m: nn.AvgPool2d) -> Layer:
    if m.divisor_override is not None:
        raise UnsupportedError("divisor_override is PyTorch's alone")
    counted = m.count_include_pad and _pair(m.padding) != (0, 0)
    return Pool("average", _pair(m.kernel_size), _pair(m.stride), around(_pair(m.padding)), counted, m.ceil_mode)


def _global_pool(function: str) -> Callable[[Any], Layer]:
    def read(m: Any) -> Layer:
        if _pair(m.output_size) != (1, 1):
            raise UnsupportedError(f"an output of {m.output_size} is PyTorch's alone")
        return GlobalPool(function)

    return read


def _flatten(m: nn.Flatten) -> Layer:
    if (m.start_dim, m.end_dim) != (1, -1):
        raise UnsupportedError(f"it flattens axes {m.start_dim} to {m.end_dim}")
    return Flatten("CHW")


def _softplus(m: nn.Softplus) -> Layer:
    if m.beta != 1 or m.threshold < 20:
        raise UnsupportedError(f"beta {m.beta} and threshold {m.threshold} are PyTorch's alone")
    return Activation("softplus")


def _pad(mode: str) -> Callable[[Any], Layer]:
    def read(m: Any) -> Layer:
        left, right, top, bottom = m.padding
        return Pad(((top, bottom), (left, right)), mode)

    return read


def _constant_pad(m: nn.ConstantPad2d) -> Layer:
    if m.value not in (0, -math.inf):
        raise UnsupportedError(f"a border of {m.value}")
    return _pad("zeros" if m.value == 0 else LOWEST)(m)


def _ours(m: Conv2D) -> Layer:
    return Convolution.ours(m.spec, ops.to_numpy(m.weight), _array(m.bias), _dtype(m.weight))


_PADS = {
    "zeros": nn.ZeroPad2d,
    "reflect": nn.ReflectionPad2d,
    "replicate": nn.ReplicationPad2d,
    "circular": nn.CircularPad2d,
    LOWEST: partial(nn.ConstantPad2d, value=-math.inf),
}
_READERS: dict[type[nn.Module], Callable[[Any], Layer]] = {
    Conv2D: _ours,
    nn.Conv2d: _convolution,
    nn.BatchNorm2d: _batch_norm,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveMaxPool2d: _global_pool("max"),
    nn.AdaptiveAvgPool2d: _global_pool("average"),
    nn.Flatten: _flatten,
    nn.Linear: lambda m: Dense(ops.to_numpy(m.weight), _array(m.bias), _dtype(m.weight)),
    nn.Dropout: lambda m: Dropout(m.p),
    nn.ReLU6: lambda m: Activation("relu6"),
    nn.ReLU: lambda m: Activation("relu"),
    nn.LeakyReLU: lambda m: Activation("leaky_relu", m.negative_slope),
    nn.ELU: lambda m: Activation("elu", m.alpha),
    nn.Sigmoid: lambda m: Activation("sigmoid"),
    nn.Tanh: lambda m: Activation("tanh"),
    nn.Softplus: _softplus,
    nn.SiLU: lambda m: Activation("silu"),
    nn.GELU: lambda m: Activation("gelu" if m.approximate == "none" else "gelu_tanh"),
    **{kind: _pad(mode) for mode, kind in _PADS.items() if isinstance(kind, type)},
    nn.ConstantPad2d: _constant_pad,  # after ZeroPad2d, which is one
}


def build(layer: Layer, style: str) -> list[nn.Module]:
    """See `convlab.models.adapters`."""
    return _BUILDERS[type(layer)](layer, style)


def _filled(module: nn.Module, **arrays: np.ndarray | None) -> nn.Module:
    for name, array in arrays.items():
        if array is not None:
            target = getattr(module, name)
            target.detach().copy_(torch.from_numpy(np.array(array)))
    return module.eval()


def _build_convolution(layer: Convolution, style: str) -> list[nn.Module]:
    spec = layer.spec
    if style == "convlab":
        options, weight = layer.ours_for("NCHW")
        return [_filled(Conv2D(**options), weight=weight, bias=layer.bias)]
    before: list[nn.Module] = []
    if isinstance(spec.padding, str):
        raise depends_on_size(spec.padding)
    if not is_around(spec.padding):  # which its convolution can't express
        before = _build_pad(Pad(spec.padding, spec.padding_mode), style)
    conv = nn.Conv2d(
        spec.in_channels,
        spec.out_channels,
        spec.kernel_size,
        spec.stride,
        0 if before else tuple(pads[0] for pads in spec.padding),
        spec.dilation,
        spec.groups,
        spec.use_bias,
        "zeros" if before else spec.padding_mode,
        dtype=getattr(torch, spec.dtype),
    )
    return [*before, _filled(conv, weight=layer.kernel, bias=layer.bias)]


def _build_pad(layer: Pad, style: str) -> list[nn.Module]:
    (top, bottom), (left, right) = layer.pads
    return [_PADS[layer.mode]((left, right, top, bottom))]


def _build_pool(layer: Pool, style: str) -> list[nn.Module]:
    if isinstance(layer.padding, str):
        raise depends_on_size(layer.padding)
    if not is_around(layer.padding):
        raise UnsupportedError(f"torch's pooling has no padding {layer.padding}.", hint="pad before it.")
    padding = tuple(pads[0] for pads in layer.padding)
    if layer.function == "max":
        return [nn.MaxPool2d(layer.size, layer.stride, padding, ceil_mode=layer.ceil)]
    return [nn.AvgPool2d(layer.size, layer.stride, padding, layer.ceil, layer.count_padding)]


def _build_global_pool(layer: GlobalPool, style: str) -> list[nn.Module]:
    pool = nn.AdaptiveMaxPool2d(1) if layer.function == "max" else nn.AdaptiveAvgPool2d(1)
    return [pool] if layer.keepdims else [pool, nn.Flatten()]


def _build_batch_norm(layer: BatchNorm, style: str) -> list[nn.Module]:
    momentum = round(1 - layer.momentum, 12)
    norm = nn.BatchNorm2d(len(layer.mean), layer.epsilon, momentum, dtype=getattr(torch, layer.dtype))
    return [_filled(norm, **_arrays(norm, layer))]


def _build_flatten(layer: Flatten, style: str) -> list[nn.Module]:
    if layer.order != "CHW":
        raise UnsupportedError("torch flattens images channel by channel, this one pixel by pixel.")
    return [nn.Flatten()]


def _build_dense(layer: Dense, style: str) -> list[nn.Module]:
    outputs, inputs = layer.kernel.shape
    dense = nn.Linear(inputs, outputs, layer.bias is not None, dtype=getattr(torch, layer.dtype))
    return [_filled(dense, weight=layer.kernel, bias=layer.bias)]


def _build_activation(layer: Activation, style: str) -> list[nn.Module]:
    made = {
        "relu": nn.ReLU,
        "relu6": nn.ReLU6,
        "leaky_relu": lambda: nn.LeakyReLU(layer.parameter),
        "elu": lambda: nn.ELU(layer.parameter),
        "sigmoid": nn.Sigmoid,
        "tanh": nn.Tanh,
        "softplus": nn.Softplus,
        "silu": nn.SiLU,
        "gelu": nn.GELU,
        "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    }
    return [made[layer.function]()]


_BUILDERS: dict[type[Layer], Callable[[Any, str], list[nn.Module]]] = {
    Convolution: _build_convolution,
    Pad: _build_pad,
    Pool: _build_pool,
    GlobalPool: _build_global_pool,
    BatchNorm: _build_batch_norm,
    Dropout: lambda layer, style: [nn.Dropout(layer.rate).eval()],
    Flatten: _build_flatten,
    Dense: _build_dense,
    Activation: _build_activation,
}


def assemble(steps: Sequence[tuple[str, nn.Module]]) -> nn.Module:
    """See `convlab.models.adapters`."""
    return nn.Sequential(OrderedDict(steps)).eval()


def run(natives: Sequence[nn.Module], x: np.ndarray, dtype: str) -> np.ndarray:
    """See `convlab.models.adapters`."""
    with torch.no_grad(), _inference(natives):
        return ops.to_numpy(_through(natives, _tensor(x, natives, dtype)))


def _tensor(x: np.ndarray, natives: Sequence[nn.Module], dtype: str) -> Tensor:
    device = next((each.device for native in natives for each in native.parameters()), "cpu")
    return torch.from_numpy(np.ascontiguousarray(x)).to(getattr(torch, dtype)).to(device)


def _through(natives: Sequence[nn.Module], x: Tensor, leaves: dict[str, Tensor] | None = None) -> Tensor:
    """The natives one after another; the convolution among them with other parameters, if they are given."""
    for native in natives:
        nhwc = isinstance(native, Conv2D) and native.spec.data_format == "NHWC"
        x = x.permute(0, 2, 3, 1) if nhwc else x.clone() if getattr(native, "inplace", False) else x
        x = torch.func.functional_call(native, leaves, (x,)) if leaves and _convolves(native) else native(x)
        x = x.permute(0, 3, 1, 2) if nhwc else x
    return x


def _convolves(native: nn.Module) -> bool:
    return isinstance(native, (Conv2D, nn.Conv2d))


@contextlib.contextmanager
def _inference(natives: Sequence[nn.Module]) -> Iterator[None]:
    before = [(module, module.training) for native in natives for module in native.modules()]
    try:
        for module, _ in before:
            module.training = False
        yield
    finally:
        for module, training in before:
            module.training = training


def gradients(natives: Sequence[nn.Module], x: np.ndarray, dy: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """See `convlab.models.adapters`."""
    owner = next((each for each in natives if _convolves(each)), None)
    named = dict(owner.named_parameters(recurse=False)) if owner else {}
    named = {name: each for name, each in named.items() if name in ("weight", "bias")}
    with torch.inference_mode(False), torch.enable_grad(), _inference(natives):
        leaves = {name: each.detach().clone().requires_grad_() for name, each in named.items()}
        inputs = _tensor(x, natives, dtype).requires_grad_()
        y = _through(natives, inputs, leaves)
        dx, *others = torch.autograd.grad(y, [inputs, *leaves.values()], _tensor(dy, natives, dtype))
    found = {"X": ops.to_numpy(dx)} | {name: ops.to_numpy(each) for name, each in zip(leaves, others, strict=True)}
    if isinstance(owner, Conv2D) and "weight" in found:
        found["weight"] = Convolution.ours(owner.spec, found["weight"], None, dtype).kernel
    return {ROLES.get(name, name): each for name, each in found.items()}


def fill(model: Model, layers: Mapping[str, Layer]) -> nn.Module:
    """See `convlab.models.adapters`."""
    other = copy.deepcopy(model.native)
    for part in read(other).parts:
        if part.path in layers:
            training = part.native.training
            _filled(part.native, **_arrays(part.native, layers[part.path])).train(training)
    return other


def _arrays(module: nn.Module, layer: Any) -> dict[str, np.ndarray | None]:
    """A layer's arrays by the names and in the layout that a module has them."""
    if isinstance(layer, BatchNorm):
        arrays = {"running_mean": layer.mean, "running_var": layer.variance}
        return arrays | ({} if module.weight is None else {"weight": layer.scale, "bias": layer.shift})
    if isinstance(module, Conv2D):
        _, weight = layer.ours_for(module.spec.data_format)
        return {"weight": weight.reshape(module.weight.shape), "bias": layer.bias}
    return {"weight": layer.kernel, "bias": layer.bias}


def weights(model: nn.Module) -> dict[str, Tensor]:
    """See `convlab.models.adapters`."""
    return model.state_dict()


def with_weights(model: nn.Module, weights: Any) -> nn.Module:
    """See `convlab.models.adapters`."""
    other = copy.deepcopy(model)
    other.load_state_dict(weights)
    return other


def save(model: nn.Module, path: Path) -> None:
    """See `convlab.models.adapters`."""
    torch.save(model.state_dict(), path)


def load(path: Path, model: nn.Module) -> Any:
    """See `convlab.models.adapters`; no pickled code is run."""
    found = torch.load(path, map_location="cpu", weights_only=True)
    for name, each in model.state_dict().items():
        if name in found and each.is_floating_point() != found[name].is_floating_point():
            raise ModelError(
                f"{name}: got {found[name].dtype}, expected {each.dtype}.", hint="they are another model's."
            )
    return found
