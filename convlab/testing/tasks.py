"""The tasks that a backend can be asked for; their arrays and their results are NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from ..geometry.options import GeometryOptions
from ..lab import Backend
from ..truth.oracle import Gradients

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


Arrays = dict[str, np.ndarray]


def compute_task(lab: Backend, request: dict[str, Any], arrays: Arrays) -> Arrays:
    """The results of a request ("task", "dtype", "options" and perhaps "function") on a backend."""
    return TASKS[request["task"]](lab, request, arrays)


def _forward(lab: Backend, request: dict[str, Any], arrays: Arrays) -> Arrays:
    x, k, b = (
        None if name not in arrays else lab.asarray(arrays[name], request["dtype"]) for name in ("X", "K", "bias")
    )
    function = lab.conv2d if request.get("function") == "conv2d" else lab.corr2d
    return {"result": lab.to_numpy(function(x, k, bias=b, **request["options"]))}


def _gradients(lab: Backend, request: dict[str, Any], arrays: Arrays) -> Arrays:
    x, k, b, dy = (lab.asarray(arrays[name], request["dtype"]) for name in ("X", "K", "bias", "dY"))
    slopes = gradients(lab, x, k, b, dy, **request["options"])
    return {f"gradient of {name}": value for name, value in slopes._asdict().items()}


def _learn(lab: Backend, request: dict[str, Any], arrays: Arrays) -> Arrays:
    x, y, init = (lab.asarray(arrays[name], request["dtype"]) for name in ("X", "Y", "init"))
    learned = lab.learn_kernel(x, y, arrays["init"].shape, init=init, **request["options"])
    return {"kernel": lab.to_numpy(learned.kernel), "losses": np.array(learned.losses)}


TASKS: dict[str, Callable[[Backend, dict[str, Any], Arrays], Arrays]] = {
    "forward": _forward,
    "gradients": _gradients,
    "learn": _learn,
}


def gradients(
    lab: Backend, X: ArrayLike, K: ArrayLike, bias: ArrayLike, dY: ArrayLike, **geometry: Unpack[GeometryOptions]
) -> Gradients:
    """The gradients of a backend's `corr2d`, by its framework's autograd, as NumPy arrays."""

    def function(x: Any, k: Any, b: Any) -> Any:
        return lab.corr2d(x, k, bias=b, **geometry)

    slopes = lab.ops.vjp(function, [lab.asarray(a) for a in (X, K, bias)], lab.asarray(dY))
    return Gradients(*(lab.to_numpy(a) for a in slopes))
