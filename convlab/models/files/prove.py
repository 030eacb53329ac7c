"""A model made of another program's file must compute what the file does: by that program itself, where it is there."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...dtypes import SIGNIFICAND
from ...errors import ConvlabError, ModelError, ModelFileError, PortError
from ...page.page import listed
from ...truth.bounds import error_ratios
from ..adapters import Arrays, Models
from ..compare.inputs import called_alike
from ..compare.random_images import random_images
from ..compare.results import compare_results
from ..compare.sides import Side, first_line
from ..layers.inputs import Batch, rounded_batch
from ..layers.layer import dtype_of
from ..layers.outputs import Outputs
from ..layers.reading import Model
from ..layers.shapes import Known, known_after
from ..layers.spatial import Size
from ..layers.steps import carried, steps
from .onnx.operation import FIRST, ROWS, TOKENS_LAST
from .onnx.read import OnnxFile

# Numbers in a layer's result: of one image, and of all that are run at once.
_LARGEST, _AT_ONCE = 2**27, 2**24
# Bounds tell something if they are at most this share of the result.
_TELLING = 2.0**-4
_ONNX_DTYPES = {"tensor(float16)": "float16", "tensor(float)": "float32", "tensor(double)": "float64"}


def prove_loaded(name: str, source: Model, target: Models, native: Any, size: Size | None) -> None:
    """Compare a native model with the file that it was made of, on random images.

    An ONNX file is run by onnxruntime if it is installed; the tolerance is that of `compare_results`. Otherwise the
    model is held to the definition of the layers, within the rounding bounds carried through them.

    Args:
        name: the file's path, for messages.
        source: the layers that the file has, and an `OnnxFile` if it is one.
        target: the adapter of the new model's framework.
        native: the new model.
        size: the rows and columns of the images that it is for; None for any.

    Raises:
        ModelFileError: the file can't be run.
        PortError: the model computes something else.
    """
    layers = [part.layer for part in source.parts if part.layer is not None]
    arrays = [array for layer in layers for key in layer.arrays if (array := getattr(layer, key)) is not None]
    if not all(np.isfinite(array).all() for array in arrays):
        return  # Nothing can be compared with NaN.
    dtypes = [dtype_of(layer) for layer in layers if layer.arrays]
    dtype = min(dtypes, key=SIGNIFICAND.__getitem__, default="float32")
    try:
        ratio = _ratio(name, source, _Chunked(target, called_alike(source, target.read(native)), (), 1), dtype, size)
    except ModelError as error:
        raise ModelFileError(f"{name}: {error.args[0]}", hint="the file is left as it is.") from error
    if ratio > 1:
        raise PortError(
            f"{name}: the new model's results are off by {ratio:.3g} times what rounding allows, expected at most 1.",
            hint="this is convlab's fault, or onnxruntime's.",
        )


def _ratio(name: str, source: Model, new: _Chunked, dtype: str, size: Size | None) -> float:
    """How far the model's results are from those of the file, as a multiple of what is allowed."""
    fixed = [n for n in source.image[1:] if n] if source.image else []
    inner = tuple(n or fixed[0] for n in source.image[1:]) if source.image and fixed else None
    images = random_images(steps(source), 0, size or inner, inputs=source.inputs)
    largest = max(_largest(name, source, image) for image in images)
    new = replace(new, at_once=max(1, _AT_ONCE // largest))
    session = _session(name, source.native) if isinstance(source.native, OnnxFile) else None
    if session is None:
        return _by_definition(new, source, {value: x[:1] for value, x in images[0].items()}, dtype)[1]
    first = _Session(new.models, source, (), session)
    ratio = compare_results(first, new, dtype, images, 0).ratio or 0.0
    if ratio > 1:  # A framework may round more than it takes to change the image: MXNet's logarithm does.
        ratio = min(ratio, max(_by_definition(side, source, images[0], dtype)[0] for side in (first, new)))
    return ratio


def _largest(name: str, source: Model, batch: Batch) -> int:
    """How many numbers the largest result of a layer has for one image of each input.

    Raises:
        ModelFileError: more than there is memory for.
    """
    values = {value: Known(x.shape[1], x.shape[2:] or None) for value, x in batch.items()}
    largest = max(int(x[0].size) for x in batch.values())
    shapes = listed([str(x.shape[1:]) for x in batch.values()])
    for part in source.parts:
        try:
            values[part.value] = after = known_after(part.layer, [values[value] for value in part.inputs])
        except ConvlabError as error:
            raise ModelFileError(f"{name}: {part.path}: {error}", hint="the file is left as it is.") from error
        several = [values[value] for value in part.inputs] if isinstance(part.layer, Outputs) else [after]
        count = sum(each.channels * math.prod(each.size or (1,)) for each in several)
        if count > _LARGEST:
            raise ModelFileError(
                f"{name}: {part.path} ({part.note}): got a result of {count} numbers for an image of shape "
                f"{shapes}, expected at most {_LARGEST}.",
                hint="paddings of that size are hardly a model's; the file is left as it is.",
            )
        largest = max(largest, int(count))
    return largest


def _by_definition(side: Side, source: Model, batch: Batch, dtype: str) -> tuple[float, float]:
    """How far a result is from that of the layers, as a multiple of what rounding allows.

    Returns:
        That, but infinite where the bounds are so wide that they tell nothing; and the same whatever they tell.
    """
    batch = rounded_batch(batch, dtype)
    true, off = carried(steps(source), batch, dtype)
    result = side.run(batch, dtype)
    if result.shape != true.shape:
        return math.inf, math.inf
    overflow = np.abs(true) + off > np.finfo("float16" if dtype == "float16" else "float32").max
    ratio = float(error_ratios(result, true, off, overflow).max(initial=0.0))
    return (ratio if off.max() < _TELLING * np.abs(true).max() else math.inf), ratio


@dataclass(frozen=True, eq=False)
class _Chunked(Side):
    """A side that runs few images at a time."""

    at_once: int

    def results(self, batch: Batch, dtype: str) -> Arrays:
        """See `Side.results`."""
        chunks = _chunks(batch, self.at_once)
        each = [super(_Chunked, self).results(chunk, dtype) for chunk in chunks]
        return tuple(map(np.concatenate, zip(*each, strict=True)))


@dataclass(frozen=True, eq=False)
class _Session(Side):
    """An ONNX file, run by onnxruntime."""

    session: Any

    def results(self, batch: Batch, dtype: str) -> Arrays:
        """See `Side.results`; the images are as many as the graph takes."""
        onnx, images = self.model.native, self.session.get_inputs()
        results = []
        for some in _chunks(batch, onnx.batch or 1):
            given = zip(images, self._given(some), onnx.layouts, strict=True)
            fed = {image.name: _fed(x, layout, onnx.batch or 1, image.type) for image, x, layout in given}
            try:
                several = self.session.run(None, fed)
            except Exception as error:  # onnxruntime's errors have no common class.
                shapes = listed([str(x.shape[1:]) for x in some.values()])
                raise ModelError(
                    f"onnxruntime can't run it on an image of shape {shapes}: {first_line(error)}."
                ) from error
            count = len(next(iter(some.values())))
            both = zip(several, onnx.result_layouts, strict=True)
            results.append([_channels_first(result, layout)[:count] for result, layout in both])
        return tuple(np.concatenate(each).astype(np.float64) for each in zip(*results, strict=True))


def _chunks(batch: Batch, at_once: int) -> list[Batch]:
    """A batch in parts of so many images."""
    count = len(next(iter(batch.values())))
    return [{value: x[i : i + at_once] for value, x in batch.items()} for i in range(0, count, at_once)]


def _fed(x: np.ndarray, layout: str, count: int, kind: str) -> np.ndarray:
    """What onnxruntime takes for images, as many as a graph takes, in their layout and of their dtype."""
    x = np.resize(x, (count, *x.shape[1:]))
    if x.ndim == 2:  # a flattening before all else takes rows, too
        x = x.reshape(*x.shape, *(1,) * (len(layout) - 2))
    x = x.transpose([FIRST[x.ndim - 2].index(axis) for axis in layout]) if x.ndim > 2 else x
    return x.astype(_ONNX_DTYPES[kind])


def _channels_first(result: np.ndarray, layout: str) -> np.ndarray:
    """A result with these axes, as convlab has its own."""
    if layout == TOKENS_LAST:
        return result
    return result.transpose([layout.index(axis) for axis in FIRST.get(len(layout) - 2, ROWS)])


def _session(name: str, onnx: OnnxFile) -> Any:
    """onnxruntime's session for a file; None where it isn't installed, or doesn't know the file's version or dtype."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    try:
        return runtime.InferenceSession(onnx.data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class.
        why = " ".join(str(error).split())
        if any(word in why.lower() for word in ("opset", "ir_version", "ir version", "not_implemented")):
            return None
        raise ModelFileError(
            f"{name}: got a graph that onnxruntime refuses ({why[-300:]}), expected one that runs.",
            hint="the file is left as it is.",
        ) from error
