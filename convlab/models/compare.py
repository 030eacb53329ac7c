"""`convlab.compare`: do two layers or two models compute the same, and if not, where do they part, and why?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ModelError
from ..geometry import Pair
from .adapters import Models, models_of, read
from .images import random_images
from .layers import Dropout
from .proof import Row, prove, rounded
from .reading import Model
from .steps import Step, steps, weighted

_APART = 1e-3


@dataclass(eq=False)
class Comparison:
    """Two models, layer by layer.

    Attributes:
        backends: whose they are.
        rows: the pairs of layers, in order.
        structure: what doesn't fit in how they are made up; "" if all does.
        whole: whether every layer was compared, one after another; else only those with weights, in their order.
        untold: layers that weren't compared, by path, with their classes.
        wholes: how far each model, called as a whole, is from its layers one after another: 0 for the same bits,
            otherwise in bounds carried through all layers. Empty if not `whole`, or if a pair of layers parts.
        results: if not `whole`, how far apart the models' results for `inputs` are, as a share of the largest: no bound
            is known for that, and beyond 0.001 they count as different.
    """

    backends: tuple[str, str]
    rows: list[Row]
    structure: str = ""
    whole: bool = True
    untold: dict[str, str] = field(default_factory=dict)
    wholes: tuple[float, ...] = ()
    results: float | None = None

    @property
    def same(self) -> bool:
        """Whether they compute the same, as far as they were compared."""
        apart = self.results is not None and not self.results <= _APART
        return not self.structure and self.first is None and max(self.wholes, default=0.0) <= 1 and not apart

    @property
    def first(self) -> Row | None:
        """The first pair of layers that part."""
        return next((row for row in self.rows if not row.same), None)

    def __bool__(self) -> bool:
        return self.same

    def __str__(self) -> str:
        from .report import text

        return text(self)


def compare(a: Any, b: Any, inputs: Any = None, *, names: Mapping[str, str] | None = None, seed: int = 0) -> Comparison:
    """Compare two layers or two models of any two frameworks.

    Models that are one layer after another (`torch.nn.Sequential`, `keras.Sequential`, …) are compared layer by layer,
    each pair on what reaches it in the first model, and then as a whole. Of others the layers with weights are, in the
    order in which the models have them, or as `names` says.

    >>> from convlab import numpy as lab
    >>> a = lab.Conv2D(3, out_channels=1, in_channels=1, stride=2, padding=1, seed=0)
    >>> b = lab.Conv2D(3, out_channels=1, in_channels=1, stride=2, padding="same", seed=0)
    >>> print(compare(a, b).first.diagnosis)
    other padding: the padding is ((1, 1), (0, 1)) (SAME, as in TensorFlow) instead of ((1, 1), (1, 1)). ...

    Args:
        a, b: native layers or models, convlab's own among them; a `flax.linen` module bound to its variables.
        inputs: an image or a batch, (N, C, H, W), or a list of them; by default random ones of odd and even sizes. A
            `flax.linen` module whose layers only show when it runs needs them.
        names: which layer of b belongs to which of a, by path.
        seed: of the random images and gradients.

    Raises:
        ModelError: what isn't a model, or a model of which no layer is known.
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
    whole = names is None and all(each.whole and None not in [p.layer for p in each.parts] for each in (a, b))
    first, second = ([*steps(each)] if whole else weighted(each) for each in (a, b))
    if not first:
        raise ModelError(
            f"{_path(a)}: got {_kinds(a)}, expected a layer that convlab knows, such as a 2-D convolution.",
            hint="convlab.port's documentation lists them.",
        )
    pairs, structure = paired(first, second, names)
    found = Comparison((a.backend, b.backend), [], structure, whole, {} if whole else _untold(a))
    sides = models_of(a.backend), models_of(b.backend)
    if not whole:
        found.rows = alone(sides, pairs, seed, {})
        found.results = None if images is None else _results(sides, (a, b), images)
        return found
    every_size = images is None and size is None
    images = random_images(first, seed, size, second) if images is None else images
    flowing = images
    for one, two in pairs:
        row, flowing = prove((sides[0], one), (sides[1], two), flowing, seed, every_size)
        found.rows.append(row)
    if found.same and any(part.native is not each.native for each in (a, b) for part in each.parts):
        found.wholes = (_as_a_whole(a, sides[0], first, images), _as_a_whole(b, sides[1], second, images))
    return found


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


def _results(sides: tuple[Models, Models], models: tuple[Model, Model], images: Sequence[np.ndarray]) -> float | None:
    """How far apart the results of two whole models are, as a share of the largest; None if they can't be called so."""
    worst = 0.0
    for x in images:
        try:
            y, z = (side.run([model.native], x, "float32") for side, model in zip(sides, models, strict=True))
        except Exception:  # whatever a framework raises for a model that takes something else
            return None
        if y.shape != z.shape:  # in another layout, perhaps
            return None if sorted(y.shape) == sorted(z.shape) else float("inf")
        worst = max(worst, float(np.abs(y - z).max(initial=0.0) / max(float(np.abs(y).max(initial=0.0)), 1e-30)))
    return worst


def paired(
    first: Sequence[Step], second: Sequence[Step], names: Mapping[str, str] | None
) -> tuple[list[tuple[Step, Step]], str]:
    """Which steps belong together, as far as they do, and why not further."""
    if names is not None and not names:
        raise ModelError("names: got no pair of layers, expected some.", hint="names={of_a: of_b}, or leave it out.")
    if names is not None:
        mine, theirs = ({step.path: step for step in each} for each in (first, second))
        for known, given in ((mine, names), (theirs, names.values())):
            for name in given:
                if name not in known:
                    raise ModelError(
                        f"names: got {name!r}, expected one of {', '.join(known)}.", hint="names={of_a: of_b}"
                    )
        return [(mine[one], theirs[two]) for one, two in names.items()], ""
    pairs: list[tuple[Step, Step]] = []
    for one, two in zip(first, second, strict=False):
        if one.main.kind != two.main.kind:
            return pairs, (
                f"where the first model has {_called(one)}, a {one.main.kind}, the second has {_called(two)}, "
                f"a {two.main.kind}"
            )
        pairs.append((one, two))
    if len(first) != len(second):
        which, longer = ("first", first) if len(first) > len(second) else ("second", second)
        return pairs, f"the {which} model goes on with {_called(longer[len(pairs)])}, a {longer[len(pairs)].main.kind}"
    return pairs, ""


def _called(step: Step) -> str:
    return repr(step.path) if step.path else "the layer"


def _as_a_whole(model: Model, models: Models, steps: Sequence[Step], images: Iterable[np.ndarray]) -> float:
    """How far a model, called as a whole, is from its layers one after another: 0 for the same bits.

    Otherwise in bounds carried through all layers; infinite where these have grown beyond the result.
    """
    from ..testing.bounds import worst_ratio

    worst, dtype = 0.0, steps[0].dtype
    natives = [part.native for part in model.parts if not isinstance(part.layer, Dropout)]  # which does nothing
    for x in images:
        x, off = rounded(x, dtype), np.zeros_like(x)
        y = models.run([model.native], x, dtype)
        if np.array_equal(y, models.run(natives, x, dtype), equal_nan=True):
            continue
        for step in steps:
            off, x = step.error(x, off, step.dtype), step.reference(x)
        says_something = y.shape == x.shape and off.max() < np.abs(x).max()
        worst = max(worst, worst_ratio(y, x, off) if says_something else np.inf)
    return worst


def images_of(inputs: Any) -> list[np.ndarray]:
    """What users give as `inputs`, as a list of batches in float64."""
    from ..testing.oracle import as_numpy

    several = [as_numpy(each, "inputs") for each in (inputs if isinstance(inputs, (list, tuple)) else [inputs])]
    if not several or not all(each.size for each in several):
        raise ModelError("inputs: got no image, expected some.", hint="leave it out for random ones.")
    for each in several:
        if each.ndim not in (3, 4):
            raise ModelError(
                f"inputs: got shape {each.shape}, expected (N, C, H, W).", hint="x.transpose(0, 3, 1, 2) of NHWC."
            )
    return [np.asarray(each if each.ndim == 4 else each[None], np.float64) for each in several]


def _untold(model: Model) -> dict[str, str]:
    told = {step.path for step in weighted(model)}
    return {part.path: part.note for part in model.parts if part.path not in told}


def _path(model: Model) -> str:
    return model.parts[0].path if len(model.parts) == 1 and model.parts[0].path else "the model"


def _kinds(model: Model) -> str:
    return ", ".join(dict.fromkeys(part.note for part in model.parts)) or "no layers"
