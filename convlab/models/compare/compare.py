"""`convlab.compare`: do two layers or two models compute the same, and if not, where do they diverge, and why?"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...dtypes import SIGNIFICAND
from ...errors import ModelError
from ...truth.bounds import worst_ratio
from ..adapters import Models, models_of, only_size, read, read_at
from ..layers.inputs import Batch, rounded_batch
from ..layers.layer import BatchNorm, Dense, Layer
from ..layers.norms import ChannelAffine, LayerNorm
from ..layers.reading import Model
from ..layers.sized import for_size
from ..layers.spatial import Size, times
from ..layers.steps import carried, is_known, steps, weighted
from .comparison import Comparison
from .in_order import prove_in_order
from .inputs import batches, called_alike, images_of, inputs_taken, one_size, other_order
from .pairing import Pairs, paired
from .proof import Row, RunnableStep, prove
from .random_images import random_images
from .results import Results, apart_in_tolerances, compare_results
from .sides import Side

# Layers that only one of two models has are named up to so many in a sentence.
_MOST_UNPAIRED = 3


def compare(a: Any, b: Any, inputs: Any = None, *, names: Mapping[str, str] | None = None, seed: int = 0) -> Comparison:
    """Compare two layers or two models of any two frameworks.

    Models whose graph of layers can be read are compared layer by layer, each pair on what reaches it in the first
    model, and then as a whole; a layer that only one of them has is a row of its own. Of others the layers with weights
    are compared each by itself, paired by their names, then by equal weights, then in order; and both models are run as
    a whole on the same images, for what stands between their layers. Where they can't be, the verdict `same` is None.

    >>> from convlab import numpy as lab
    >>> a = lab.Conv2D(3, out_channels=1, in_channels=1, stride=2, padding=1, seed=0)
    >>> b = lab.Conv2D(3, out_channels=1, in_channels=1, stride=2, padding="same", seed=0)
    >>> print(compare(a, b).first.diagnosis)
    other padding: the padding is 1 above, 1 below, 0 left and 1 right (SAME, ...) instead of 1 on each side. ...

    Args:
        a: a native layer or model, convlab's own among them; a `flax.linen` module with its variables, bound or as a
            pair; what `convlab.port` returned.
        b: another one, of the same or of another framework.
        inputs: an image or a batch, (N, C, H, W), rows of numbers, (N, C), for a model that takes those, or a list of
            such arrays; for models of several inputs a tuple of them, or a dictionary by name. By default random ones
            of odd and even sizes. A `flax.linen` module whose layers only show when it runs needs them.
        names: which layer of b belongs to which of a, by path; no others are compared, and `same` isn't True.
        seed: of the random images and gradients.

    Raises:
        ModelError: what isn't a model; a model of which no layer is known; inputs that a model can't be run on.
    """
    given = None if inputs is None else images_of(inputs)
    size = only_size(a) or only_size(b)
    example = None if given is None else given[0]
    first, second = (read(model, example, name) for model, name in ((a, "a"), (b, "b")))
    if size is not None and given is None:
        first, second = read_at(first, size), read_at(second, size)
    comparison = compare_read(first, second, batches(given, first), size, names, seed)
    comparison.size = size or comparison.size
    return comparison


def compare_read(
    a: Model,
    b: Model,
    images: Sequence[Batch] | None = None,
    size: Size | None = None,
    names: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Comparison:
    """`compare` of models that have been read; `size` is that of the random images, if no other will do."""
    known = (one_size(images) if images else None) or size or a.size or b.size
    alike = called_alike(a, b)
    comparison = _Comparing(for_size(a, known), for_size(alike, known), images, size, names, seed).comparison()
    return replace(comparison, other_order=other_order(a, b))


class _Comparing:
    """Two models on their way to a comparison.

    Attributes:
        in_order: whether both are graphs of layers, all of them known, which are compared in the order of the graphs.
        first, second: the models.
    """

    def __init__(
        self,
        a: Model,
        b: Model,
        images: Sequence[Batch] | None,
        size: Size | None,
        names: Mapping[str, str] | None,
        seed: int,
    ) -> None:
        self.images, self.size, self.names, self.seed = images, size, names, seed
        known = is_known(a) and is_known(b)
        in_order = names is None and known
        self.first, self.second = (
            Side(
                model.runner or models_of(model.backend),
                model,
                steps(model) if in_order else weighted(model, alone=not known),
            )
            for model in (a, b)
        )
        # Layers that do nothing in inference are no steps: a model may have none.
        self.in_order = in_order and bool(self.first.steps or self.second.steps)

    def comparison(self) -> Comparison:
        """Compare the layers, and then the results of the whole models where the layers don't settle it.

        Raises:
            ModelError: as `compare`.
        """
        first, second = self.first, self.second
        comparison = Comparison(
            (first.model.backend, second.model.backend),
            [],
            self._other_inputs(),
            self.in_order,
            {} if self.in_order else _uncompared(first.model, second.model),
            of_sizes=self.images is None and self.size is None and (_of_sizes(first) or _of_sizes(second)),
        )
        if len(first.model.inputs) != len(second.model.inputs):
            return self._of_other_inputs(comparison)
        if self.in_order:
            self._compare_in_order(comparison)
            if not comparison.structure:
                return self._reordered(comparison) if self._pixels_in_other_order(comparison) else comparison
        else:
            pairs, structure = paired(first.steps, second.steps, self.names, in_order=False)
            comparison.structure = (structure and structure + _unknown(second.model)) or comparison.structure
            comparison.rows = compare_separately((first.models, second.models), pairs, self.seed, {})
            _note_elsewhere(comparison.rows, pairs)
        if not self._names_cover_all():
            comparison.partial = "only the layers that were named were looked at"
            return comparison
        comparison.results = self._results(comparison)
        ratio = None if comparison.results is None else comparison.results.ratio
        if self.in_order and ratio is not None and ratio <= 1:
            comparison = self._by_weights(comparison)
        if not comparison.rows and comparison.results is not None and not comparison.whole_results_compared:
            raise ModelError(
                f"a, b: got models of which nothing can be compared: {comparison.results.reason}", hint="give inputs=."
            )
        return comparison

    def _of_other_inputs(self, comparison: Comparison) -> Comparison:
        """The comparison of models that don't take as much: the layers with weights of those whose code isn't known."""
        if self.in_order:
            return comparison
        pairs, _ = paired(self.first.steps, self.second.steps, self.names, in_order=False)
        comparison.rows = compare_separately((self.first.models, self.second.models), pairs, self.seed, {})
        comparison.results = Results(reason=comparison.structure)
        comparison.structure = ""
        return comparison

    def _pixels_in_other_order(self, comparison: Comparison) -> bool:
        """Whether only flattened pixels stand in another order, and the arrays of layers, as if for that."""
        first, second = ({step.path: step for step in side.steps} for side in (self.first, self.second))
        apart = [(first.get(row.a), second.get(row.b)) for row in comparison.rows if not row.same]
        steps = [(a, b) for a, b in apart if a is not None and b is not None]
        flat = [a.flattened != b.flattened and not a.main.arrays for a, b in steps]
        permuted = [_permuted(a.main, b.main) for a, b in steps]
        other = any(a.flattened != b.flattened for a, b in steps)
        return other and len(steps) == len(apart) and all(map(operator.or_, flat, permuted))

    def _reordered(self, comparison: Comparison) -> Comparison:
        """The comparison of models of which one has flattened pixels in another order: their results settle it."""
        results = self._results(comparison)
        if results is None or results.ratio is None or results.ratio > 1:
            return comparison
        for row in comparison.rows:
            row.elsewhere = not row.same
        return replace(comparison, results=results, whole=False)

    def _by_weights(self, comparison: Comparison) -> Comparison:
        """For models whose results agree, and whose layers are in another order: their layers with weights."""
        first, second = (weighted(side.model, alone=True) for side in (self.first, self.second))
        pairs, structure = paired(first, second, None, in_order=False)
        if structure or self._other_inputs():
            return comparison
        rows = compare_separately((self.first.models, self.second.models), pairs, self.seed, {})
        _note_elsewhere(rows, pairs)
        uncompared = _uncompared(self.first.model, self.second.model)
        return replace(comparison, rows=rows, structure="", whole=False, uncompared=uncompared)

    def _other_inputs(self) -> str:
        """How the number of inputs, or the only sizes of images that the models take, differ; "" if they don't."""
        mine, theirs = (side.model.inputs for side in (self.first, self.second))
        if len(mine) != len(theirs):
            both = [inputs_taken(side.model) for side in (self.first, self.second)]
            return f"the first model takes {both[0]}, the second {both[1]}"
        first, second = self.first.model.size, self.second.model.size
        if first and second and first != second:
            return f"the first model takes images of {times(first)} pixels, the second of {times(second)}"
        return ""

    def _names_cover_all(self) -> bool:
        if self.names is None:
            return True
        all_named = len(self.names) == len(self.first.steps) == len(self.second.steps)
        return all_named and not self.first.model.loose and not self.second.model.loose

    def _compare_in_order(self, comparison: Comparison) -> None:
        """Compare each pair of steps on what reaches it in the first model, then both models with their layers."""
        first, second = self.first, self.second
        size = self.size or first.model.size or second.model.size
        every_size = self.images is None and size is None
        multiple = math.lcm(first.model.multiple, second.model.multiple)
        comparison.multiple = multiple if size is None else 1
        comparison.size = next((side.model.size for side in (first, second) if side.model.alone), None)
        if self.images is None:
            images = random_images(first.steps, self.seed, size, second.steps, multiple, first.model.inputs)
        else:
            images = [*self.images]
            for batch, side in itertools.product(images, (first, second)):
                side.run(rounded_batch(batch, side.dtype), side.dtype)
        comparison.rows = prove_in_order(first, second, images, self.seed, every_size)
        unpaired = [row.diagnosis.rstrip(".") for row in comparison.rows if row.only_in]
        comparison.structure = "; ".join([*filter(None, [comparison.structure]), *unpaired[:_MOST_UNPAIRED]])
        if comparison.structure or comparison.first is not None:
            return
        if any(part.native is not side.model.native for side in (first, second) for part in side.model.parts):
            comparison.whole_model_errors = tuple(
                _whole_model_error(side, images, self.seed) for side in (first, second)
            )

    def _results(self, comparison: Comparison) -> Results | None:
        """How the results of the whole models compare; None where they can't be run and are known to differ."""
        dtypes = [step.dtype for step in (*self.first.steps, *self.second.steps)] or ["float32"]
        dtype = min(dtypes, key=lambda name: SIGNIFICAND[name])
        try:
            return compare_results(self.first, self.second, dtype, self.images, self.seed)
        except ModelError:
            if comparison.same is not False:
                raise
            return None


def _of_sizes(side: Side) -> bool:
    """Whether a model takes images of several sizes, with which its code computes."""
    return side.model.size is None and side.model.computes_with_sizes


def _note_elsewhere(rows: Sequence[Row], pairs: Pairs) -> None:
    """Mark the pairs of layers that differ only in what models may do outside of these layers.

    That is a border in front of a convolution, and the order in which the inputs of dense layers and norms stand.
    """
    for row, (mine, theirs) in zip(rows, pairs, strict=True):
        of_borders = bool(row.differences) and row.differences.keys() <= {"padding", "padding_mode"}
        row.elsewhere = _permuted(mine.main, theirs.main) or of_borders
        row.elsewhere = row.elsewhere and max(row.own.values(), default=0.0) <= 1


def _permuted(a: Layer, b: Layer) -> bool:
    """Whether the arrays of layers have the same numbers for each input, in another order of the inputs."""
    if type(a) is not type(b) or not isinstance(a, (Dense, BatchNorm, LayerNorm, ChannelAffine)):
        return False
    if isinstance(a, Dense) and isinstance(b, Dense) and not _equal(a.bias, b.bias):
        return False
    names = ("kernel",) if isinstance(a, Dense) else a.arrays
    one, other = ([getattr(layer, name) for name in names] for layer in (a, b))
    if [np.shape(each) for each in one] != [np.shape(each) for each in other]:
        return False
    mine, theirs = (np.vstack([each for each in arrays if each is not None]) for arrays in (one, other))
    return not np.array_equal(mine, theirs) and all(
        map(np.array_equal, mine[:, np.lexsort(mine)], theirs[:, np.lexsort(theirs)])
    )


def _equal(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b)


def compare_separately(models: tuple[Models, Models], pairs: Pairs, seed: int, sizes: Mapping[str, Size]) -> list[Row]:
    """Compare each pair of steps on random images of its own; where `sizes` has the first one's path, of that size."""
    rows = []
    for mine, theirs in pairs:
        size = sizes.get(mine.path)
        images = [(*batch.values(),) for batch in random_images([mine], seed, size, [theirs])]
        a, b = RunnableStep(models[0], mine), RunnableStep(models[1], theirs)
        rows.append(prove(a, b, images, seed, every_size=size is None)[0])
    return rows


def _whole_model_error(side: Side, images: Sequence[Batch], seed: int) -> float:
    """How far a model, called as a whole, is from its layers called by themselves: 0 for the same bits.

    Otherwise in bounds carried through all layers; where these are as large as the result, in tolerances
    (`apart_in_tolerances`).
    """
    worst, dtype = 0.0, side.dtype
    for image in images:
        x = rounded_batch(image, dtype)
        y = side.run(x, dtype)
        if np.array_equal(y, side.in_parts().run(x, dtype), equal_nan=True):
            continue
        true, error = carried(side.steps, x)
        if y.shape == true.shape and error.max() < np.abs(true).max():
            worst = max(worst, worst_ratio(y, true, error))
            continue
        worst = max(worst, apart_in_tolerances(side, image, dtype, seed))
    return worst


def _unknown(model: Model) -> str:
    """The layers of the second model that aren't known, of which one may be what the first one has."""
    notes = [f"{part.path!r} ({part.note})" for part in model.parts if part.layer is None]
    return f"; not known of the second are {', '.join(notes[:_MOST_UNPAIRED])}" if notes else ""


def _uncompared(a: Model, b: Model) -> dict[str, str]:
    """What isn't compared by itself: of the first model, and what only the second one has."""
    uncompared: dict[str, str] = {}
    for model in (b, a):
        compared = {step.path for step in weighted(model)}
        uncompared |= {part.path: part.note for part in model.parts if part.path not in compared} | model.loose
    return uncompared
