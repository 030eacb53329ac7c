"""Do two steps compute the same? Both run on the same images, and are held to the first one's reference."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np

from ...dtypes import SIGNIFICAND
from ...errors import ConvlabError, ModelError
from ...geometry.geometry import Pair
from ...truth.bounds import error_ratios, gradient_bounds, worst_ratio
from ...truth.diagnosis import Diagnosis, diagnose
from ...truth.oracle import oracle_gradients
from ...truth.precision import rounded
from ..adapters import Models
from ..layers.activations import Activation
from ..layers.layer import Convolution, Dense, Flatten, Layer
from ..layers.pooling import Pool
from ..layers.steps import Step
from .random_images import grid, share
from .sides import first_line

_MOST_REMAINDERS = 16
# The gradients are computed for one image of odd and one of even height: compilers take their time for each size.
_WITH_GRADIENTS = 2


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
        own: a's worst errors by quantity ("result", "gradient of X", …), in rounding bounds of a's reference.
        errors: b's, in the same bounds: at most 1 where they compute the same.
        diagnosis: why they diverge.
        differences: how their attributes differ.
        image: where they diverge: the errors of one channel of one result, in bounds.
        elsewhere: whether they differ only in what their models may do outside of them (see `compare`).
    """

    a: str
    b: str
    kind: str
    sizes: list[Pair] = field(default_factory=list)
    own: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    diagnosis: str = ""
    differences: tuple[str, ...] = ()
    image: np.ndarray | None = None
    elsewhere: bool = False

    @property
    def same(self) -> bool:
        """Whether both compute what the first one's attributes say."""
        return all(error <= 1 for error in [*self.own.values(), *self.errors.values()]) and not self.diagnosis

    def worst(self, quantity: str) -> float:
        """The second step's worst error among quantities whose names begin so; 0 if there is none."""
        return max((error for name, error in self.errors.items() if name.startswith(quantity)), default=0.0)


def prove(
    a: RunnableStep, b: RunnableStep, images: Iterable[np.ndarray], seed: int = 0, every_size: bool = True
) -> tuple[Row, list[np.ndarray]]:
    """Run two steps on the same images (NCHW, float64), forward and with gradients; the first one's results come back.

    With `every_size` they are also run on others, so that all remainders of their sizes by a stride occur.
    """
    step, other = a.step, b.step
    dtype = min(step.dtype, other.dtype, key=lambda name: SIGNIFICAND[name])
    row = Row(step.path, other.path, step.main.kind, differences=tuple(differences(step, other)))
    results, rng = [], np.random.default_rng(seed)
    images = list(images)
    further = [*_wide(step, images), *(_remainders((step, other), images, rng) if every_size else [])]
    for number, x in enumerate([*images, *further]):
        x = rounded(thinned(x, step, dtype, rng), dtype)
        if x.ndim == 4:
            row.sizes.append((x.shape[2], x.shape[3]))
        true, fit = _results(row, a, b, x, dtype)
        if number < len(images):
            results.append(rounded(true, dtype))
        if step.convolution and number < _WITH_GRADIENTS and fit:
            _gradients(row, a, b, x, dtype, np.random.default_rng((seed, number)))
    if not row.same and not row.diagnosis:
        row.diagnosis = "the gradients differ: one of the layers was changed (a hook, a frozen or a custom gradient)"
    return row, results


def _results(row: Row, a: RunnableStep, b: RunnableStep, x: np.ndarray, dtype: str) -> tuple[np.ndarray, bool]:
    """Hold both results for an image to the first step's reference.

    Returns:
        The reference's result, and whether both results have its shape.
    """
    step, other = a.step, b.step
    true, bound = step.reference(x), step.error(x, np.zeros_like(x), dtype)
    y = _run(a, x)
    _keep_worst(row.own, "result", _ratio(y, true, bound))
    try:
        z = b.models.run(other.natives, x, other.dtype)
    except Exception as error:  # A framework may raise any error.
        why = f"the second model's layer fails where the first model's doesn't: {first_line(error)}"
        row.diagnosis = row.diagnosis or why
        return true, False
    _keep_worst(row.errors, "result", _ratio(z, true, bound))
    for whose, result in (("the first model's layer", y), ("", z)):
        if not row.diagnosis and _ratio(result, true, bound) > 1:
            row.diagnosis = _why(result, true, step, x, dtype, whose)
            row.image = _worst_plane(result, true, bound)
    return true, y.shape == z.shape == true.shape


def _keep_worst(errors: dict[str, float], quantity: str, ratio: float) -> None:
    errors[quantity] = max(errors.get(quantity, 0.0), ratio)


def _wide(step: Step, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For an activation, images of numbers so large that it saturates: ReLU and ReLU6 are the same up to 6."""
    return [8 * np.abs(images[0]) + 8, -8 * np.abs(images[0]) - 8] if isinstance(step.main, Activation) else []


def _remainders(steps: Sequence[Step], images: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Images of the remainders by the stride that are missing: deep in a model, all sizes may be odd."""
    if images[0].ndim != 4:
        return []
    layers = [each for step in steps for each in step.layers if isinstance(each, (Convolution, Pool))]
    strides = [each.spec.stride if isinstance(each, Convolution) else each.stride for each in layers]
    kernels = [each.spec.kernel_size if isinstance(each, Convolution) else each.size for each in layers]
    dilations = [each.spec.dilation if isinstance(each, Convolution) else (1, 1) for each in layers]
    stride = min(max([1, *map(max, strides)]), _MOST_REMAINDERS)
    if stride == 1:
        return []
    least = max(max(kernel) * max(dilation) for kernel, dilation in zip(kernels, dilations, strict=True))
    least = -(-(least + 1) // stride) * stride
    of_rows, of_columns = ({x.shape[axis] % stride for x in images} for axis in (2, 3))
    missing = [r for r in range(stride) if r not in of_rows or r not in of_columns]
    return [grid(rng, (1, images[0].shape[1], least + r, least + r)) for r in missing]


def thinned(x: np.ndarray, step: Step, dtype: str, rng: np.random.Generator) -> np.ndarray:
    """The image with most numbers set to 0, so that sums of half-precision products have bounds that say something."""
    main = step.main
    products = main.kernel[0].size if isinstance(main, (Convolution, Dense)) else 1
    some = share(dtype, products)
    return x if some == 1 else np.where(rng.random(x.shape) < some, x, 0.0)


def _run(a: RunnableStep, x: np.ndarray) -> np.ndarray:
    step = a.step
    try:
        return a.models.run(step.natives, x, step.dtype)
    except ConvlabError:
        raise
    except Exception as error:  # A framework may raise any error.
        raise ModelError(
            f"{step.path or 'the layer'}: it can't be run on an image of shape {x.shape}: {first_line(error)}",
            hint="do its weights fit, and does it take one image, (N, C, H, W), and nothing else?",
        ) from error


def _gradients(row: Row, a: RunnableStep, b: RunnableStep, x: np.ndarray, dtype: str, rng: np.random.Generator) -> None:
    convolution = a.step.convolution
    assert convolution is not None
    geometry = convolution.spec.geometry
    outputs, spec = convolution.kernel.shape[0] // convolution.spec.groups, convolution.spec
    some = share(dtype, outputs * spec.kernel_size[0] * spec.kernel_size[1])
    dy = grid(rng, convolution.reference(x).shape, some)
    true = oracle_gradients(x, convolution.kernel, dy, **geometry)._asdict()
    bounds = gradient_bounds(x, convolution.kernel, dy, dtype, **geometry)._asdict()
    for (models, step), errors in ((a, row.own), (b, row.errors)):
        try:
            gradients = models.gradients(step.natives, x, dy, step.dtype)
        except Exception as error:  # A framework or the layer's own code may raise any error.
            row.diagnosis = row.diagnosis or f"the gradients can't be computed: {first_line(error)}"
            continue
        for name, gradient in gradients.items():
            _keep_worst(errors, f"gradient of {name}", _ratio(gradient, true[name], bounds[name]))


def _ratio(result: np.ndarray, true: np.ndarray, bound: np.ndarray) -> float:
    return worst_ratio(result, true, bound) if result.shape == true.shape else np.inf


def _worst_plane(result: np.ndarray, true: np.ndarray, bound: np.ndarray) -> np.ndarray | None:
    if result.shape != true.shape or not result.size:
        return None
    ratios = np.atleast_2d(error_ratios(result, true, bound))
    planes = ratios.reshape(-1, *ratios.shape[-2:])
    return np.asarray(planes[np.argmax(planes.max((1, 2)))])


def _why(result: np.ndarray, true: np.ndarray, step: Step, x: np.ndarray, dtype: str, whose: str) -> str:
    prefix = ""
    if whose:
        prefix = f"{whose} doesn't compute what its attributes say (is there a hook, a subclass or a changed weight?): "
    convolution = step.convolution
    diagnosis: Diagnosis | None = None
    if convolution:
        with contextlib.suppress(ConvlabError):
            geometry = convolution.spec.geometry
            diagnosis = diagnose(result, x, convolution.kernel, bias=convolution.bias, dtype=dtype, **geometry)
    if convolution and diagnosis and isinstance(convolution.spec.padding, str):
        name, size = convolution.spec.padding, f"{x.shape[2]}x{x.shape[3]}"
        note = f"That is padding={name!r} for images of {size}: with a stride it depends on their size."
        return f"{prefix}{diagnosis}\n{note}"
    if diagnosis:
        return f"{prefix}{diagnosis}"
    if result.shape != true.shape:
        return f"{prefix}the result has shape {result.shape} instead of {true.shape}"
    return f"{prefix}the results differ by up to {np.abs(result - true).max():.3g}"


def differences(step: Step, other: Step) -> Iterable[str]:
    """How the attributes of two steps differ."""
    a, b = step.convolution or step.main, other.convolution or other.main
    if type(a) is not type(b):
        yield f"{a.kind} / {b.kind}"
        return
    mine, theirs = {**_orders(step), **dict(_facts(a))}, {**_orders(other), **dict(_facts(b))}
    for name, value in mine.items():
        there = theirs[name]
        if isinstance(value, np.ndarray) and isinstance(there, np.ndarray) and value.shape == there.shape:
            if not np.array_equal(value, there):
                yield f"{name}: differs by up to {np.abs(value - there).max():.3g}"
        elif isinstance(value, np.ndarray) or isinstance(there, np.ndarray):
            shapes = [None if array is None else array.shape for array in (value, there)]
            if shapes[0] != shapes[1]:
                yield f"{name}: {shapes[0]} / {shapes[1]}"
        elif value != there:
            yield f"{name}: {value} / {there}"


def _orders(step: Step) -> dict[str, Any]:
    """The order of the pixels that are flattened before it."""
    return {"order": next((layer.order for layer in step.layers if isinstance(layer, Flatten)), "")}


def _facts(layer: Layer) -> Iterable[tuple[str, Any]]:
    if isinstance(layer, Convolution):
        spec = layer.spec
        for name in ("stride", "padding", "padding_mode", "dilation", "groups", "dtype"):
            yield name, getattr(spec, name)
    # Momentum and rate count in training only; the others follow from the shapes of a pair, or are in the spec.
    left_out = ("spec", "momentum", "rate", "keepdims", "count_padding")
    for attribute in fields(layer):  # type: ignore[arg-type]
        if attribute.name not in left_out:
            yield attribute.name, getattr(layer, attribute.name)
