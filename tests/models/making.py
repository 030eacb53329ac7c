"""Layers and models of any framework for the tests, made from what they compute."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from convlab import Ported, port
from convlab.errors import PartialPortWarning
from convlab.models.adapters import Node, models_of
from convlab.models.layers.layer import Convolution, Layer
from convlab.models.layers.reading import INPUT


def kernel(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Values of float32, as large as trained ones."""
    return (np.random.default_rng(seed).normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype("float32")


def convolution(
    outputs: int,
    per_group: int,
    size: tuple[int, int],
    *,
    groups: int = 1,
    bias: bool = True,
    dtype: str = "float32",
    **options: Any,
) -> Convolution:
    values = kernel((outputs, per_group, *size)).astype(dtype if dtype != "bfloat16" else "float32")
    if dtype == "bfloat16":
        values = (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    shift = values[:, 0, 0, 0] if bias else None
    return Convolution.of(values, shift, dtype, groups=groups, **options)


def built(name: str, *layers: Layer, style: str = "builtin") -> Any:
    """A native model of a backend that computes these layers; a lone layer if it takes one."""
    models = models_of(name)
    natives = [native for layer in layers for native in models.build(layer, style)]
    return natives[0] if len(natives) == 1 else assembled(models, *natives)


def assembled(models: Any, *natives: Any) -> Any:
    """A model of native layers one after another."""
    return models.assemble(nodes_of((str(i), native) for i, native in enumerate(natives)))


def nodes_of(steps: Iterable[tuple[str, Any]]) -> list[Node]:
    """The nodes of native layers with names, one after another."""
    named = list(steps)
    values = [INPUT, *map(str, range(len(named)))]
    return [Node(name, native, (values[i],), values[i + 1]) for i, (name, native) in enumerate(named)]


def port_parts(model: Any, match: str, **options: Any) -> Ported:
    """`port` of a model of which something is left out, which it must warn of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")  # These are the framework's own warnings.
        warnings.simplefilter("always", PartialPortWarning)
        ported = port(model, **options)
    assert re.search(match, str(caught[-1].message), re.DOTALL)
    assert ported.evidence.same is None
    return ported


def words(text: object) -> str:
    """A text without its line breaks."""
    return " ".join(str(text).split())


def run(name: str, model: Any, x: np.ndarray, dtype: str = "float32") -> np.ndarray:
    return models_of(name).run([model], x, dtype)
