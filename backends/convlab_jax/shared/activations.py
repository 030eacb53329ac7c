"""Functions of each number: read, built and written, for both linen and nnx."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from convlab.models.layers.activations import Activation, Clip, celu, clip
from convlab.models.layers.formulas import FORMULAS
from convlab.models.layers.layer import Layer


def composed(x: Array, function: str, parameter: float = 0.0) -> Array:
    """One of `FORMULAS` that JAX has no function for, such as "soft_shrink"."""
    y: Array = FORMULAS[function](jnp, x, parameter)
    return y


def softplus(x: Array, beta: float) -> Array:
    """log(1 + exp(beta * x)) / beta."""
    return nn.softplus(x * beta) / beta


def relu_above(x: Array) -> Array:
    """A ReLU as users write it, which is another operation than JAX's own."""
    return jnp.where(x > 0, x, 0)


def leaky_above(x: Array, negative_slope: float = 0.01) -> Array:
    """A leaky ReLU, likewise."""
    return jnp.where(x > 0, x, negative_slope * x)


# The functions of no parameter.
_NAMED: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "relu6": jax.nn.relu6,
    "sigmoid": nn.sigmoid,
    "log_sigmoid": nn.log_sigmoid,
    "tanh": nn.tanh,
    "softplus": nn.softplus,
    "softsign": nn.soft_sign,
    "silu": nn.silu,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "hard_swish": jax.nn.hard_silu,
    "mish": jax.nn.mish,
    "selu": jax.nn.selu,
    "gelu_tanh": nn.gelu,
    "abs": jnp.abs,
    "sqrt": jnp.sqrt,
    "exp": jnp.exp,
    "log": jnp.log,
    "reciprocal": jnp.reciprocal,
    "sparse_plus": jax.nn.sparse_plus,
    "sparse_sigmoid": jax.nn.sparse_sigmoid,
}
# The functions with a parameter, and its name.
_WITH_PARAMETER: dict[str, tuple[Callable[..., Array], str]] = {
    "leaky_relu": (nn.leaky_relu, "negative_slope"),
    "elu": (nn.elu, "alpha"),
    "celu": (nn.celu, "alpha"),
    "squareplus": (jax.nn.squareplus, "b"),
}
# Those of `FORMULAS` that JAX has no function for, beside the softplus of a beta.
_COMPOSED = ("soft_shrink", "hard_shrink", "threshold")


def build_of_numbers(layer: Activation | Clip) -> Callable[[Array], Array]:
    """The function that computes an activation, or limits numbers."""
    if isinstance(layer, Clip):
        least, most = layer.finite_limits
        return functools.partial(jnp.clip, min=least, max=most)
    function, parameter = layer.function, layer.parameter
    if function == "gelu":
        return functools.partial(nn.gelu, approximate=False)
    if function == "softplus" and parameter:
        return functools.partial(softplus, beta=parameter)
    if function in _NAMED:
        return _NAMED[function]
    if function in _WITH_PARAMETER:
        native, name = _WITH_PARAMETER[function]
        return functools.partial(native, **{name: parameter})
    options: dict[str, Any] = {"parameter": parameter} if parameter else {}
    return functools.partial(composed, function=function, **options)


def _named(function: str) -> Callable[[], Layer]:
    return lambda: Activation(function)


READERS: list[tuple[Any, Callable[..., Layer]]] = [
    *((function, _named(name)) for name, function in _NAMED.items() if name != "gelu_tanh"),
    (jnp.tanh, _named("tanh")),
    (nn.gelu, lambda approximate=True: Activation("gelu_tanh" if approximate else "gelu")),
    (relu_above, _named("relu")),
    (leaky_above, lambda negative_slope: Activation("leaky_relu", float(negative_slope))),
    (nn.leaky_relu, lambda negative_slope=0.01: Activation("leaky_relu", float(negative_slope))),
    (nn.elu, lambda alpha=1.0: Activation("elu", float(alpha))),
    (nn.celu, lambda alpha=1.0: celu(float(alpha))),
    (jax.nn.squareplus, lambda b=4.0: Activation("squareplus", float(b))),
    (nn.hard_tanh, lambda: clip(-1, 1)),
    (jnp.clip, lambda min=None, max=None: clip(min, max)),
    (softplus, lambda beta: Activation("softplus", float(beta))),
    (composed, Activation),
]
# Those that end like others, but do more before, come first.
ACTIVATIONS: tuple[tuple[Callable[..., Any], dict[str, Any]], ...] = (
    (nn.log_softmax, {}),
    (nn.softmax, {}),
    (nn.gelu, {}),
    (nn.gelu, {"approximate": False}),
    (jax.nn.hard_silu, {}),
    (jax.nn.hard_sigmoid, {}),
    (jax.nn.mish, {}),
    (jax.nn.selu, {}),
    (nn.silu, {}),
    (composed, {"function": "tanh_shrink"}),
    (nn.log_sigmoid, {}),
    (nn.softplus, {}),
    (nn.sigmoid, {}),
    (nn.tanh, {}),
    (nn.soft_sign, {}),
    (jax.nn.sparse_plus, {}),
    (jax.nn.sparse_sigmoid, {}),
    (nn.hard_tanh, {}),
    (jax.nn.relu6, {}),
    (nn.relu, {}),
    (jnp.abs, {}),
    (jnp.sqrt, {}),
    (jnp.exp, {}),
    (jnp.log, {}),
    (jnp.reciprocal, {}),
    (relu_above, {}),
)


def with_number(number: float) -> list[tuple[Callable[..., Any], dict[str, Any]]]:
    """The functions with a parameter that it may be."""
    native = [(function, {name: number}) for function, name in _WITH_PARAMETER.values()]
    native.append((leaky_above, {"negative_slope": number}))
    formulas = [(composed, {"function": name, "parameter": number}) for name in _COMPOSED]
    return [*native, *formulas, *([(softplus, {"beta": number})] if number > 0 else [])]


# The functions by the names that they have in Flax, under both of its names, or elsewhere.
IN_FLAX = (
    *(nn.relu, nn.leaky_relu, nn.elu, nn.celu, nn.sigmoid, nn.log_sigmoid, nn.tanh, nn.softplus, nn.soft_sign),
    *(nn.silu, nn.selu, nn.relu6, nn.hard_sigmoid, nn.hard_silu, nn.gelu),
)
ELSEWHERE = {
    **{f"jax.nn.{name}": getattr(jax.nn, name) for name in ("mish", "squareplus", "sparse_plus", "sparse_sigmoid")},
    **{f"jnp.{name}": getattr(jnp, name) for name in ("abs", "sqrt", "exp", "log", "reciprocal", "clip")},
}


def _composed(function: str, parameter: float = 0.0) -> str:
    return f'composed({{0}}, "{function}"{f", {parameter}" if parameter else ""})'


EXPRESSIONS: list[tuple[Any, Callable[..., str]]] = [
    (composed, _composed),
    (softplus, lambda beta: f"softplus({{0}}, {beta})"),
]
