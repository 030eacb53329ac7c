"""A chain of linen layers that can be trained: the call tells batch norm and dropout whether it is for training."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
from jax import Array

from .attention import WindowAttention

# The arguments by which linen's layers are put into inference.
SWITCHES: dict[type[nn.Module], str] = {nn.BatchNorm: "use_running_average", nn.Dropout: "deterministic"}
SWITCHES.update(dict.fromkeys((nn.MultiHeadDotProductAttention, WindowAttention), "deterministic"))


def switch_of(layer: Any) -> str | None:
    """The argument that puts a layer into inference; None if it is always the same."""
    return next((switch for kind, switch in SWITCHES.items() if isinstance(layer, kind)), None)


def inference_of(train: bool, use_running_average: bool | None, deterministic: bool | None) -> dict[str, bool]:
    """The value of each switch: the one that is given, otherwise that of inference unless it is for training."""
    given = {"use_running_average": use_running_average, "deterministic": deterministic}
    return {switch: not train if value is None else value for switch, value in given.items()}


def switch_in(layer: Any, switches: dict[str, bool]) -> dict[str, bool]:
    """The arguments by which a layer is told its mode."""
    switch = switch_of(layer)
    return {} if switch is None else {switch: switches[switch]}


class Sequential(nn.Sequential):
    """`flax.linen.Sequential` with `train`, and with `use_running_average` and `deterministic`, which overrule it.

    With `train=True` batch normalisation takes the statistics of the batch and updates its running ones, where
    `mutable=["batch_stats"]` lets it, and dropout draws from `rngs={"dropout": key}`.

    >>> import jax, jax.numpy as jnp
    >>> model = Sequential([nn.BatchNorm(momentum=0.9), nn.relu])
    >>> variables = model.init(jax.random.key(0), jnp.ones((1, 2, 2, 1)))
    >>> y, updates = model.apply(variables, jnp.ones((1, 2, 2, 1)), train=True, mutable=["batch_stats"])
    >>> bool(abs(updates["batch_stats"]["layers_0"]["mean"][0] - 0.1) < 1e-6)
    True
    """

    @nn.compact
    def __call__(
        self,
        x: Array,
        train: bool = False,
        *,
        use_running_average: bool | None = None,
        deterministic: bool | None = None,
    ) -> Array:
        """The result of the layers one after another, in inference or in training."""
        switches = inference_of(train, use_running_average, deterministic)
        for layer in self.layers:
            x = layer(x, **switch_in(layer, switches))
        return x
