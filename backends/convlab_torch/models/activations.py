"""PyTorch's activations: modules and functions of each number, read, built and written."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convlab.errors import UnsupportedError
from convlab.models.layers import activations
from convlab.models.layers.activations import Activation
from convlab.models.layers.formulas import FORMULAS
from convlab.models.layers.layer import Layer

# What formulas are put together of; PyTorch's own minimum and maximum take no numbers.
_FUNCTIONS = SimpleNamespace(abs=torch.abs, sqrt=torch.sqrt, maximum=torch.clamp_min, minimum=torch.clamp_max)


def composed(x: Tensor, function: str, parameter: float = 0.0) -> Tensor:
    """One of `FORMULAS` that PyTorch has no function for: "squareplus", "sparse_plus" or "sparse_sigmoid"."""
    y: Tensor = FORMULAS[function](_FUNCTIONS, x, parameter)
    return y


def clip(x: Tensor, least: float | None = None, most: float | None = None) -> Tensor:
    """Each number, or the nearest one from the least to the most; None for no limit."""
    return x.clamp(least, most)


def _named(function: str) -> Callable[[Any], Layer]:
    return lambda m: Activation(function)


READERS: dict[type[nn.Module], Callable[[Any], Layer]] = {
    nn.ReLU6: _named("relu6"),
    nn.Hardtanh: lambda m: activations.clip(m.min_val, m.max_val),  # it stands after ReLU6, which is a subclass of it
    nn.ReLU: _named("relu"),
    nn.LeakyReLU: lambda m: Activation("leaky_relu", m.negative_slope),
    nn.RReLU: lambda m: Activation("leaky_relu", (m.lower + m.upper) / 2),
    nn.ELU: lambda m: Activation("elu", m.alpha),
    nn.CELU: lambda m: activations.celu(m.alpha),
    nn.Sigmoid: _named("sigmoid"),
    nn.LogSigmoid: _named("log_sigmoid"),
    nn.Tanh: _named("tanh"),
    nn.Softplus: lambda m: activations.softplus(m.beta, m.threshold),
    nn.Softsign: _named("softsign"),
    nn.Softshrink: lambda m: Activation("soft_shrink", m.lambd),
    nn.Hardshrink: lambda m: Activation("hard_shrink", m.lambd),
    nn.Tanhshrink: _named("tanh_shrink"),
    nn.Threshold: lambda m: activations.threshold(m.threshold, m.value),
    nn.SiLU: _named("silu"),
    nn.Hardsigmoid: _named("hard_sigmoid"),
    nn.Hardswish: _named("hard_swish"),
    nn.Mish: _named("mish"),
    nn.SELU: _named("selu"),
    nn.GELU: lambda m: Activation("gelu" if m.approximate == "none" else "gelu_tanh"),
}
FUNCTIONS: dict[Any, Callable[..., Layer]] = {
    torch.abs: lambda: Activation("abs"),
    torch.sqrt: lambda: Activation("sqrt"),
    torch.exp: lambda: Activation("exp"),
    torch.log: lambda: Activation("log"),
    torch.reciprocal: lambda: Activation("reciprocal"),
    clip: activations.clip,
    composed: Activation,
}
# The module that each function without a class of its own is built as, from its parameter.
_MODULES: dict[str, Callable[[float], Any]] = {
    "relu": lambda a: nn.ReLU(),
    "relu6": lambda a: nn.ReLU6(),
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "celu": nn.CELU,
    "sigmoid": lambda a: nn.Sigmoid(),
    "log_sigmoid": lambda a: nn.LogSigmoid(),
    "tanh": lambda a: nn.Tanh(),
    "softplus": lambda a: nn.Softplus(a or 1.0),
    "softsign": lambda a: nn.Softsign(),
    "soft_shrink": nn.Softshrink,
    "hard_shrink": nn.Hardshrink,
    "tanh_shrink": lambda a: nn.Tanhshrink(),
    "threshold": lambda a: nn.Threshold(a, 0.0),
    "silu": lambda a: nn.SiLU(),
    "hard_sigmoid": lambda a: nn.Hardsigmoid(),
    "hard_swish": lambda a: nn.Hardswish(),
    "mish": lambda a: nn.Mish(),
    "selu": lambda a: nn.SELU(),
    "gelu": lambda a: nn.GELU(),
    "gelu_tanh": lambda a: nn.GELU(approximate="tanh"),
    "abs": lambda a: torch.abs,
    "sqrt": lambda a: torch.sqrt,
    "exp": lambda a: torch.exp,
    "log": lambda a: torch.log,
    "reciprocal": lambda a: torch.reciprocal,
}


def build_activation(layer: Activation, style: str) -> list[Any]:
    """The module or the function that computes an activation."""
    function, parameter = layer.function, layer.parameter
    if function in _MODULES:
        return [_MODULES[function](parameter)]
    return [partial(composed, function=function, parameter=parameter)]


def build_clip(layer: activations.Clip, style: str) -> list[Any]:
    """The function that limits numbers."""
    least, most = layer.finite_limits
    return [partial(clip, least=least, most=most)]


def _clip(min: Any = None, max: Any = None) -> Any:
    if any(limit is not None and not isinstance(limit, (int, float)) for limit in (min, max)):
        raise UnsupportedError("its limits aren't numbers")
    return partial(clip, least=min, most=max)


def _rrelu(lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False) -> nn.Module:
    if training:
        raise UnsupportedError("its slopes are random in inference, too; training=self.training is customary")
    return nn.RReLU(lower, upper)


# The module, or the function, that computes what a function with these further arguments does.
NATIVES: list[tuple[tuple[Any, ...], Callable[..., Any]]] = [
    ((F.relu, torch.relu, "relu", "relu_"), lambda inplace=False: nn.ReLU()),
    ((F.relu6,), lambda inplace=False: nn.ReLU6()),
    ((F.leaky_relu,), lambda negative_slope=0.01, inplace=False: nn.LeakyReLU(negative_slope)),
    ((F.rrelu,), _rrelu),
    ((F.elu,), lambda alpha=1.0, inplace=False: nn.ELU(alpha)),
    ((F.celu, torch.celu), lambda alpha=1.0, inplace=False: nn.CELU(alpha)),
    ((F.gelu,), lambda approximate="none": nn.GELU(approximate)),
    ((F.silu,), lambda inplace=False: nn.SiLU()),
    ((F.hardswish,), lambda inplace=False: nn.Hardswish()),
    ((F.hardsigmoid,), lambda inplace=False: nn.Hardsigmoid()),
    ((F.mish,), lambda inplace=False: nn.Mish()),
    ((F.selu, torch.selu), lambda inplace=False: nn.SELU()),
    ((F.hardtanh,), lambda min_val=-1.0, max_val=1.0, inplace=False: nn.Hardtanh(min_val, max_val)),
    ((torch.clamp, torch.clip, "clamp", "clip", "clamp_", "clip_"), _clip),
    ((torch.clamp_min, "clamp_min", "clamp_min_"), lambda min: _clip(min=min)),
    ((torch.clamp_max, "clamp_max", "clamp_max_"), lambda max: _clip(max=max)),
    ((torch.abs, torch.absolute, "abs", "absolute", "abs_"), lambda: torch.abs),
    ((torch.sqrt, "sqrt", "sqrt_"), lambda: torch.sqrt),
    ((torch.exp, "exp", "exp_"), lambda: torch.exp),
    ((torch.log, "log", "log_"), lambda: torch.log),
    ((torch.reciprocal, "reciprocal", "reciprocal_"), lambda: torch.reciprocal),
    ((F.sigmoid, torch.sigmoid, "sigmoid", "sigmoid_"), nn.Sigmoid),
    ((F.logsigmoid,), nn.LogSigmoid),
    ((F.tanh, torch.tanh, "tanh", "tanh_"), nn.Tanh),
    ((F.softplus,), nn.Softplus),
    ((F.softsign,), nn.Softsign),
    ((F.softshrink,), nn.Softshrink),
    ((F.hardshrink, torch.hardshrink, "hardshrink"), nn.Hardshrink),
    ((F.tanhshrink,), nn.Tanhshrink),
    ((F.threshold, torch.threshold), lambda threshold, value, inplace=False: nn.Threshold(threshold, value)),
    ((composed,), lambda function, parameter=0.0: partial(composed, function=function, parameter=parameter)),
]
# The functions that compute what modules do, with the same arguments.
IN_WORDS: dict[type[nn.Module], str] = {
    nn.ReLU6: "F.relu6",
    nn.ReLU: "F.relu",
    nn.LeakyReLU: "F.leaky_relu",
    nn.ELU: "F.elu",
    nn.CELU: "F.celu",
    nn.Sigmoid: "torch.sigmoid",
    nn.LogSigmoid: "F.logsigmoid",
    nn.Tanh: "torch.tanh",
    nn.Softplus: "F.softplus",
    nn.Softsign: "F.softsign",
    nn.Softshrink: "F.softshrink",
    nn.Hardshrink: "F.hardshrink",
    nn.Tanhshrink: "F.tanhshrink",
    nn.Threshold: "F.threshold",
    nn.SiLU: "F.silu",
    nn.Hardsigmoid: "F.hardsigmoid",
    nn.Hardswish: "F.hardswish",
    nn.Mish: "F.mish",
    nn.SELU: "F.selu",
    nn.GELU: "F.gelu",
}
SOURCES: dict[Any, Callable[..., str]] = {
    torch.abs: lambda: "torch.abs({0})",
    torch.sqrt: lambda: "torch.sqrt({0})",
    torch.exp: lambda: "torch.exp({0})",
    torch.log: lambda: "torch.log({0})",
    torch.reciprocal: lambda: "torch.reciprocal({0})",
    composed: lambda function, parameter: f'composed({{0}}, "{function}"{f", {parameter}" if parameter else ""})',
}
