"""The graph of a gluon block whose code is its own, or of a symbol: what it calls, by MXNet's operators."""

from __future__ import annotations

import json
from ast import literal_eval
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from convlab.errors import UnsupportedError
from convlab.models.layers.activations import Activation, Affine, Softmax
from convlab.models.layers.joining import Add, Concatenate, Multiply
from convlab.models.layers.layer import BatchNorm, Convolution, Dense, Dropout, Flatten, Layer, Unflatten
from convlab.models.layers.pooling import GlobalPool, Pool
from convlab.models.layers.reading import INPUT, Part, around, ending_with

from .. import private
from ..blocks import semantics
from ..ops import mx, ops
from .build import build
from .options import ACTIVATIONS, rounds_alike, value_of

Block = Any
Arrays = Sequence[np.ndarray]


def graph_of(block: Block, parts: Callable[[Block, str], Sequence[Part]]) -> list[Part]:
    """The parts of a block with their inputs.

    Args:
        block: any HybridBlock, also a SymbolBlock; or a Block whose code takes symbols.
        parts: the parts that a block at a path is.

    Raises:
        UnsupportedError: it can't be traced, or takes or gives more than one array; or an operator is unknown.
    """
    with semantics([block]) as (numpy, _):
        image = mx.sym.var("data")
        try:
            symbol = block(image.as_np_ndarray() if numpy else image)
            content = json.loads(symbol.tojson())
        except Exception as error:  # The block's own code may fail in any way when it is given a symbol.
            raise UnsupportedError(f"it can't be traced ({type(error).__name__})") from error
        if len(content["heads"]) != 1:
            raise UnsupportedError("it gives more than one array")
        return _Reading(block, parts).of(content["nodes"], content["heads"][0][0])


class _Reading:
    """A symbol's nodes on their way to parts.

    Attributes:
        values: the name of each node's value, by its number.
        rows: the values that are rows of numbers.
    """

    def __init__(self, block: Block, parts: Callable[[Block, str], Sequence[Part]]) -> None:
        self.parts = parts
        self.blocks = dict(_walk(block, ""))
        self.parameters = {parameter.name: parameter for parameter in block.collect_params().values()}
        owned = [
            (path, inner, each) for path, inner in self.blocks.items() for each in private.parameters(inner).values()
        ]
        self.owners = {id(parameter): (path, inner) for path, inner, parameter in owned}
        self.values: dict[int, str] = {}
        self.rows: set[str] = set()
        self.result: list[Part] = []

    def of(self, nodes: Sequence[Mapping[str, Any]], head: int) -> list[Part]:
        """The parts, of which the last gives the value of the head."""
        for number, node in enumerate(nodes):
            if node["op"] != "null":
                self._operator(number, node, nodes)
            elif node["name"] not in self.parameters and not node["name"].endswith("_label"):
                if INPUT in self.values.values():
                    raise UnsupportedError("it takes more than one array")
                self.values[number] = INPUT
        return ending_with(self.result, self.values[head])

    def _operator(self, number: int, node: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> None:
        name, operator = node["name"], node["op"]
        given = [each[0] for each in node["inputs"]]
        inputs = tuple(self.values[each] for each in given if each in self.values)
        arrays = [self.parameters[nodes[each]["name"]] for each in given if nodes[each]["name"] in self.parameters]
        options = {key: _literal(value) for key, value in (node.get("attrs") or {}).items()}
        path, rows = self._path(name), all(value in self.rows for value in inputs)
        options["rows"] = rows
        if operator in _NOTHING and len(inputs) == 1:
            self.values[number] = inputs[0]
            return
        try:
            if operator not in _READERS or not inputs:
                raise UnsupportedError(f"convlab doesn't know the operator {operator}")
            layer = _READERS[operator](options, [ops.to_numpy(value_of(parameter)) for parameter in arrays])
        except UnsupportedError as error:
            raise UnsupportedError(f"{path}: {error}") from error
        path, native = self._native(path, layer, arrays)
        if isinstance(layer, Dense) and not rows:
            if not options.get("flatten", True):
                raise UnsupportedError(f"{path}: it is applied to each row of pixels")
            inputs = (self._append(path, build(Flatten(), "builtin")[0], Flatten(), inputs, f"{number}.flatten"),)
        if isinstance(layer, GlobalPool) and not layer.keepdims:
            inputs = (self._append(path, native, GlobalPool(layer.function), inputs, f"{number}.pool"),)
            native, layer = build(Flatten(), "builtin")[0], Flatten()
        value = self._append(path, native, layer, inputs, str(number))
        if not isinstance(layer, Unflatten) and (rows or isinstance(layer, (Dense, Flatten))):
            self.rows.add(value)
        self.values[number] = value

    def _append(self, path: str, native: Block, layer: Layer, inputs: tuple[str, ...], value: str) -> str:
        self.result.append(Part(path, native, layer, type(native).__name__, inputs, value))
        return value

    def _native(self, path: str, layer: Layer, parameters: Sequence[Any]) -> tuple[str, Block]:
        """The block that owns an operator's parameters, without its activation, or a block that computes the same."""
        if parameters and id(parameters[0]) in self.owners:
            path, owner = self.owners[id(parameters[0])]
            part = next(iter(self.parts(owner, path)), None)
            if part is not None and type(part.layer) is type(layer):
                return path, part.native
        return path, build(layer, "builtin")[0]

    def _path(self, name: str) -> str:
        """The path of the innermost block whose operator has this name, and the operator's own name."""
        prefixes = {block.prefix: path for path, block in self.blocks.items() if block.prefix}
        prefix = max((each for each in prefixes if name.startswith(each)), key=len, default="")
        own = name[len(prefix) :].strip("_")
        path = prefixes.get(prefix, "")
        return path if own == "fwd" else ".".join(filter(None, [path, own]))


def _walk(block: Block, path: str) -> Iterator[tuple[str, Block]]:
    yield path, block
    for name, child in private.children(block).items():
        yield from _walk(child, f"{path}.{name}" if path else name)


def _literal(text: str) -> Any:
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError):
        return text


_NOTHING = ("identity", "_copy", "BlockGrad", "_np_copy")


def _convolution(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    if options.get("layout", "NCHW") not in ("NCHW", "None", None) or len(options["kernel"]) != 2:
        raise UnsupportedError(f"its layout is {options.get('layout')}, expected NCHW")
    return Convolution.of(
        arrays[0],
        arrays[1] if len(arrays) > 1 else None,
        arrays[0].dtype.name,
        options.get("num_group", 1),
        stride=options.get("stride") or (1, 1),
        padding=around(options.get("pad") or (0, 0)),
        dilation=options.get("dilate") or (1, 1),
    )


def _batch_norm(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    if options.get("axis", 1) != 1:
        raise UnsupportedError(f"it normalises axis {options['axis']}, which isn't that of the channels")
    scale, shift, mean, variance = arrays
    scale = np.ones_like(scale) if options.get("fix_gamma", True) else scale
    epsilon, momentum = float(options.get("eps", 1e-3)), float(options.get("momentum", 0.9))
    return BatchNorm(mean, variance, scale, shift, epsilon, momentum, mean.dtype.name)


def _pool(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    names = {"max": "max", "avg": "average"}
    kind = options.get("pool_type", "max")
    if kind not in names:
        raise UnsupportedError(f"convlab doesn't know the pooling {kind}")
    if options.get("global_pool"):
        return GlobalPool(names[kind])
    padding = around(options.get("pad") or (0, 0))
    counted = bool(options.get("count_include_pad", True)) and kind == "avg" and padding != around((0, 0))
    ceil = options.get("pooling_convention", "valid") == "full"
    pool = Pool(names[kind], options["kernel"], options.get("stride") or (1, 1), padding, counted, ceil)
    if ceil and not rounds_alike(pool):
        raise UnsupportedError("with its ceil_mode, windows may begin beyond the image")
    return pool


def _activation(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    if options["act_type"] not in ACTIVATIONS:
        raise UnsupportedError(f"convlab doesn't know the function {options['act_type']}")
    return Activation(ACTIVATIONS[options["act_type"]])


def _leaky(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    names = {"leaky": "leaky_relu", "elu": "elu", "gelu": "gelu", "selu": "selu"}
    kind = options.get("act_type", "leaky")
    if kind not in names:
        raise UnsupportedError(f"convlab doesn't know the function {kind}")
    return Activation(names[kind], 0.0 if kind in ("gelu", "selu") else float(np.float32(options.get("slope", 0.25))))


def _clip(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    if (options["a_min"], options["a_max"]) != (0, 6):
        raise UnsupportedError(f"it clips at {options['a_min']} and {options['a_max']}, expected 0 and 6")
    return Activation("relu6")


def _concatenate(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    axis = options.get("dim", options.get("axis", 1))
    if axis != 1:
        raise UnsupportedError(f"it concatenates along axis {axis}, expected 1, the channels")
    return Concatenate()


def _mean(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    if options.get("axis") != (2, 3):
        raise UnsupportedError(f"it reduces the axes {options.get('axis')}, expected (2, 3), rows and columns")
    return GlobalPool("average", bool(options.get("keepdims", False)))


def _reshape(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    shape = options.get("shape")
    if shape == (0, -1):
        return Flatten()
    if shape != (0, -1, 1, 1) or not options["rows"]:
        raise UnsupportedError(f"it gives the shape {shape}, expected (0, -1), or (0, -1, 1, 1) of rows")
    return Unflatten()


def _dropout(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    axes = options.get("axes", ())
    if axes not in ((), (1, 2, 3)):
        raise UnsupportedError(f"it drops along the axes {axes}, expected none or (1, 2, 3), whole images")
    return Dropout(float(options.get("p", 0.5)), images=bool(axes))


def _softmax(log: bool) -> Callable[[Mapping[str, Any], Arrays], Layer]:
    def read(options: Mapping[str, Any], arrays: Arrays) -> Layer:
        axis = options.get("axis", -1)
        if axis != 1 and not (axis == -1 and options["rows"]):
            raise UnsupportedError(f"its axis is {axis}, expected 1, the channels")
        return Softmax(log)

    return read


def _function(name: str) -> Callable[[Mapping[str, Any], Arrays], Layer]:
    return lambda options, arrays: Activation(name)


def _affine(of: Callable[[float], Layer]) -> Callable[[Mapping[str, Any], Arrays], Layer]:
    return lambda options, arrays: of(float(options["scalar"]))


def _dense(options: Mapping[str, Any], arrays: Arrays) -> Layer:
    return Dense(arrays[0], arrays[1] if len(arrays) > 1 else None, arrays[0].dtype.name)


_READERS: dict[str, Callable[[Mapping[str, Any], Arrays], Layer]] = {
    "Convolution": _convolution,
    "BatchNorm": _batch_norm,
    "FullyConnected": _dense,
    "Pooling": _pool,
    "Activation": _activation,
    "LeakyReLU": _leaky,
    "clip": _clip,
    "_npi_clip": _clip,
    "Concat": _concatenate,
    "_npi_concatenate": _concatenate,
    "mean": _mean,
    "_npi_mean": _mean,
    "Reshape": _reshape,
    "softmax": _softmax(log=False),
    "SoftmaxOutput": lambda options, arrays: Softmax(),
    "log_softmax": _softmax(log=True),
    "_npx_softmax": _softmax(log=False),
    "_npx_log_softmax": _softmax(log=True),
    "Flatten": lambda options, arrays: Flatten(),
    "Dropout": _dropout,
    **dict.fromkeys(("elemwise_add", "broadcast_add", "_npi_add"), lambda options, arrays: Add()),
    **dict.fromkeys(("elemwise_mul", "broadcast_mul", "_npi_multiply"), lambda options, arrays: Multiply()),
    **dict.fromkeys(("_mul_scalar", "_npi_multiply_scalar"), _affine(lambda number: Affine(scale=number))),
    **dict.fromkeys(("_div_scalar", "_npi_true_divide_scalar"), _affine(lambda number: Affine(scale=1 / number))),
    **dict.fromkeys(("_plus_scalar", "_npi_add_scalar"), _affine(lambda number: Affine(shift=number))),
    **dict.fromkeys(("_minus_scalar", "_npi_subtract_scalar"), _affine(lambda number: Affine(shift=-number))),
    **dict.fromkeys(("relu", "_npx_relu"), _function("relu")),
    **dict.fromkeys(("sigmoid", "_npx_sigmoid"), _function("sigmoid")),
    **dict.fromkeys(("tanh", "_npi_tanh"), _function("tanh")),
}
