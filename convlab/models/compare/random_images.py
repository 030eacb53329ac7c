"""Random images that a model can be tried on: small, of odd and even sizes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from ...dtypes import SIGNIFICAND
from ...errors import ConvlabError, ModelError
from ..layers.across_channels import OF_PARTS
from ..layers.channels import Moving
from ..layers.flattening import Flatten, Unflatten
from ..layers.inputs import ONE_IMAGE, Batch, Inputs, known_inputs, layers_in, takes_rows
from ..layers.joining import Joining
from ..layers.layer import LOWEST, Convolution, Dense, Layer, Pad
from ..layers.pooling import AdaptivePool, GlobalPool
from ..layers.ranks import rank_of
from ..layers.reading import INPUT
from ..layers.shapes import Known, channels_taken, known_after
from ..layers.spatial import Size, padding_in, times
from ..layers.steps import Step

# The number of consecutive heights and widths, odd and even; `proof` adds the sizes that a stride asks for.
SIZES = 3
_LARGEST = 2048
# Of images that may have any number of channels.
_CHANNELS = 3
# Of larger images there is only one: the remainders by a stride are tried on small ones.
_LARGE = 96
# The number of products that aren't 0 in a sum in float16 or bfloat16.
_PRODUCTS = 8


def grid(rng: np.random.Generator, shape: tuple[int, ...], some: float = 1.0) -> np.ndarray:
    """Random numbers within ±2 that every dtype has; all but the share `some` of them are 0."""
    numbers = rng.integers(-64, 65, shape) / 32.0
    return numbers if some == 1 else np.where(rng.random(shape) < some, numbers, 0.0)


def share(dtype: str, products: int) -> float:
    """The share of numbers that shouldn't be 0, so that sums of so many products have bounds that say something."""
    return 1.0 if SIGNIFICAND[dtype] > 11 else min(1.0, _PRODUCTS / products)


def random_images(
    steps: Sequence[Step],
    seed: int,
    size: Size | None = None,
    others: Sequence[Step] = (),
    multiple: int = 1,
    inputs: Inputs = ONE_IMAGE,
) -> list[Batch]:
    """Batches that go through all steps, and through the others: of one size, or of the least sizes that do.

    Rows and columns are multiples of a number. The inputs are as in `convlab.models.layers.reading.Model`; of several
    all images have one size, but for those of which only one is known.

    Raises:
        ModelError: none does; or those of the given size don't.
    """
    rng, layers = np.random.default_rng(seed), layers_in(steps)
    given = _Given(steps, others, inputs)

    def batch(count: int, size: Size | None) -> Batch:
        return {value: grid(rng, (count, *shape)) for value, shape in given.shapes(size).items()}

    if given.are_rows(size):
        return [batch(n, size) for n in (1, 4)]
    rank = rank_of(layers)
    if size is not None or given.are_fixed:
        if not _fits(steps, given.known(size), fewest=1):
            what = f"of {times(size)} pixels" if size else "of the sizes that the model takes"
            raise ModelError(
                f"input_size: images {what} don't go through all layers.",
                hint="a dense layer on pixels takes images of one size; a border that repeats an image, larger ones.",
            )
        return [batch(1, size)]
    least = _least_size(steps, others, multiple, rank, given)
    if least > _LARGE:
        return [batch(1, (least,) * rank)]
    # Each axis takes the sizes in an order of its own.
    orders = [[(way * i + way - 1) % SIZES for way in (1, 2, 4)[:rank]] for i in range(SIZES)]
    sizes = [tuple(least + more * multiple for more in order) for order in orders]
    # A dense layer may take the least size and no other.
    sizes = [size for size in sizes if _fits(steps, given.known(size))] or [(least,) * rank]
    return [batch(2, size) for size in sizes]


class _Given:
    """What a model is given, if its images have a size: each of several inputs is an image or rows of numbers."""

    def __init__(self, steps: Sequence[Step], others: Sequence[Step], inputs: Inputs) -> None:
        self.steps, self.others, self.inputs = steps, others, inputs

    @property
    def are_fixed(self) -> bool:
        """Whether there are several inputs, all of whose sizes are known."""
        return len(self.inputs) > 1 and all(each.rows or each.size for each in self.known(None).values())

    def known(self, size: Size | None) -> dict[str, Known]:
        """What is known of each input; "" stands for all others."""
        if len(self.inputs) == 1:
            return {"": Known(size=size)}
        return known_inputs(self.steps, self.inputs, size)

    def are_rows(self, size: Size | None) -> bool:
        """Whether all inputs are rows of numbers."""
        if len(self.inputs) == 1:
            return takes_rows(layers_in(self.steps)) or takes_rows(layers_in(self.others))
        return all(each.rows for each in self.known(size).values())

    def shapes(self, size: Size | None) -> dict[str, tuple[int, ...]]:
        """The shape of each input, without the number of images."""
        if len(self.inputs) > 1:
            return {value: (each.channels or _CHANNELS, *(each.size or ())) for value, each in self.known(size).items()}
        if self.are_rows(size):
            return dict.fromkeys(self.inputs, _before_dense(layers_in(self.steps), layers_in(self.others), size))
        return dict.fromkeys(self.inputs, (_image_channels(self.steps), *(size or ())))


def _least_size(steps: Sequence[Step], others: Sequence[Step], multiple: int, rank: int, given: _Given) -> int:
    """The least number of rows and columns that goes through all steps, if possible with two and more everywhere."""
    kernels = [layer.spec.kernel_size for layer in layers_in(steps) if isinstance(layer, Convolution)]
    begin = -(-max([2, *map(max, kernels)]) // multiple) * multiple

    def fits(steps: Sequence[Step], n: int, fewest: int = 2) -> bool:
        return _fits(steps, given.known((n,) * rank), fewest)

    enough = next((n for n in range(begin, _LARGEST, multiple) if fits(steps, n, fewest=1)), None)
    if enough is None:
        raise ModelError(
            f"{steps[0].path}: no image up to {_LARGEST} rows and columns goes through all layers.",
            hint="give inputs=, a batch of images that does.",
        )
    better = [n for n in range(enough, min(2 * enough + 64, _LARGEST), multiple) if fits(steps, n)]
    return next((n for n in better if fits(others, n)), next(iter(better), enough))


def _before_dense(layers: Sequence[Layer], others: Sequence[Layer], size: Size | None) -> tuple[int, ...]:
    """The shape of what a dense layer takes.

    That is an image of the given size, or any image where the order of its pixels matters, otherwise a row of numbers.
    """
    inputs = _input_channels(layers)
    first = layers[0]
    if isinstance(first, Unflatten):
        return (inputs * math.prod(first.size),)
    if size is not None and inputs % math.prod(size) == 0:
        return inputs // math.prod(size), *size
    orders = {layer.order for layer in (*layers, *others) if isinstance(layer, Flatten)}
    if len(orders) > 1:
        divisors = [n for n in range(2, inputs // 2 + 1) if inputs % n == 0]
        for channels, rows in itertools.product(divisors, repeat=2):
            if inputs % (channels * rows) == 0:
                return channels, rows, inputs // (channels * rows)
    return (inputs,)


def _fits(steps: Sequence[Step], given: Mapping[str, Known], fewest: int = 2) -> bool:
    """Whether what is given goes through, and no layer makes images less than so many rows or columns."""
    values = dict(given)
    try:
        for step in steps:
            inputs = [values[value if value in values else ""] for value in step.inputs]
            for layer in step.layers:
                of_rows = isinstance(layer, Dense) or inputs[0].rows
                if of_rows and inputs[0].channels and channels_taken(layer) not in (0, inputs[0].channels):
                    return False
                after = known_after(layer, inputs)
                if not isinstance(layer, Joining) and not _keeps_enough(layer, inputs[0].size, after.size, fewest):
                    return False
                inputs = [after]
            values[step.value] = inputs[0]
    except ConvlabError:
        return False
    return True


def _keeps_enough(layer: Layer, size: Size | None, after: Size | None, fewest: int) -> bool:
    """Whether an image is large enough for a layer: what comes out is, too, unless it is one number a channel."""
    if size is None:
        return True
    pools = isinstance(layer, (GlobalPool, AdaptivePool))
    enough = max(size) > 1 and min(size) >= fewest
    if enough and after is not None and min(after) < fewest and not pools:
        return False
    return _has_border(layer, size)


def _has_border(layer: Layer, size: Size) -> bool:
    """Whether the image is larger than a border that repeats it."""
    if isinstance(layer, Pad):
        return layer.mode in ("zeros", LOWEST) or min(size) > max(map(max, layer.pads))
    if not isinstance(layer, Convolution) or layer.spec.padding_mode == "zeros":
        return True
    return min(size) > max(map(max, padding_in(layer.spec, size)))


def _image_channels(steps: Sequence[Step]) -> int:
    """How many channels the images of a model have; the fewest from 3 on if several numbers will do."""
    layers = layers_in(steps)
    taken = _input_channels(layers)
    moving = [layer.divisor for layer in layers if isinstance(layer, (Moving, *OF_PARTS))]
    if not moving:
        return taken
    several = sorted({taken, 3, *(n * factor for n in (1, taken) for factor in range(1, 2 * math.lcm(*moving) + 1))})
    return next((n for n in several if n > 2 and _takes(steps, n)), taken)


def _takes(steps: Sequence[Step], channels: int) -> bool:
    """Whether each layer gets as many channels as it takes."""
    values = {INPUT: Known(channels)}
    for step in steps:
        inputs = [values[value] for value in step.inputs]
        for layer in step.layers:
            given = inputs[0].channels
            divides = not isinstance(layer, (Moving, *OF_PARTS)) or given % layer.divisor == 0
            if not divides or (given and channels_taken(layer) not in (0, given)):
                return False
            inputs = [known_after(layer, inputs)]
        values[step.value] = inputs[0]
    return True


def _input_channels(layers: Sequence[Layer]) -> int:
    """How many channels the images have; 3 if any number will do."""
    return next(filter(None, map(channels_taken, layers)), _CHANNELS)
