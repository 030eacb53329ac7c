"""convlab's neutral file of a model: safetensors, with JSON that says what the tensors are for.

docs/reference/format.md describes it. The same layers give the same bytes, whichever framework they came from. When a
file is read, every rule is checked before a layer is built; whatever is wrong is a `ModelFileError`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast

import numpy as np

from ...errors import ConvlabError, ModelFileError
from ..layers.arguments import input_name, input_values
from ..layers.joining import Joining
from ..layers.layer import Convolution, Layer, dtype_of
from ..layers.outputs import Outputs
from ..layers.reading import INPUT, Part, parts_of
from ..layers.shared import SharedLayers
from ..layers.transposed import TransposedConvolution
from .canonical import canonical
from .fields import ARRAYS, FIELDS, OPTIONAL, array_shapes, excerpt, heads_fit
from .flow import Flow
from .header import bytes_of_file, parsed_json
from .kinds import KINDS

FORMAT = "convlab.model"
# A file of layers one after another is of version 1, with branches of version 2, with several inputs of version 3, with
# layers that are called several times of version 4.
CHAIN, GRAPH, SEVERAL, SHARED = 1, 2, 3, 4
MOST_LAYERS = 10_000
LONGEST_PATH = 200
MOST_INPUTS = 1000
# The names of the dtypes in safetensors, in the order of its own writer: the widest first.
DTYPES = {"float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_NAMES = {code: name for name, code in DTYPES.items()}
_OF_EACH_AXIS = {"kernel_size", "size", "stride", "padding", "dilation"}


class StoredArray(NamedTuple):
    """An array as the file has it.

    Attributes:
        code: the name of its dtype in safetensors.
        shape: its sizes.
        data: its bytes, little-endian, row by row.
    """

    code: str
    shape: tuple[int, ...]
    data: Any


def write_layers(layers: Sequence[Layer], path: Path, name: str = "") -> None:
    """Write layers, one after another, to a file; `name` is the path for error messages."""
    write_parts(parts_of(layers), path, name)


def write_parts(parts: Sequence[Part], path: Path, name: str = "", inputs: Sequence[str] = (INPUT,)) -> None:
    """Write a model's layers and how they are connected to a file.

    Args:
        parts: the layers.
        path: of the file.
        name: the path for error messages.
        inputs: the values that the model takes, in order.
    """
    records, tensors = packed(canonical(parts), inputs)
    unpacked(records, tensors, name or str(path), inputs)  # A file that can't be read isn't written.
    widths = [*DTYPES.values()]
    order = sorted(tensors, key=lambda key: (widths.index(tensors[key].code), key))
    version = GRAPH if any("inputs" in record for record in records) else CHAIN
    about: dict[str, Any] = {"format": FORMAT, "version": version, "layers": records}
    if len(inputs) > 1:
        about |= {"version": SEVERAL, "inputs": [*map(input_name, inputs)]}
    if any("layer" in record for record in records):
        about["version"] = SHARED
    header: dict[str, Any] = {"__metadata__": {"convlab": _json(about)}}
    # The file is written by hand: safetensors.serialize changed its arguments, and safetensors.numpy has no bfloat16.
    end = 0
    for key in order:
        code, shape, data = tensors[key]
        start, end = end, end + len(data)
        header[key] = {"dtype": code, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.writelines(tensors[key].data for key in order)


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def packed(
    parts: Sequence[Part], inputs: Sequence[str] = (INPUT,)
) -> tuple[list[dict[str, Any]], dict[str, StoredArray]]:
    """Layers as records of JSON, and their arrays by their names in the file."""
    records: list[dict[str, Any]] = []
    tensors: dict[str, StoredArray] = {}
    paths, before, again = {value: value for value in inputs}, INPUT, SharedLayers(parts).again(parts)
    for number, part in enumerate(parts):
        layer = part.layer
        assert layer is not None
        path = paths[part.value] = str(number) if len(parts) > 1 else "layer"
        options = layer.spec if isinstance(layer, Convolution) else layer
        fields = {name: rule.plain(getattr(options, name)) for name, rule in FIELDS[layer.kind].items()}
        rules = FIELDS[layer.kind]
        fields = {
            key: value for key, value in fields.items() if rules[key].default is None or value != rules[key].default
        }
        if part.inputs != (before,):
            fields["inputs"] = [paths[value] for value in part.inputs]
        before = part.value
        if part.value in again:
            fields["layer"] = paths[again[part.value]]
        records.append({"path": path, "kind": layer.kind, **fields})
        for name in layer.arrays if part.value not in again else ():
            array = getattr(layer, name)
            if array is not None:
                tensors[f"{path}.{name}"] = _tensor(array, dtype_of(layer))
    return records, tensors


def _tensor(array: np.ndarray, dtype: str) -> StoredArray:
    if dtype == "bfloat16":  # Its values are held in float32, whose upper half they are.
        bits = np.ascontiguousarray(array, np.float32).view(np.uint32) >> np.uint32(16)
        plain = bits.astype("<u2")
    else:
        plain = np.ascontiguousarray(array, np.dtype(dtype).newbyteorder("<"))
    return StoredArray(DTYPES[dtype], array.shape, plain.tobytes())


def read_layers(path: Path) -> list[Layer]:
    """The layers in a file, in order; see `read_parts`."""
    return [part.layer for part in read_parts(path) if part.layer is not None]


def read_parts(path: Path) -> list[Part]:
    """The layers in a file, and how they are connected: see `read_stored`."""
    return read_stored(path)[0]


def read_stored(path: Path) -> tuple[list[Part], tuple[str, ...]]:
    """The layers in a file, how they are connected, and the values that the model takes.

    Raises:
        ModelFileError: it can't be read, or isn't such a file.
    """
    import safetensors

    name, deserialize = str(path), cast(Any, safetensors.deserialize)
    try:
        header, data = bytes_of_file(path)
        tensors = {
            key: StoredArray(each["dtype"], tuple(each["shape"]), each["data"]) for key, each in deserialize(data)
        }
        content = parsed_json(header)
    except FileNotFoundError:
        raise ModelFileError(
            f"{name}: no such file, expected one that convlab wrote.", hint="check the path."
        ) from None
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{name}: got a file that can't be read ({type(error).__name__}: {excerpt(str(error))}), expected a "
            "safetensors file written by convlab.",
            hint="it may be another kind of file, or have been cut off; it is left as it is.",
        ) from error
    about = (content.get("__metadata__") or {}).get("convlab")
    if about is None:
        _refuse(name, "no metadata 'convlab'", "a model that convlab wrote", "weights alone don't say what they are of")
    records, inputs = _records(name, about)
    return unpacked(records, tensors, name, inputs), inputs


def _refuse(where: str, got: str, expected: str, hint: str = "see docs/reference/format.md") -> NoReturn:
    raise ModelFileError(f"{where}: got {got}, expected {expected}.", hint=f"{hint}; the file is left as it is.")


def _records(name: str, text: str) -> tuple[Any, tuple[str, ...]]:
    """The records of layers, and the values that the model takes."""
    try:
        about = parsed_json(text)
    except (ValueError, RecursionError) as error:
        _refuse(f"{name}: metadata 'convlab'", f"no JSON ({excerpt(str(error))})", "a JSON object")
    if type(about) is not dict or about.get("format") != FORMAT:
        got = about.get("format") if type(about) is dict else about
        _refuse(
            f"{name}: metadata 'convlab'", f"format {excerpt(got)}", repr(FORMAT), "it is another file of convlab's"
        )
    version = about.get("version")
    if type(version) is not int or not CHAIN <= version <= SHARED:
        _refuse(name, f"version {excerpt(version)}", f"{CHAIN} to {SHARED}", "a newer convlab may read it")
    several = {"inputs"} if version == SEVERAL or (version == SHARED and "inputs" in about) else set[str]()
    _check_keys(f"{name}: metadata 'convlab'", about, {"format", "version", "layers", *several})
    inputs = input_values(_names_of_inputs(name, about["inputs"])) if several else (INPUT,)
    records = about["layers"]
    keys = {key for record in records if type(record) is dict for key in record} if type(records) is list else set()
    connected = "inputs" in keys
    if ("layer" in keys) != (version == SHARED):
        got = f"{'layers that are' if 'layer' in keys else 'no layer that is'} called again in version {version}"
        _refuse(name, got, f"some in version {SHARED}, and none in another")
    if type(records) is list and connected != (version != CHAIN) and version != SHARED:
        got = f"{'layers with' if connected else 'no layer with'} inputs in version {version}"
        _refuse(name, got, f"version {CHAIN} without them, {GRAPH} with them")
    return records, inputs


def _names_of_inputs(name: str, names: Any) -> list[str]:
    """The names of several inputs, checked."""
    known = type(names) is list and _are_names(names) and 1 < len(names) == len({*names})
    if not known or not all(1 <= len(each) <= LONGEST_PATH for each in names):
        what = f"2 to {MOST_INPUTS} different names of 1 to {LONGEST_PATH} characters"
        _refuse(f"{name}: inputs", excerpt(names), what)
    return [*names]


def _check_keys(where: str, record: Mapping[str, object], expected: set[str]) -> None:
    if set(record) != expected:
        _refuse(where, f"the keys {excerpt(sorted(record))}", f"{', '.join(sorted(expected))}")


def unpacked(
    records: object, tensors: Mapping[str, StoredArray], name: str, inputs: Sequence[str] = (INPUT,)
) -> list[Part]:
    """The layers that records and tensors describe, and how they are connected, checked in every respect.

    Raises:
        ModelFileError: something is wrong with them.
    """
    if type(records) is not list or not 1 <= len(records) <= MOST_LAYERS:
        got = f"{len(records)} layers" if type(records) is list else excerpt(records)
        _refuse(f"{name}: layers", got, f"a list of 1 to {MOST_LAYERS}")
    checked: list[tuple[str, dict[str, Any], dict[str, StoredArray]]] = []
    unused = dict(tensors)
    paths: set[str] = set()
    for number, record in enumerate(records):
        where = f"{name}: layers[{number}]"
        _check_record(where, record)
        path = record["path"]
        if path in inputs:
            _refuse(f"{where}.path", excerpt(path), "another one than those of the inputs")
        if path in paths:
            _refuse(f"{where}.path", f"{excerpt(path)} twice", "a path of its own for each layer")
        paths.add(path)
        names = {field: f"{path}.{field}" for field in ARRAYS.get(record["kind"], {})}
        own = {field: unused.pop(key) for field, key in names.items() if key in unused}
        if "layer" in record:
            _check_again(where, record, {each["path"]: each for _, each, _ in checked}, own)
        else:
            _check_tensors(where, record, own)
        checked.append((where, record, own))
    if unused:
        _refuse(name, f"a tensor {excerpt(min(unused))}", "none that is no layer's")
    flow, before, parts, made = Flow(inputs), INPUT, list[Part](), dict[str, tuple[str, Layer]]()
    for number, (where, record, own) in enumerate(checked):
        first = record.get("layer", record["path"])
        if first not in made:
            made[first] = str(number), _layer(where, record, own)
        (place, layer), taken = made[first], tuple(record.get("inputs", [before]))
        _check_inputs(where, layer, taken, flow)
        if isinstance(layer, Outputs) and number + 1 < len(checked):
            _refuse(where, "layers behind it", "none: it gives the model's results")
        before = record["path"]
        reason = flow.through(layer, taken, before)
        if reason:
            _refuse(where, *reason)
        parts.append(Part(place if len(checked) > 1 else "", None, layer, layer.kind, taken, before))
    return parts


def _check_inputs(where: str, layer: Layer, inputs: Sequence[str], flow: Flow) -> None:
    """Check that a layer takes results of layers before it, and as many as it can."""
    for value in inputs:
        if value not in flow.values:
            what = f"{' or '.join(map(repr, flow.inputs))} or the path of a layer before it"
            _refuse(f"{where}.inputs", excerpt(value), what)
    takes = layer.takes if isinstance(layer, Joining) else 1
    if takes and len(inputs) != takes:
        _refuse(f"{where}.inputs", f"{len(inputs)} value{'s' * (len(inputs) != 1)}", ("one", "two", "three")[takes - 1])
    if isinstance(layer, Outputs) and (len(inputs) == 1 or len(layer.names) not in (0, len(inputs))):
        _refuse(where, f"{len(layer.names)} names of {len(inputs)} results", "several, and none or one of each")


def _check_record(where: str, record: object) -> None:
    if type(record) is not dict or type(record.get("kind")) is not str or record["kind"] not in FIELDS:
        got = record.get("kind") if type(record) is dict else record
        _refuse(f"{where}.kind", excerpt(got), f"one of {', '.join(FIELDS)}", "a newer convlab may know it")
    # What may be missing stands for its default.
    rules = {key: rule for key, rule in FIELDS[record["kind"]].items() if rule.default is None or key in record}
    own = {"inputs", "layer"} & record.keys()
    _check_keys(where, record, {"path", "kind", *own, *rules})
    path = record["path"]
    if type(path) is not str or not 1 <= len(path) <= LONGEST_PATH or path == INPUT:
        _refuse(f"{where}.path", excerpt(path), f"a string of 1 to {LONGEST_PATH} characters other than {INPUT!r}")
    if "inputs" in own and not (type(record["inputs"]) is list and _are_names(record["inputs"])):
        _refuse(f"{where}.inputs", excerpt(record["inputs"]), f"a list of 1 to {MOST_INPUTS} paths")
    for field, rule in rules.items():
        if not rule.holds(record[field]):
            _refuse(f"{where}.{field}", excerpt(record[field]), rule.expected)
    axes = {field: len(record[field]) for field in _OF_EACH_AXIS & record.keys() if type(record[field]) is list}
    if len({*axes.values()}) > 1:
        _refuse(f"{where}.{min(axes)}", f"{axes} numbers", "one for each axis")


def _check_again(
    where: str, record: Mapping[str, Any], before: Mapping[str, dict[str, Any]], own: Mapping[str, StoredArray]
) -> None:
    """Check that a layer which is called again is one before it, with the same options and no tensors of its own."""
    first = before.get(record["layer"]) if type(record["layer"]) is str else None
    if first is None or "layer" in first or not ARRAYS.get(record["kind"]):
        _refuse(f"{where}.layer", excerpt(record["layer"]), "the path of a layer with tensors before it")
    options = [{key: each[key] for key in each.keys() - {"path", "inputs", "layer"}} for each in (record, first)]
    if options[0] != options[1]:
        _refuse(where, "other options than those of the layer that is called again", "the same")
    if own:
        _refuse(where, f"a tensor {excerpt(min(own))}", "none: it is a layer before it")


def _are_names(values: list[object]) -> bool:
    return 1 <= len(values) <= MOST_INPUTS and all(type(value) is str for value in values)


def _check_tensors(where: str, record: dict[str, Any], own: Mapping[str, StoredArray]) -> None:
    """Check that a layer's tensors are there and fit together."""
    ranks = ARRAYS.get(record["kind"], {})
    for field, rank in ranks.items():
        if field not in own:
            if field not in OPTIONAL.get(record["kind"], ()) or (ranks and not own):
                _refuse(where, f"no tensor '{excerpt(record['path'])[1:-1]}.{field}'", "one")
            continue
        code, shape, _ = own[field]
        if code not in _NAMES or len(shape) != rank or not all(shape):
            what = f"{rank} sizes of at least 1 and one of {', '.join(_NAMES)}"
            _refuse(f"{where}: {field}", f"sizes {excerpt([*shape])} and {excerpt(code)}", what)
    if not own:
        return
    (first, one), *others = own.items()
    transposed = issubclass(KINDS[record["kind"]], TransposedConvolution)
    count = one.shape[1] * record["groups"] if transposed else one.shape[0]
    behind = own.get("out_kernel", one).shape[-1]
    shapes = array_shapes(record, one.shape, behind)
    for field, tensor in others:
        shape = shapes.get(field, (count,))
        if (tensor.code, tensor.shape) != (one.code, shape):
            what = f"{_times(shape)} numbers of {one.code}, as its {first} has it"
            _refuse(f"{where}: {field}", f"{_times(tensor.shape)} of {tensor.code}", what)
    if shapes and not heads_fit(record, one.shape, behind):
        what = f"rows of the queries, the keys and the values of its {record['heads']} heads"
        _refuse(f"{where}: kernel", f"sizes {excerpt([*one.shape])}", what)
    size = record.get("kernel_size", [])
    if size and list(one.shape[2:]) != size:
        _refuse(f"{where}: kernel", f"sizes {excerpt([*one.shape])}", f"kernel_size {size} at the end")
    if one.shape[0] % record.get("groups", 1):
        _refuse(f"{where}.groups", str(record["groups"]), f"a divisor of its {one.shape[0]} channels")


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _layer(where: str, record: dict[str, Any], own: Mapping[str, StoredArray]) -> Layer:
    kind = record["kind"]
    fields = {key: rule.value(record.get(key, rule.default)) for key, rule in FIELDS[kind].items()}
    arrays = {name: _array(tensor) for name, tensor in own.items()}
    dtype = next((_NAMES[tensor.code] for tensor in own.values()), "")
    try:
        made = KINDS[kind]
        if issubclass(made, Convolution):
            del fields["kernel_size"]
            return made.of(arrays["kernel"], arrays.get("bias"), dtype, **fields)
        if own:
            fields["dtype"] = dtype
        return made(**fields, **arrays)
    except ConvlabError as error:
        raise ModelFileError(f"{where}: {error}") from error


def _array(tensor: StoredArray) -> np.ndarray:
    if tensor.code == "BF16":
        bits = np.frombuffer(tensor.data, "<u2").astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32).reshape(tensor.shape)
    dtype = np.dtype(_NAMES[tensor.code])
    return np.frombuffer(tensor.data, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(tensor.shape)
