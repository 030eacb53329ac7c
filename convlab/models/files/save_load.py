"""`convlab.save` and `convlab.load`: models in files, of convlab's own format and of the frameworks'."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ...atomic import whole
from ...dtypes import SIGNIFICAND
from ...errors import ConvlabError, ModelError, ModelFileError, PortError, UnsupportedError
from ...geometry.checks import choice
from ...registry import default_backend
from ..adapters import STYLES, Models, Node, model_owner, models_of, native_model, only_size, read
from ..compare.differences import differences
from ..compare.pairing import fitting_layer, paired
from ..compare.random_images import random_images
from ..layers.inputs import shapes_of
from ..layers.layer import Layer, dtype_of
from ..layers.reading import INPUT, Model, Part, parts_with_arrays
from ..layers.shared import is_same_layer
from ..layers.spatial import Size, image_size
from ..layers.steps import is_known, steps, weighted
from ..port.lowering import lowered
from ..port.port import assembled
from . import foreign, neutral
from .canonical import apart, canonical
from .kinds import KINDS

NEUTRAL, ONNX, SYMBOL = ".safetensors", ".onnx", "-symbol.json"
# Whose weights are in which file, for messages where no framework is loaded; else `Models.FILES` says it.
_OWNERS = {
    ".pt": "torch",
    ".pth": "torch",
    ".msgpack": "jax",
    ".orbax": "jax",
    ".weights.h5": "tensorflow",
    ".params": "mxnet",
}


def save(model: object, path: str | Path) -> None:
    """Write a layer or a model to a file, in the format that its name ends with.

    `.safetensors` is convlab's own: the layers and their weights, the same bytes whichever framework they are of;
    `docs/reference/format.md` describes it. `.onnx` is run by onnxruntime and compared before it is written. A
    framework's own file (`.pt`, `.pth`, `.msgpack`, `.orbax`, `.weights.h5`, `.params`) holds the weights of a model of
    that framework. The file appears whole or not at all. What `convlab.port` returned is a model here, and so is a pair
    `(module, variables)` of `flax.linen`.

    >>> from convlab import numpy as lab
    >>> layer = lab.Conv2D(3, out_channels=4, in_channels=2, padding="same", seed=0)
    >>> save(layer, "/no/such/folder/layer.safetensors")
    Traceback (most recent call last):
    convlab.errors.ModelFileError: /no/such/folder/layer.safetensors: got a folder that doesn't exist, ...

    Raises:
        ModelError: it is no model of a known framework, or for `.safetensors` and `.onnx` a layer of it isn't known.
        ModelFileError: the name ends with nothing known, or the file can't be written.
        PortError: onnxruntime computes something else.
    """
    path, size, model = Path(path), only_size(model), native_model(model)
    suffix = _suffix(path)
    if not path.absolute().parent.is_dir():
        raise ModelFileError(f"{path}: got a folder that doesn't exist, expected one.", hint="make it first.")
    try:
        with whole(path) as part:
            if suffix == NEUTRAL:
                source = read(model)
                neutral.write_parts(_parts(source, path), part, str(path), [*source.inputs])
            elif suffix == ONNX:
                from .onnx.write import export

                source = read(model)
                export(_parts(source, path), part, str(path), size, source.inputs)
            else:
                _own(model, path, suffix).save(model, part)
    except OSError as error:
        raise ModelFileError(
            f"{path}: it can't be written ({type(error).__name__}: {error}).",
            hint="check the free space and the permissions; a folder of that name isn't replaced.",
        ) from error


def load(
    path: str | Path,
    *,
    backend: str | None = None,
    layers: str = "builtin",
    input_size: int | Size | None = None,
    into: Any = None,
    params: str | Path | None = None,
) -> Any:
    """Read a file that `save` wrote, an ONNX file of any exporter, or what MXNet's `export` wrote.

    What an ONNX file gives is run beside it by onnxruntime, if that is installed, on random images; otherwise, and for
    MXNet's files, it is held to the definition of the layers. Neither `onnx` nor MXNet is needed.

    >>> load("no.safetensors")
    Traceback (most recent call last):
    convlab.errors.ModelFileError: no.safetensors: no such file, expected one that convlab wrote. Hint: ...

    Args:
        path: a `.safetensors` file that convlab wrote, an `.onnx` file, MXNet's `net-symbol.json`, or with
            `into` a framework's own file of weights.
        backend: whose model to make; the default backend if not given.
        layers: as in `port`.
        input_size: as in `port`; the size that an ONNX file takes if it takes one. With `into`, the size of the images
            that the model takes, where its code needs one.
        into: a model; what comes back is a copy of it with the file's weights. Those of a `.safetensors` file go to its
            layers in the order of both graphs, whatever their names are; a framework's own file goes by the names.
        params: the parameters of `net-symbol.json`; the only `net-*.params` in the same folder if not given.

    Returns:
        A native model, or the native layer if the file holds a single one.

    Raises:
        ModelFileError: it can't be read, isn't what its name says, or doesn't fit; the file is left as it is.
        UnsupportedError: the backend can't express a layer.
        PortError: the model doesn't compute what the file says.
    """
    path = Path(path)
    suffix = _suffix(path, SYMBOL)
    if params is not None and suffix != SYMBOL:
        _refuse(path, "params=", f"it with MXNet's {SYMBOL} alone", "leave it out.")
    if into is not None:
        return _filled(path, suffix, backend, native_model(into), input_size)
    if suffix not in _READERS:
        whose = _OWNERS.get(suffix, "a framework")
        _refuse(
            path, f"weights of {whose} and no layers", "layers, too", "give into=, a model that the weights are for."
        )
    choice("layers", layers, STYLES)
    source = _READERS[suffix](path, None if params is None else Path(params))
    size = None if input_size is None else image_size("input_size", input_size, source.rank)
    target = models_of(backend or default_backend())
    try:
        return _built(path, source, target, layers, size)
    except UnsupportedError as error:
        if backend is not None or default_backend() != "numpy":
            raise
        hint = "backend='torch', or another framework that is installed, has them."
        raise UnsupportedError(f"{path}: no backend was given, and NumPy has convolutions alone.", hint=hint) from error
    except ConvlabError:
        raise
    except Exception as error:  # A framework may raise any error for layers that don't go together.
        raise ModelFileError(
            f"{path}: got layers that the framework can't combine ({_why(error)}), expected a model.",
            hint="try another backend, or layers='convlab'.",
        ) from error


def _neutral(path: Path, params: Path | None) -> Model:
    parts, inputs = neutral.read_stored(path)
    return Model("", parts, True, None, inputs=dict.fromkeys(inputs))


def _onnx(path: Path, params: Path | None) -> Model:
    from .onnx.read import read_onnx

    return read_onnx(path)


def _symbol(path: Path, params: Path | None) -> Model:
    from .mxnet.exported import read_symbol

    return read_symbol(path, params)


# Files that hold layers.
_READERS = {NEUTRAL: _neutral, ONNX: _onnx, SYMBOL: _symbol}


def _built(path: Path, model: Model, target: Models, style: str, size: Size | None) -> Any:
    """A native model of layers from a file."""
    if size and model.size and size != model.size:
        got, only = (f"{rows}x{columns} pixels" for rows, columns in (size, model.size))
        _refuse(path, f"input_size of {got}", f"{only}, the only size that the model takes", "leave it out.")
    size = size or model.size
    lowering = lowered(model, target, style, size)
    if lowering.untouched:
        reasons = "; ".join(f"{_place(model, layer)}: {why}" for layer, why in lowering.untouched.items())
        raise UnsupportedError(f"{path}: {reasons}")
    new = assembled(target, lowering.built, shapes_of(model, size if lowering.tied else None))
    if model_owner(new) is None:  # A lone activation of Flax is a function, and no model.
        new = target.assemble([Node("0", new, (INPUT,), "0")])
    for (layer, wide), (_, narrow) in zip(_dtypes(model), _dtypes(target.read(new)), strict=True):
        if SIGNIFICAND[narrow] < SIGNIFICAND[wide]:
            hint = "JAX has float64 after jax.config.update('jax_enable_x64', True)."
            raise UnsupportedError(
                f"{path}: {_place(model, layer)}: got {wide}, which the framework reduced to {narrow}.", hint=hint
            )
    if model.backend:
        from .prove import prove_loaded

        prove_loaded(str(path), model, target, new, size)
    return new


def _place(model: Model, layer: str) -> str:
    """A layer of a file, in words: those of convlab's own are numbered."""
    return layer if model.backend else f"layers[{layer or 0}]"


def _dtypes(model: Model) -> list[tuple[str, str]]:
    """The layers with weights: their paths and dtypes."""
    layers = [(part.path, part.layer) for part in model.parts]
    return [(path, dtype_of(layer)) for path, layer in layers if layer is not None and layer.arrays]


def _filled(path: Path, suffix: str, backend: str | None, model: object, input_size: int | Size | None) -> Any:
    """A copy of a model with the weights of its framework's own file."""
    if backend is not None:
        _refuse(path, "backend= and into=", "one of them", "into= says whose it is.")
    if suffix == NEUTRAL:
        return _with_layers(path, model, input_size)
    if suffix in _READERS:
        hint = "load it without into=, which makes the model, too."
        _refuse(path, "into= with a file that holds layers", "a framework's own file of weights", hint)
    if not path.exists():
        _refuse(path, "no file", "one", "is the path right?")
    if input_size is not None:
        _refuse(path, "input_size= for a framework's own file", "none", "leave it out: such files go by the names.")
    models = _own(model, path, suffix)
    try:
        foreign.check_claimed_sizes(path, suffix)
        return models.with_weights(model, models.load(path, model))
    except ModelFileError:
        raise
    except Exception as error:  # A framework's loader may raise any error.
        raise ModelFileError(
            f"{path}: got a file that isn't one of this model's weights ({_why(error)}), "
            f"expected what {_OWNERS.get(suffix, 'its framework')} saved of such a model.",
            hint="it may be another model's, or have been cut off; it is left as it is.",
        ) from error


def _with_layers(path: Path, native: object, input_size: int | Size | None) -> Any:
    """A copy of a model with the weights of the layers in a neutral file, in the order of both graphs."""
    stored = _neutral(path, None)
    size = None if input_size is None else image_size("input_size", input_size, stored.rank)
    model = _read_for(stored, native, size)
    stored = replace(stored, parts=apart(stored.parts, model.parts))
    pairs, reason = paired(weighted(stored), weighted(model), None, model.whole)
    hint = "into= takes a model of the same layers; without it the file makes one."
    if reason:
        _refuse(path, f"another model's layers ({reason}; the first is the file's)", "this model's", hint)
    # Of a model with code that isn't known, a border may stand in that code.
    elsewhere = () if is_known(model) else ("padding", "padding_mode", "padding_value")
    for one, other in pairs:
        ignored = (*one.main.arrays, "order", "dtype", *elsewhere)
        others = [words for name, words in differences(one, other) if name not in ignored]
        if others:
            _refuse(path, f"another layer than {other.path!r}: {others[0]} (the first is the file's)", "the same", hint)
        if SIGNIFICAND[other.dtype] < SIGNIFICAND[one.dtype]:
            _refuse(path, f"{one.dtype} for {other.path!r}", other.dtype, "make the model in the file's dtype.")
    layers: dict[str, Layer] = {}
    try:
        for one, other in pairs:
            layer = fitting_layer(one, other)
            if not is_same_layer(layers.setdefault(other.path, layer), layer):
                got, expected = f"other weights for each call of {other.path!r}", "the same for all of them"
                _refuse(path, got, expected, "the file's model has several layers there; without into= it makes one.")
    except ModelFileError:
        raise
    except ModelError as error:
        raise ModelFileError(f"{path}: {error}") from error
    filled = models_of(model.backend).fill(model, layers)
    filled_model = _read_for(stored, filled, size)
    _check_arrays(path, filled_model, layers)
    if not model.whole:
        code = "; ".join(filled_model.loose.values())
        _check_code(path, stored, model.backend, filled, f"its code doesn't tell which layer is which: {code}")
    elif is_known(model):
        functions, of_file = _functions(model), _functions(stored)
        others = [f"it has no {name}" for name in of_file - functions]
        others += [f"it has {name}" for name in functions - of_file]
        if others:
            _check_code(path, stored, model.backend, filled, ", ".join(others))
    return filled


def _functions(model: Model) -> Counter[str]:
    """How many layers of each kind a model has, and of each function."""
    layers = [part.layer for part in canonical(model.parts) if part.layer is not None]
    return Counter(f"{getattr(layer, 'function', '')} {layer.kind}".strip() for layer in layers)


def _check_arrays(path: Path, filled: Model, layers: Mapping[str, Layer]) -> None:
    """Refuse a filled model whose layers don't have the arrays that they were given."""
    for part in parts_with_arrays(filled.parts):
        wanted = layers.get(part.path)
        names = () if wanted is None else wanted.arrays
        both: list[tuple[Any, Any]] = [(getattr(wanted, name), getattr(part.layer, name, None)) for name in names]
        if any(new is not None and not np.array_equal(new, mine) for new, mine in both):
            hint = "load the weights by the model's framework."
            _refuse(path, f"weights that {part.path!r} doesn't keep as they are", "a layer that does", hint)


def _read_for(stored: Model, native: object, size: Size | None) -> Model:
    """A model that is to get a file's layers, read with the images and rows that these take if it needs to be told."""
    try:
        model = read(native)
    except ModelError:
        model = None
    if model is not None and size is None and (model.whole or len(stored.inputs) == 1):
        return model
    example = random_images(steps(stored), 0, size, inputs=stored.inputs)[0]
    told = read(native, tuple(example.values()) if len(example) > 1 else next(iter(example.values())))
    return told if model is None or told.whole else model


def _check_code(path: Path, stored: Model, backend: str, filled: Any, why: str) -> None:
    """Refuse a filled model that computes something else than the file's layers, by its results.

    One that takes other images than those that are tried isn't checked.
    """
    from .prove import prove_loaded

    try:
        prove_loaded(str(path), stored, models_of(backend), filled, None)
    except PortError as error:
        raise ModelFileError(
            f"{path}: the weights fit, but the model computes something else than the file's layers; {why}.",
            hint="load the file without into=, which makes the model, too.",
        ) from error
    except ModelFileError:
        return


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()).partition('. ')[0][:300]}"


def _own(model: object, path: Path, suffix: str) -> Models:
    """The module of the framework that a model is of, if files of that suffix are its own."""
    whose = model_owner(model)
    try:
        name = read(model).backend
    except ModelError:
        if whose is None:
            raise
        # The layers of some models show only when they run, but their weights are there.
        name = whose
    models = models_of(name)
    if suffix not in models.FILES:
        raise ModelFileError(
            f"{path}: got a model of {whose}, expected one of {_OWNERS.get(suffix, 'its framework')}.",
            hint=f"{_or((*models.FILES, NEUTRAL, ONNX))} takes it, or convlab.port it first.",
        )
    return models


def _suffix(path: Path, *others: str) -> str:
    """The known suffix, or one of some others, that the path ends with."""
    known = {NEUTRAL, ONNX, *_OWNERS, *others}
    name = path.name.lower()
    suffix = max((end for end in known if name.endswith(end)), key=len, default="")
    if not suffix:
        _refuse(path, f"the suffix {path.suffix!r}", _or(sorted(known)), f"{NEUTRAL} is for every framework.")
    return suffix


def _parts(model: Model, path: Path) -> list[Part]:
    """The parts of a model that is nothing but its layers, all of them known."""
    unknown = [
        f"{part.path or 'the layer'} ({part.note})"
        for part in model.parts
        if part.layer is None or part.layer.kind not in KINDS
    ]
    if unknown or not model.whole or not model.parts:
        loose = "; ".join(f"{path}: {why}" for path, why in model.loose.items())
        got = ", ".join(unknown) or (f"a model that is more than its layers ({loose})" if model.parts else "none")
        hint = "save the weights in its framework's own file, or the parts that are known by themselves."
        raise ModelError(f"{path}: got {got}, expected layers that convlab knows.", hint=hint)
    return model.parts


def _refuse(path: Path, got: str, expected: str, hint: str) -> NoReturn:
    raise ModelFileError(f"{path}: got {got}, expected {expected}.", hint=hint)


def _or(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
