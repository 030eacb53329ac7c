"""The nodes of ONNX for layers that take whole images together: attention, shares of parts, repeated pixels."""

from __future__ import annotations

from ...layers.across_channels import PartsSoftmax
from ...layers.dot_product import DotProductAttention
from ...layers.joining import BroadcastLike
from .graph_writer import GraphWriter


def write_attention(graph: GraphWriter, layer: DotProductAttention) -> None:
    """The product of queries and keys, its softmax, and the means of the values that it weighs, for each head."""
    pixels = graph.constant("pixels", [0, 0, -1], "int64")
    heads = graph.constant("heads", [0, 0, layer.heads, -1], "int64")

    def by_head(image: str, *axes: int) -> str:
        graph.last = image
        graph.node("Reshape", pixels)
        graph.node("Transpose", perm=[0, 2, 1])
        graph.node("Reshape", heads)
        graph.node("Transpose", perm=axes)
        return graph.last

    query, (key, value) = graph.last, graph.others
    keys, values = by_head(key, 0, 2, 3, 1), by_head(value, 0, 2, 1, 3)
    by_head(query, 0, 2, 1, 3)
    graph.node("MatMul", keys)
    graph.node("Mul", graph.constant("scale", layer.scale))
    graph.node("Softmax", axis=-1)
    graph.node("MatMul", values)
    graph.node("Transpose", perm=[0, 1, 3, 2])
    means, shape = graph.last, _shape_of(graph, value, query)
    graph.last = means
    graph.node("Reshape", shape)


def write_broadcast(graph: GraphWriter, layer: BroadcastLike) -> None:
    """Images of one pixel with the rows and columns of others."""
    image, (like,) = graph.last, graph.others
    shape = _shape_of(graph, image, like)
    graph.last = image
    graph.node("Expand", shape)


def write_parts_softmax(graph: GraphWriter, layer: PartsSoftmax) -> None:
    """A softmax over parts that stand on an axis of their own meanwhile."""
    image, shape = graph.last, _shape_of(graph, graph.last, graph.last)
    graph.last = image
    graph.node("Reshape", graph.constant("parts", [0, layer.parts, -1], "int64"))
    graph.node("Softmax", axis=1)
    graph.node("Reshape", shape)


def _shape_of(graph: GraphWriter, channels: str, size: str) -> str:
    """The number of images and the channels of one value, and the rows and columns of another."""
    graph.last = size
    graph.node("Shape", start=2)
    end, graph.last = graph.last, channels
    graph.node("Shape", end=2)
    graph.node("Concat", end, axis=0)
    return graph.last
