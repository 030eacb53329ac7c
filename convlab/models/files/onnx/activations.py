"""The nodes of ONNX that compute activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...layers.activations import Activation
from .graph_writer import GraphWriter


def write_activation(graph: GraphWriter, layer: Activation) -> None:
    """Add the nodes of an activation.

    Raises:
        ModelError: ONNX has no operator for it.
    """
    function, before = layer.function, graph.last
    if function == "relu6":
        graph.node("Clip", graph.constant("least", 0.0), graph.constant("most", 6.0))
    elif function == "silu":
        graph.node("Sigmoid")
        graph.node("Mul", before)
    elif function in _WITH_OPTIONS:
        kind, options = _WITH_OPTIONS[function]
        graph.node(kind, **options(layer.parameter))
    elif function == "log_sigmoid":
        for kind in ("Neg", "Softplus", "Neg"):
            graph.node(kind)
    elif function == "tanh_shrink":
        for kind in ("Tanh", "Neg"):
            graph.node(kind)
        graph.node("Add", before)
    elif function.startswith(("square", "sparse")) or (function == "softplus" and layer.parameter):
        with_what = f" with the parameter {layer.parameter}" if layer.parameter else ""
        raise graph.refused(graph.number, f"{function}{with_what}", "a function that ONNX has")
    else:
        graph.node(function.title())


# ONNX's own alpha of a hard sigmoid is 0.2; its numbers are float32.
_WITH_OPTIONS: dict[str, tuple[str, Callable[[float], dict[str, Any]]]] = {
    "gelu": ("Gelu", lambda a: {"approximate": "none"}),
    "gelu_tanh": ("Gelu", lambda a: {"approximate": "tanh"}),
    "hard_sigmoid": ("HardSigmoid", lambda a: {"alpha": 1 / 6, "beta": 0.5}),
    "hard_swish": ("HardSwish", lambda a: {}),
    "leaky_relu": ("LeakyRelu", lambda a: {"alpha": a}),
    "elu": ("Elu", lambda a: {"alpha": a}),
    "celu": ("Celu", lambda a: {"alpha": a}),
    "soft_shrink": ("Shrink", lambda a: {"lambd": a, "bias": a}),
    "hard_shrink": ("Shrink", lambda a: {"lambd": a, "bias": 0.0}),
    "threshold": ("ThresholdedRelu", lambda a: {"alpha": a}),
}
