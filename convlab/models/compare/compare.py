"""`convlab.compare`: do two layers or two models compute the same, and if not, where do they part, and why?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ...dtypes import SIGNIFICAND
from ...errors import ModelError
from ...geometry.geometry import Pair
from ...truth.precision import rounded
from ..adapters import Models, models_of, read
from ..layers.layer import Dense, Dropout
from ..layers.reading import Model
from ..layers.steps import Step, steps, weighted
from .comparison import Comparison
from .pairing import paired
from .proof import Row, prove
from .random_images import random_images
from .results import compare_results, run_whole


def compare(a: Any, b: Any, inputs: Any = None, *, names: Mapping[str, str] | None = None, seed: int = 0) -> Comparison:
    """Compare two layers or two models of any two frameworks.

    Models that are one layer after another (`torch.nn.Sequential`, `keras.Sequential`, …) are compared layer by layer,
    each pair on what reaches it in the first model, and then as a whole. Of others the layers with weights are compared
    each by itself, paired by their names, then by equal weights, then in order; and both models are run as a whole on
    the same images, for what stands between their layers. Where they can't be, the verdict `same` is None.

    >>> from convlab import numpy as lab
    >>> a = lab.Conv2D(3, out_channels=1, in_channels=1, stride=2, padding=1, seed=0)
    >>> b = lab.Conv2D(3, out_channels=1, in_channels=1, stride=2, padding="same", seed=0)
    >>> print(compare(a, b).first.diagnosis)
    other padding: the padding is ((1, 1), (0, 1)) (SAME, as in TensorFlow) instead of ((1, 1), (1, 1)). ...

    Args:
        a, b: native layers or models, convlab's own among them; a `flax.linen` module bound to its variables.
        inputs: an image or a batch, (N, C, H, W), or a list of them; by default random ones of odd and even sizes. A
            `flax.linen` module whose layers only show when it runs needs them.
        names: which layer of b belongs to which of a, by path; no others are compared, and `same` isn't True.
        seed: of the random images and gradients.

    Raises:
        ModelError: what isn't a model; a model of which no layer is known; inputs that a model can't be run on.
    """
    images = None if inputs is None else images_of(inputs)
    example = None if images is None else images[0]
    one, two = (read(model, example, name) for model, name in ((a, "a"), (b, "b")))
    return compare_read(one, two, images, None, names, seed)


def compare_read(
    a: Model,
    b: Model,
    images: Sequence[np.ndarray] | None = None,
    size: Pair | None = None,
    names: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Comparison:
    """`compare` of what has been read; `size` is that of the random images, if no other will do."""
    sides = (models_of(a.backend), a), (models_of(b.backend), b)
    whole = names is None and all(each.whole and None not in [p.layer for p in each.parts] for each in (a, b))
    first, second = ([*steps(each)] if whole else weighted(each) for each in (a, b))
    if whole and not first and not second:  # nothing but what does nothing
        whole = False
    pairs, structure = paired(first, second, names, whole)
    if a.size and b.size and a.size != b.size and not structure:
        structure = f"the first model takes images of {a.size} rows and columns, the second of {b.size}"
    comparison = Comparison((a.backend, b.backend), [], structure, whole, {} if whole else _untold(a, b))
    if whole:
        _in_turn(comparison, sides, pairs, first, second, images, size, seed)
        if not structure or comparison.first is not None:
            return comparison
    else:
        comparison.rows = alone((sides[0][0], sides[1][0]), pairs, seed, {})
        _note_elsewhere(comparison.rows, pairs)
    covers = names is None or (len(names) == len(first) == len(second) and not a.loose and not b.loose)
    if not covers:
        comparison.partial = "only the layers that were named were looked at"
        return comparison
    dtypes = [step.dtype for step in (*first, *second)] or ["float32"]
    dtype = min(dtypes, key=lambda name: SIGNIFICAND[name])
    try:
        comparison.results = compare_results(*sides, dtype, images, seed)
    except ModelError:
        if comparison.same is not False:
            raise
    if not comparison.rows and comparison.results is not None and comparison.results.ratio is None:
        raise ModelError(f"a, b: nothing of them can be compared: {comparison.results.reason}", hint="give inputs=.")
    return comparison


def _in_turn(
    comparison: Comparison,
    sides: tuple[tuple[Models, Model], tuple[Models, Model]],
    pairs: Sequence[tuple[Step, Step]],
    first: Sequence[Step],
    second: Sequence[Step],
    images: Sequence[np.ndarray] | None,
    size: Pair | None,
    seed: int,
) -> None:
    """Compare chains: each pair of steps on what reaches it in the first model, then both models as wholes."""
    (models, a), (others, b) = sides
    size = size or a.size or b.size
    every_size = images is None and size is None
    if images is None:
        images = random_images(first, seed, size, second)
    else:
        for batch in images:
            run_whole(sides[0], rounded(batch, first[0].dtype), first[0].dtype)
    flowing = images
    for one, two in pairs:
        row, flowing = prove((models, one), (others, two), flowing, seed, every_size)
        comparison.rows.append(row)
    if comparison.structure or comparison.first is not None:
        return
    if any(part.native is not model.native for _, model in sides for part in model.parts):
        comparison.wholes = (_as_a_whole(sides[0], first, images), _as_a_whole(sides[1], second, images))


def _note_elsewhere(rows: Sequence[Row], pairs: Sequence[tuple[Step, Step]]) -> None:
    """Mark the pairs of layers that differ only in what models may do outside of these layers: a border in front of a
    convolution, and the order in which the inputs of a dense layer are flattened."""
    for row, (one, two) in zip(rows, pairs, strict=True):
        a, b = one.convolution or one.main, two.convolution or two.main
        if isinstance(a, Dense) and isinstance(b, Dense):
            row.elsewhere = _columns_permuted(a, b)
        else:
            names = {difference.partition(":")[0] for difference in row.differences}
            row.elsewhere = bool(names) and names <= {"padding", "padding_mode"}
        row.elsewhere = row.elsewhere and max(row.own.values(), default=0.0) <= 1


def _columns_permuted(a: Dense, b: Dense) -> bool:
    if a.kernel.shape != b.kernel.shape or not _equal(a.bias, b.bias) or np.array_equal(a.kernel, b.kernel):
        return False
    one, two = (kernel[:, np.lexsort(kernel)] for kernel in (a.kernel, b.kernel))
    return np.array_equal(one, two)


def _equal(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b)


def alone(
    sides: tuple[Models, Models], pairs: Sequence[tuple[Step, Step]], seed: int, sizes: Mapping[str, Pair]
) -> list[Row]:
    """Each pair of steps on random images of its own; where `sizes` has the first one's path, of that size."""
    rows = []
    for one, two in pairs:
        size = sizes.get(one.path)
        images = random_images([one], seed, size, [two])
        rows.append(prove((sides[0], one), (sides[1], two), images, seed, every_size=size is None)[0])
    return rows


def _as_a_whole(side: tuple[Models, Model], steps: Sequence[Step], images: Iterable[np.ndarray]) -> float:
    """How far a model, called as a whole, is from its layers one after another: 0 for the same bits.

    Otherwise in bounds carried through all layers; infinite where these have grown beyond the result.
    """
    from ...truth.bounds import worst_ratio

    models, model = side
    worst, dtype = 0.0, steps[0].dtype
    natives = [part.native for part in model.parts if not isinstance(part.layer, Dropout)]  # which does nothing
    for image in images:
        x = rounded(image, dtype)
        error = np.zeros_like(x)
        y = run_whole(side, x, dtype)
        if np.array_equal(y, models.run(natives, x, dtype), equal_nan=True):
            continue
        for step in steps:
            error, x = step.error(x, error, step.dtype), step.reference(x)
        says_something = y.shape == x.shape and error.max() < np.abs(x).max()
        worst = max(worst, worst_ratio(y, x, error) if says_something else np.inf)
    return worst


def images_of(inputs: Any) -> list[np.ndarray]:
    """What users give as `inputs`, as a list of batches in float64."""
    from ...truth.oracle import as_numpy

    several = [as_numpy(each, "inputs") for each in (inputs if isinstance(inputs, (list, tuple)) else [inputs])]
    if not several or not all(each.size for each in several):
        raise ModelError("inputs: got no image, expected some.", hint="leave it out for random ones.")
    for each in several:
        if each.ndim not in (3, 4):
            raise ModelError(
                f"inputs: got shape {each.shape}, expected (N, C, H, W).", hint="x.transpose(0, 3, 1, 2) of NHWC."
            )
        if not np.isfinite(each).all():
            raise ModelError(
                f"inputs: got {int((~np.isfinite(each)).sum())} values that are NaN or infinite, expected finite ones.",
                hint="no comparison of them says anything.",
            )
    return [np.asarray(each if each.ndim == 4 else each[None], np.float64) for each in several]


def _untold(a: Model, b: Model) -> dict[str, str]:
    """What isn't compared by itself: of the first model, and what only the second one has."""
    untold: dict[str, str] = {}
    for model in (b, a):
        told = {step.path for step in weighted(model)}
        untold |= {part.path: part.note for part in model.parts if part.path not in told} | model.loose
    return untold
