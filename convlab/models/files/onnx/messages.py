"""The messages of an ONNX file and their fields, and the arrays in them.

They are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3; the package `onnx` isn't needed to read them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ....errors import ModelFileError
from ..fields import excerpt
from .protobuf import Field, Fields

_PAIR: Fields = {1: Field("key", "text"), 2: Field("value", "text")}
_TENSOR: Fields = {
    1: Field("dims", "int", many=True),
    2: Field("data_type", "int"),
    4: Field("float_data", "floats", many=True),
    5: Field("int32_data", "int", many=True),
    7: Field("int64_data", "int", many=True),
    8: Field("name", "text"),
    9: Field("raw_data", "bytes"),
    10: Field("double_data", "doubles", many=True),
    13: Field("external_data", _PAIR, many=True),
    14: Field("data_location", "int"),
}
_ATTRIBUTE: Fields = {
    1: Field("name", "text"),
    2: Field("f", "float"),
    3: Field("i", "int"),
    4: Field("s", "bytes"),
    5: Field("t", _TENSOR),
    6: Field("g", "bytes"),
    7: Field("floats", "floats", many=True),
    8: Field("ints", "int", many=True),
    20: Field("type", "int"),
    21: Field("ref_attr_name", "text"),
}
_NODE: Fields = {
    1: Field("inputs", "text", many=True),
    2: Field("outputs", "text", many=True),
    3: Field("name", "text"),
    4: Field("operator", "text"),
    5: Field("attributes", _ATTRIBUTE, many=True),
    7: Field("domain", "text"),
}
_SHAPE: Fields = {1: Field("dim", {1: Field("size", "int")}, many=True)}
_TYPE: Fields = {1: Field("tensor", {1: Field("data_type", "int"), 2: Field("shape", _SHAPE)})}
_VALUE: Fields = {1: Field("name", "text"), 2: Field("type", _TYPE)}
_GRAPH: Fields = {
    1: Field("nodes", _NODE, many=True),
    5: Field("initialisers", _TENSOR, many=True),
    11: Field("inputs", _VALUE, many=True),
    12: Field("outputs", _VALUE, many=True),
    15: Field("sparse", "bytes", many=True),
}
MODEL: Fields = {
    1: Field("ir_version", "int"),
    7: Field("graph", _GRAPH),
    8: Field("opsets", {1: Field("domain", "text"), 2: Field("version", "int")}, many=True),
    25: Field("functions", "bytes", many=True),
}
# By ONNX's number of a dtype: its name, and the field that it has where it isn't plain bytes.
_DTYPES = {
    1: ("float32", "float_data"),
    2: ("uint8", "int32_data"),
    3: ("int8", "int32_data"),
    6: ("int32", "int32_data"),
    7: ("int64", "int64_data"),
    9: ("bool", "int32_data"),
    10: ("float16", "int32_data"),
    11: ("float64", "double_data"),
}
_MOST_AXES = 8


def refused(where: str, got: str, expected: str, hint: str = "") -> ModelFileError:
    """The error for something in a file."""
    hint = hint or "port the model in the framework that it comes from"
    return ModelFileError(f"{where}: got {got}, expected {expected}.", hint=f"{hint}; the file is left as it is.")


def tensor_array(where: str, tensor: Mapping[str, Any]) -> np.ndarray:
    """The array that a message of a tensor holds: a view of the file's bytes, where they are plain.

    Raises:
        ModelFileError: it has more or fewer numbers than its sizes say, or they are elsewhere.
    """
    if tensor["external_data"] or tensor.get("data_location", 0):
        pairs = {pair.get("key"): pair.get("value") for pair in tensor["external_data"]}
        hint = "onnx.save(onnx.load(path), other) and torch.onnx.export(..., external_data=False) write one file"
        got = f"numbers in another file, {excerpt(pairs.get('location'))}"
        raise refused(where, got, "numbers in this file, since no other is opened", hint)
    sizes, number = tensor["dims"], tensor.get("data_type", 0)
    if number not in _DTYPES:
        names = ", ".join(name for name, _ in _DTYPES.values())
        raise refused(where, f"ONNX's dtype {number}", f"one of {names}", "convlab reads no other numbers")
    dtype, field = _DTYPES[number]
    if "raw_data" in tensor:
        plain, width = tensor["raw_data"], np.dtype(dtype).itemsize
        whole = np.frombuffer(plain, np.dtype(dtype).newbyteorder("<")) if len(plain) % width == 0 else np.zeros(0)
        count: float = len(plain) / width
    else:
        whole = _unpacked(tensor[field], dtype)
        count = len(whole)
    plausible = min(sizes, default=1) > 0 or sizes == [0]
    if not plausible or math.prod(sizes) != count or len(sizes) > _MOST_AXES:
        raise refused(where, f"{count:g} numbers of {dtype}", f"as many as its sizes {excerpt(sizes)} say")
    return np.require(whole.astype(dtype, copy=False), requirements="A").reshape(sizes)


def _unpacked(values: list[Any], dtype: str) -> np.ndarray:
    """The numbers of a field; those of float16 are their bits."""
    if values and isinstance(values[0], np.ndarray):
        return np.concatenate(values)
    numbers = np.array(values, np.int64)
    if dtype == "float16":
        return (numbers & 0xFFFF).astype(np.uint16).view(np.float16)
    return numbers.astype(dtype)
