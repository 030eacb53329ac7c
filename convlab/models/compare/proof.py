"""Do two steps compute the same? Both run on the same images, and are held to the first one's reference."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ...dtypes import LEAST, SIGNIFICAND
from ...errors import ConvlabError, ModelError
from ...page.page import number
from ...truth.bounds import error_ratios
from ...truth.diagnosis import Diagnosis, diagnose
from ...truth.precision import rounded
from ..adapters import Arrays, Models, as_input
from ..layers.activations import FUNCTIONS, Activation
from ..layers.folded import as_images
from ..layers.layer import Convolution, Dense
from ..layers.outputs import in_rows
from ..layers.pooling import Pool
from ..layers.spatial import SHAPES, Size, times
from ..layers.steps import Step
from .differences import columns_reordered, differences
from .random_images import grid, share
from .sides import first_line
from .suspects import LayerCase, layer_cause

_MOST_REMAINDERS = 16
# The gradients are computed for one image of odd and one of even height: compilers take their time for each size.
# Layers without a kernel treat all sizes alike.
_WITH_GRADIENTS = 2
# The largest numbers of images that stand for infinite ones.
_FAR = 64.0
_CHANGED = (
    "the {} model's layer doesn't compute what its attributes say (is there a hook, a subclass or a changed weight?)"
)


class RunnableStep(NamedTuple):
    """A step, and what its framework's adapter can do with it."""

    models: Models
    step: Step


@dataclass(eq=False)
class Row:
    """Two steps beside each other.

    Attributes:
        a, b: their paths; "" for a lone layer.
        kind: what they are, as in `convlab.models.layers.layer`.
        sizes: the images that both were run on.
        own: a's largest errors by quantity ("result", "gradient of X", …) against a's reference, as multiples of what
            rounding allows.
        errors: b's, likewise: at most 1 where they compute the same.
        diagnosis: why they diverge.
        differences: how their attributes differ, in words, by the attribute's name.
        image: where they diverge: the errors of one channel of one result, in bounds.
        elsewhere: whether they differ only in what their models may do outside of them (see `compare`).
        only_in: which model has this step while the other one has none, "first" or "second"; "" for two steps.
    """

    a: str
    b: str
    kind: str
    sizes: list[Size] = field(default_factory=list)
    own: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    diagnosis: str = ""
    differences: dict[str, str] = field(default_factory=dict)
    image: np.ndarray | None = None
    elsewhere: bool = False
    only_in: str = ""

    @property
    def same(self) -> bool:
        """Whether both compute what the first one's attributes say."""
        return all(error <= 1 for error in [*self.own.values(), *self.errors.values()]) and not self.diagnosis

    @property
    def diverges(self) -> bool:
        """Whether they differ in what nothing outside of them makes up for, or one of them is missing."""
        return not self.same and not self.elsewhere

    def worst(self, quantity: str) -> float:
        """The second step's worst error among quantities whose names begin so; 0 if there is none."""
        return max((error for name, error in self.errors.items() if name.startswith(quantity)), default=0.0)


@np.errstate(over="ignore", invalid="ignore")  # Deep in a model numbers may grow beyond all bounds.
def prove(
    a: RunnableStep, b: RunnableStep, batches: Sequence[Arrays], seed: int = 0, every_size: bool = True
) -> tuple[Row, list[np.ndarray]]:
    """Run two steps on the same images (NCHW, float64), forward and with gradients; the first one's results come back.

    Each batch holds an array for each value that the steps take. With `every_size` steps of one value are also run on
    others, so that all remainders of their sizes by a stride occur.
    """
    step, other = a.step, b.step
    dtype = min(step.dtype, other.dtype, key=lambda name: SIGNIFICAND[name])
    first = [batch[0] for batch in batches]
    size = first[0].shape[2:] or None
    channels = first[0].shape[1] if size else None
    row = Row(step.path, other.path, step.main.kind, differences=dict(differences(step, other, size, channels)))
    results, rng = [], np.random.default_rng(seed)
    further = [*_wide(step, first), *(_remainders((step, other), first, rng) if every_size else [])]
    for index, values in enumerate([*batches, *((x,) for x in further)]):
        values = tuple(_normal(rounded(thinned(x, step, dtype, rng), dtype), dtype) for x in values)
        if values[0].ndim > 2:
            row.sizes.append(values[0].shape[2:])
        true, fit = _results(row, a, b, values, dtype)
        if index < len(batches):
            results.append(_finite(rounded(true, dtype)))
        if step.learned and index < (_WITH_GRADIENTS if hasattr(step.learned, "kernel") else 1) and fit:
            _gradients(row, (a, b), values[0], true.shape, dtype, np.random.default_rng((seed, index)))
    if not row.same and not row.diagnosis:
        row.diagnosis = "the gradients differ: one of the layers was changed (a hook, a frozen or a custom gradient)."
    return row, results


def _results(row: Row, a: RunnableStep, b: RunnableStep, values: Arrays, dtype: str) -> tuple[np.ndarray, bool]:
    """Hold both results for images to the first step's reference.

    Returns:
        The reference's result, and whether both results have its shape.
    """
    step, other = a.step, b.step
    true = step.reference(*values)
    bound = step.error(values, [np.zeros_like(x) for x in values], dtype) + _least(dtype)
    y = _run(a, values)
    _keep_worst(row.own, "result", _ratio(y, true, bound, dtype))
    try:
        z = in_rows(b.models.run(other.natives, as_input(values), other.dtype))
    except Exception as error:  # A framework may raise any error.
        why = f"the second model's layer fails where the first model's doesn't: {first_line(error)}"
        row.diagnosis = row.diagnosis or why
        return true, False
    _keep_worst(row.errors, "result", _ratio(z, true, bound, dtype))
    for which, result, copy in (("first", y, step), ("second", z, other)):
        ratio = _ratio(result, true, bound, dtype)
        if not row.diagnosis and ratio > 1:
            mine, theirs = (each.transposed or each.main for each in (step, copy))
            reordered = columns_reordered(step, copy, values[0].shape[1] if values[0].ndim > 2 else None)
            case = LayerCase(reordered or mine, theirs, values[0], result, bound)
            row.diagnosis = _why(case, true, step, dtype, row, ratio)
            if which == "first" or not row.differences:
                row.diagnosis = f"{_CHANGED.format(which)}: {row.diagnosis}"
            row.image = _worst_plane(result, true, bound)
    return true, y.shape == z.shape == true.shape


def _keep_worst(errors: dict[str, float], quantity: str, ratio: float) -> None:
    errors[quantity] = max(errors.get(quantity, 0.0), ratio)


def _wide(step: Step, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For an activation, images of numbers so large that it saturates: ReLU and ReLU6 are the same up to 6."""
    if not isinstance(step.main, Activation) or math.isinf(FUNCTIONS[step.main.function].slope):
        return []
    return [8 * np.abs(images[0]) + 8, -8 * np.abs(images[0]) - 8]


def _remainders(steps: Sequence[Step], images: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Images of the remainders by the stride that are missing: deep in a model, all sizes may be odd.

    Those of which some numbers of a kernel take nothing, or that a pool's window covers whole, don't count.
    """
    layers = [each for step in steps for each in step.layers if isinstance(each, (Convolution, Pool))]
    if images[0].ndim == 2 or not layers:
        return []
    strides = [each.spec.stride if isinstance(each, Convolution) else each.stride for each in layers]
    kernels = [each.spec.kernel_size if isinstance(each, Convolution) else each.size for each in layers]
    dilations = [each.spec.dilation if isinstance(each, Convolution) else (1,) for each in layers]
    stride = min(max([1, *map(max, strides)]), _MOST_REMAINDERS)
    least = max(max(kernel) * max(dilation) for kernel, dilation in zip(kernels, dilations, strict=True))
    least = -(-(least + 1) // stride) * stride
    rank, reach = images[0].ndim - 2, max(map(_reach, layers))
    counted = [x for x in images if min(x.shape[2:]) > reach]
    had = [{x.shape[axis + 2] % stride for x in counted} for axis in range(rank)]
    missing = [r for r in range(stride) if any(r not in axis for axis in had)]
    further = [grid(rng, (1, images[0].shape[1], *(least + r,) * rank)) for r in missing]
    # What a ReLU gives is never negative: a border of zeros may count on that.
    return further if min(x.min(initial=0.0) for x in images) < 0 else [*map(np.abs, further)]


def _reach(layer: Convolution | Pool) -> int:
    """How far a kernel's numbers are from the pixels that they count for, or how large a pool's window is."""
    if isinstance(layer, Pool):
        return max(layer.size)
    ends = [(k - 1) * d for k, d in zip(layer.spec.kernel_size, layer.spec.dilation, strict=True)]
    padding = layer.spec.padding
    if isinstance(padding, str):
        return int(max(-(-end // 2) for end in ends))
    return int(max(max(before, end - before) for end, (before, _) in zip(ends, padding, strict=True)))


def _least(dtype: str) -> float:
    """What is nearer to zero is subnormal, and counts as zero in some frameworks."""
    return LEAST.get(dtype, LEAST["float32"])


def _normal(x: np.ndarray, dtype: str) -> np.ndarray:
    """The image with 0 for subnormal numbers."""
    return np.where(np.abs(x) < _least(dtype), 0.0, x)


def _finite(x: np.ndarray) -> np.ndarray:
    """The image, cut to a range in which products are finite if numbers of it aren't: those say nothing of a layer."""
    return x if np.isfinite(x).all() else np.clip(np.nan_to_num(x, nan=0.0), -_FAR, _FAR)


def thinned(x: np.ndarray, step: Step, dtype: str, rng: np.random.Generator) -> np.ndarray:
    """The image with most numbers set to 0, so that sums of half-precision products have bounds that say something."""
    main = step.main
    products = main.kernel[0].size if isinstance(main, (Convolution, Dense)) else 1
    some = share(dtype, products)
    return x if some == 1 else np.where(rng.random(x.shape) < some, x, 0.0)


def _run(a: RunnableStep, values: Arrays) -> np.ndarray:
    step = a.step
    try:
        return in_rows(a.models.run(step.natives, as_input(values), step.dtype))
    except ConvlabError:
        raise
    except Exception as error:  # A framework may raise any error.
        raise ModelError(
            f"{step.path or 'the layer'}: it can't be run on {_shapes(values)}: {first_line(error)}.",
            hint=f"do its weights fit, and does it take one image, {_shape_of(values[0])}, and nothing else?",
        ) from error


def _shape_of(x: np.ndarray) -> str:
    return SHAPES.get(x.ndim - 2, SHAPES[2])


def _shapes(values: Arrays) -> str:
    shapes = " and ".join(str(x.shape) for x in values)
    return f"an image of shape {shapes}" if len(values) == 1 else f"arrays of shapes {shapes}"


def _gradients(
    row: Row,
    both: tuple[RunnableStep, RunnableStep],
    x: np.ndarray,
    shape: tuple[int, ...],
    dtype: str,
    rng: np.random.Generator,
) -> None:
    """Hold the gradients of both steps, whose results have a shape, to those of the layer that the first one is."""
    first = both[0].step
    kernel = getattr(first.learned, "kernel", None)
    products = math.prod(shape) // shape[1] if kernel is None else shape[1] * math.prod(kernel.shape[2:])
    dy = grid(rng, shape, share(dtype, products))
    true, bounds = first.gradients(x, dy, dtype)
    for (models, step), errors in zip(both, (row.own, row.errors), strict=True):
        try:
            gradients = models.gradients(step.natives, x, dy, step.dtype)
        except Exception as error:  # A framework or the layer's own code may raise any error.
            row.diagnosis = row.diagnosis or f"the gradients can't be computed: {first_line(error)}"
            continue
        if "K" in gradients and step.flattened != first.flattened:
            gradients["K"] = Dense(gradients["K"]).reordered(x.shape[1], first.flattened).kernel
        if "K" in gradients and gradients["K"].ndim < true["K"].ndim:  # a dense layer of pixels, a convolution here
            gradients["K"] = gradients["K"].reshape(true["K"].shape)
        for name in filter(gradients.__contains__, true):  # One of the layers may have constants for parameters.
            ratio = _ratio(gradients[name], true[name], bounds[name] + _least(dtype), dtype)
            _keep_worst(errors, f"gradient of {name}", ratio)


def _ratio(result: np.ndarray, true: np.ndarray, bound: np.ndarray, dtype: str) -> float:
    if result.shape != true.shape:
        return np.inf
    largest = np.finfo("float32" if dtype == "bfloat16" else dtype).max
    overflow = np.abs(true) + bound > largest
    return float(error_ratios(result, true, bound, overflow).max(initial=0.0))


def _worst_plane(result: np.ndarray, true: np.ndarray, bound: np.ndarray) -> np.ndarray | None:
    if result.shape != true.shape or not result.size:
        return None
    ratios = np.atleast_2d(error_ratios(result, true, bound))
    planes = ratios.reshape(-1, *ratios.shape[-2:])
    return np.asarray(planes[np.argmax(planes.max((1, 2)))])


def _why(case: LayerCase, true: np.ndarray, step: Step, dtype: str, row: Row, ratio: float) -> str:
    """Why a result is wrong, as far as its data and the layers tell; the attributes that differ say the rest."""
    convolution, result, unexplained = step.convolution, case.result, ""
    if convolution:
        diagnosis: Diagnosis | None = None
        with contextlib.suppress(ConvlabError):
            x, y, flat = as_images(case.x, result, convolution)
            diagnosis = diagnose(y, x, flat.kernel, bias=flat.bias, dtype=dtype, **flat.spec.geometry)
        if diagnosis and diagnosis.suspect != "unexplained":
            as_image = "\nA sequence counts as an image of one row." if case.x.ndim == 3 else ""
            return f"{diagnosis}{as_image}{_note_on_padding(convolution, case.x)}"
        unexplained = str(diagnosis) if diagnosis and not row.differences else ""
    cause = layer_cause(case) or unexplained
    if cause:
        return cause
    if result.shape != true.shape:
        return f"the result has shape {result.shape} instead of {true.shape}."
    times = "" if np.isinf(ratio) else f", {number(ratio)} times what rounding allows"
    return f"the results differ by up to {np.abs(result - true).max():.3g}{times}."


def _note_on_padding(convolution: Convolution, x: np.ndarray) -> str:
    padding = convolution.spec.padding
    if not isinstance(padding, str):
        return ""
    return f"\nThat is padding={padding!r} for images of {times(x.shape[2:])}: with a stride it depends on their size."
