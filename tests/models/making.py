"""Layers and models of any framework for the tests, made from what they compute."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np

from convlab import Ported, port
from convlab.errors import PartialPortWarning
from convlab.models.adapters import models_of
from convlab.models.layers.layer import Convolution, Layer


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
    return natives[0] if len(natives) == 1 else models.assemble([(f"n{i}", each) for i, each in enumerate(natives)])


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
