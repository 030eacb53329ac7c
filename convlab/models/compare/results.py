"""Do two models, each called as a whole, give the same results for the same images?

Nothing is known of what stands between the layers of such a model, so its rounding error can't be derived. It is
measured instead: the first model is also run on images that differ from the given ones by a few roundings, and the
results of the second model must be as near to those of the first as some multiple of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...dtypes import SIGNIFICAND
from ...errors import ModelError
from ...truth.bounds import worst_ratio
from ...truth.precision import rounded
from ..adapters import Arrays
from ..layers.inputs import Batch
from ..layers.layer import Convolution, Dense
from ..layers.outputs import Outputs
from ..layers.reading import INPUT, Model
from ..layers.steps import Step, last_functions, steps, values_given
from .random_images import grid, random_images
from .sides import Side

Shape = tuple[int, ...]

# Large images show saturating functions (ReLU6), and small ones epsilons. Powers of two round nothing.
_SCALES = (1.0, 2.0**6, 2.0**-6)
# The images are changed by this many roundings.
_ROUNDINGS = 8
_CHANGES = 3
# The results may differ by this many changes of the first model's results.
_TOLERANCE = 16.0
_SIZES = (32, 28, 64, 224, 16, 8, 12, 24, 48, 56, 96, 112, 128, 160, 192, 256, 299, 384, 512)
# Larger volumes take too long.
_FEW = 8
# So many more rows and columns give every remainder by a stride of 2.
_FURTHER = ((1, 0, 0), (3, 2, 1))


@dataclass(eq=False)
class Results:
    """How the results of two models for the same images compare.

    Attributes:
        shapes: of the images that both were run on, (C, H, W), or (C,) for rows of numbers.
        ratio: the largest difference, in tolerances: at most 1 where the results agree; None if nothing was compared.
        which: the result that differs most, in words; "" where the models give one, or all agree.
        apart: the largest difference between results for the images as they are.
        reason: why nothing was compared, or what else is wrong.
    """

    shapes: list[Shape] = field(default_factory=list)
    ratio: float | None = None
    which: str = ""
    apart: float = 0.0
    reason: str = ""


def compare_results(a: Side, b: Side, dtype: str, images: Sequence[Batch] | None, seed: int) -> Results:
    """Run both models on the given images, or on random ones that the first model takes.

    Raises:
        ModelError: given images that a model can't be run on; the message says which.
    """
    rng = np.random.default_rng(seed)
    batches = images if images is not None else _random_batches(a, b, dtype, rng)
    if not batches:
        return Results(reason=_not_runnable(a, dtype, rng))
    results, worst, informative = Results(), 0.0, False
    for batch in batches:
        x = _varied(batch, dtype, rng)
        ys = a.results(x, dtype)
        results.shapes += [each.shape[1:] for each in batch.values()]
        try:
            zs = b.results(x, dtype)
        except ModelError as error:
            if images is not None:
                raise
            results.ratio, results.reason = np.inf, f"the second model fails where the first one doesn't: {error}"
            return results
        if [y.shape for y in ys] != [z.shape for z in zs]:
            return _other_shape(results, ys, zs)
        for number, (y, z) in enumerate(zip(ys, zs, strict=True), 1):
            count = _length(batch)
            ratio, depends = _ratio(y, z, count, dtype)
            informative = informative or depends
            apart = float(np.nan_to_num(np.abs(z - y)[:count], nan=np.inf).max(initial=0.0))
            results.apart = max(results.apart, apart)
            if ratio > max(worst, 1) and len(ys) > 1:
                results.which = _called(a.model, number, len(ys))
            worst = max(worst, ratio)
    results.ratio = worst
    if not informative and worst <= 1:
        return Results(results.shapes, reason="the first model's results hardly depend on the images that were tried")
    return results


def apart_in_tolerances(side: Side, batch: Batch, dtype: str, seed: int) -> float:
    """How far the results of a model, called as a whole, are from those of its layers for a batch, in tolerances.

    A function at the end, such as a softmax, may be steep where the changed images don't lead: there the tolerance is
    that of what it takes, carried through it by its own bound.
    """
    x, layers = _varied(batch, dtype, np.random.default_rng(seed)), side.in_parts()
    ys, zs = layers.results(x, dtype), side.results(x, dtype)
    if [y.shape for y in ys] != [z.shape for z in zs]:
        return np.inf
    worst = 0.0
    for y, z, value in zip(ys, zs, values_given(side.steps), strict=True):
        ratio = _ratio(y, z, _length(batch), dtype)[0]
        before, last = last_functions(side.steps, value)
        if ratio > 1 and last:
            (given,) = layers.up_to(before).results(x, dtype)
            ratio = min(ratio, _ratio_behind(last, given, z, _length(batch), dtype))
        worst = max(worst, ratio)
    return worst


def _ratio_behind(last: Sequence[Step], x: np.ndarray, z: np.ndarray, count: int, dtype: str) -> float:
    """The largest difference of z from what steps give for x, both of `_varied` images, in bounds of the steps.

    They take the tolerances of x for the errors of their input.
    """
    parts = (_CHANGES + 2, len(_SCALES), count)
    x, z = (np.asarray(each, np.float64).reshape(*parts, *each.shape[1:]) for each in (x, z))
    worst = 0.0
    for scale in range(len(_SCALES)):
        true = x[0, scale]
        if not np.isfinite(x[:, scale]).all():
            continue
        off = np.broadcast_to(_tolerance(true, x[1:, scale], dtype), true.shape)
        for step in last:
            true, off = step.reference(true), step.error([true], [off], dtype)
        worst = max(worst, worst_ratio(z[0, scale], true, off))
    return worst


def _random_batches(a: Side, b: Side, dtype: str, rng: np.random.Generator) -> list[Batch]:
    """Random images of the first shape that both models take, or else that the first one takes, and of near sizes."""
    if len(a.model.inputs) > 1:
        return _of_several_inputs(a, b, rng)
    only_first: Shape | None = None
    for shape in _candidates(a.model, b.model):
        x = _one(rng, 1, shape)
        if not _runs(a, x, dtype):
            continue
        only_first = only_first or shape
        if _runs(b, x, dtype):
            break
    else:
        return [] if only_first is None else [_one(rng, 2, only_first)]
    shapes = [shape]
    if len(shape) > 1 and _fixed(a.model) is None and _fixed(b.model) is None:
        near = [(shape[0], *(n + more for n, more in zip(shape[1:], further, strict=False))) for further in _FURTHER]
        shapes += [each for each in near if _runs(a, _one(rng, 1, each), dtype)]
    return [_one(rng, 2, each) for each in shapes]


def _one(rng: np.random.Generator, count: int, shape: Shape) -> Batch:
    return {INPUT: grid(rng, (count, *shape))}


def _of_several_inputs(a: Side, b: Side, rng: np.random.Generator) -> list[Batch]:
    """Random images that go through the layers of both models, which have several inputs."""
    try:
        mine, theirs = steps(a.model), steps(b.model)
        seed = int(rng.integers(2**31))
        return random_images(mine, seed, others=theirs, inputs=a.model.inputs)
    except ModelError:  # no such images are known
        return []


def _runs(side: Side, x: Batch, dtype: str) -> bool:
    try:
        side.run(x, dtype)
    except ModelError:
        return False
    return True


def _not_runnable(a: Side, dtype: str, rng: np.random.Generator) -> str:
    """The first model's error for the likeliest image."""
    if len(a.model.inputs) == 1:
        shape = next(iter(_candidates(a.model, a.model)))
        try:
            a.run(_one(rng, 1, shape), dtype)
        except ModelError as error:
            return str(error)
    return "no random image was found that the first model takes"


def _fixed(model: Model) -> Shape | None:
    """The only rows and columns that a model takes."""
    size = model.image[1:] if model.image else (None,)
    return None if None in size else size  # type: ignore[return-value]


def _candidates(a: Model, b: Model) -> Iterable[Shape]:
    """Shapes that images may have, the likeliest first."""
    for model in (a, b):
        if model.image and None not in model.image:
            yield model.image  # type: ignore[misc]
            return
    layers = [part.layer for model in (a, b) for part in model.parts]
    convolutions = [layer for layer in layers if isinstance(layer, Convolution)]
    if not convolutions:
        yield from dict.fromkeys((layer.kernel.shape[1],) for layer in layers if isinstance(layer, Dense))
    rank = max(a.rank, b.rank, key=lambda rank: rank != 2)
    stated = [model.image[0] for model in (a, b) if model.image and model.image[0]]
    read = [int(layer.spec.in_channels or 1) for layer in convolutions]
    for channels in dict.fromkeys([*stated] or [*read[:1], 3, 1, *read[1:4]]):
        for n in _SIZES if rank < 3 else _SIZES[:_FEW]:
            yield (channels, *(n,) * rank)


def _length(batch: Batch) -> int:
    """The number of images."""
    return len(next(iter(batch.values())))


def _varied(batch: Batch, dtype: str, rng: np.random.Generator) -> Batch:
    """The images at each scale, and these again, changed by a few roundings.

    They are changed `_CHANGES` times with each pixel its own way, and once with all pixels alike.
    """
    small = _ROUNDINGS * 2.0 ** -SIGNIFICAND[dtype]

    def varied(x: np.ndarray) -> np.ndarray:
        scaled = np.concatenate([scale * x for scale in _SCALES])
        changed = [scaled * (1 + small * rng.choice((-1.0, 1.0), scaled.shape)) for _ in range(_CHANGES)]
        return rounded(np.concatenate([scaled, *changed, scaled * (1 + small)]), dtype)

    return {value: varied(x) for value, x in batch.items()}


def _ratio(y: np.ndarray, z: np.ndarray, count: int, dtype: str) -> tuple[float, bool]:
    """The largest difference between the results for `_varied` images, in tolerances.

    Returns:
        That, and whether the results of the first model tell the images apart.
    """
    parts = (_CHANGES + 2, len(_SCALES), count)
    y, z = (np.asarray(each, np.float64).reshape(*parts, *each.shape[1:]) for each in (y, z))
    worst, depends = 0.0, False
    for scale in range(len(_SCALES)):
        plain, changed = y[0, scale], y[1:, scale]
        if not np.isfinite(y[:, scale]).all():
            continue
        tolerance = _tolerance(plain, changed, dtype)
        with np.errstate(invalid="ignore"):  # The second model's results may be infinite.
            ratios = np.abs(z[0, scale] - plain) / tolerance
        worst = max(worst, float(np.where(np.isnan(ratios), np.inf, ratios).max(initial=0.0)))
        depends = depends or bool((np.abs(plain - y[0, 0, 0]) > tolerance).any())
    return worst, depends


def _tolerance(plain: np.ndarray, changed: np.ndarray, dtype: str) -> np.ndarray:
    """How far apart results (N, C, ...) may be.

    Channels differ in magnitude by any factor, so each has a tolerance of its own.
    """
    inner = tuple(range(2, plain.ndim))
    change = np.abs(changed - plain).max(axis=0).max(axis=inner, keepdims=True, initial=0.0)
    magnitude = np.abs(plain).max(axis=(0, *inner), keepdims=True, initial=0.0)
    relative = np.broadcast_to(change / np.where(magnitude > 0, magnitude, 1.0), change.shape)
    usual = float(np.median(relative)) if relative.size else 0.0
    rounding = 2.0 ** -SIGNIFICAND[dtype]
    return np.asarray(_TOLERANCE * (change + (usual + rounding) * magnitude) + np.finfo(np.float32).tiny)


def _called(model: Model, number: int, count: int) -> str:
    """One of the results, counted from 1, by its name if it has one."""
    last = model.parts[-1].layer if model.parts else None
    if isinstance(last, Outputs) and len(last.names) == count:
        return f"result {last.names[number - 1]!r}"
    return f"result {number} of {count}"


def _other_shape(results: Results, ys: Arrays, zs: Arrays) -> Results:
    mine, theirs = (" and ".join(str(each.shape[1:]) for each in several) for several in (ys, zs))
    shapes = f"the results have shapes {mine} and {theirs}"
    if len(ys) + len(zs) > 2:
        shapes = f"the first model's results have shapes {mine}, the second's {theirs}"
    if [sorted(y.shape) for y in ys] == [sorted(z.shape) for z in zs]:
        return Results(results.shapes, reason=f"{shapes}, perhaps with their axes in another order")
    return Results(results.shapes, np.inf, reason=shapes)
