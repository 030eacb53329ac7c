"""`convlab.port`: a layer or a model in another framework, and the proof that it computes the same."""

from __future__ import annotations

import warnings
from collections.abc import Container, Mapping
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np

from ...errors import ModelError, PartialPortWarning, PortError
from ...geometry.checks import choice
from ..adapters import STYLES, Models, Node, StandIn, models_name, models_of, only_size, read, read_at
from ..compare.compare import compare_read, compare_separately
from ..compare.comparison import Comparison, wrapped
from ..compare.inputs import batches, images_of, one_size
from ..layers.flattening import Flatten, Unflatten
from ..layers.inputs import ONE_IMAGE, Batch, Inputs, shapes_of
from ..layers.joining import Joining
from ..layers.layer import Dropout
from ..layers.pooling import AdaptivePool
from ..layers.reading import Model
from ..layers.resizing import Resize
from ..layers.sized import for_size
from ..layers.spatial import Size, image_size, times
from ..layers.steps import Step
from ..layers.tokens import Anchors, Tokens
from ..layers.transposed import TransposedConvolution
from .lowering import Built, Lowering, lowered


@dataclass(eq=False, repr=False)
class Ported(StandIn):
    """A model of another framework; convlab takes it wherever it takes a model.

    Attributes:
        backend: the backend of its framework.
        layers: the new native layers, in order, by the path that each has in the original; several where one became
            several, such as a border and a convolution.
        untouched: what wasn't ported: paths of layers, parameters, buffers and operations, and why.
        evidence: the comparison of both; its `same` is True for a whole model, None for parts.
        size: the only rows and columns of images that it is for, where the original could be read for these alone.
    """

    backend: str
    layers: dict[str, list[Any]]
    untouched: dict[str, str]
    evidence: Comparison
    size: Size | None = None
    _model: Any = None
    _shown: Size | None = None

    @property
    def model(self) -> Any:
        """The new model: a layer, or layers one after another; `flax.linen`'s is bound to its variables.

        Raises:
            ModelError: something was left untouched, or the original is more than its layers one after another.
        """
        if self._model is not None:
            return self._model
        raise ModelError(
            f"model: the whole model wasn't ported ({_shortly(self.untouched)}).",
            hint="take the layers by name from .layers, and put them together by hand.",
        )

    def source(self) -> str:
        """The new model as source in its framework's idiom, without weights: a class `Model`, or a function `build`.

        A lone layer is one line, `model = ...`. Run, it gives a model of the same layers; `convlab.save(ported, path)`
        to a `.safetensors` file and `convlab.load(path, into=model)` bring the weights, with which it computes the same
        bits as `model`.

        >>> from convlab import numpy as lab
        >>> layer = lab.Conv2D(3, out_channels=4, in_channels=2, padding="same", seed=0)
        >>> print(port(layer, to="numpy").source())
        from convlab.numpy import Conv2D
        <BLANKLINE>
        model = Conv2D(3, in_channels=2, out_channels=4, padding=1)
        <BLANKLINE>

        Raises:
            ModelError: the whole model wasn't ported.
            UnsupportedError: convlab can't write a layer as source; the message names it.
        """
        new = read(self.model)
        code = models_of(self.backend).source(new.parts, self._shown, new.inputs)
        return code if self.size is None else f"# For images of {times(self.size)} pixels alone.\n{code}"

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        reasons = [wrapped(f"  {path}: {why}", indent="    ") for path, why in self.untouched.items()]
        left_out = ["Left out:", *(line for lines in reasons for line in lines)] if reasons else []
        return "\n".join([str(self.evidence), *left_out])


def port(
    model: Any,
    to: str,
    *,
    layers: str = "builtin",
    input_size: int | Size | None = None,
    inputs: Any = None,
    seed: int = 0,
) -> Ported:
    """Make a layer or a model of another framework that computes the same, and prove that it does.

    It takes layers of PyTorch, Keras, `flax.linen`, `flax.nnx` and gluon, convlab's `Conv2D`, and models of them, also
    with branches and with code of their own: docs/reference/ported-layers.md lists the layers. Of a model whose code
    does more it ports the layers that have weights, by name. A `flax.linen` module comes with its variables,
    `(module, variables)`, and goes bound to them; a ported model with batch norm or dropout takes `train=`.

    Both are then run on random images of odd and even sizes: results and gradients of every layer must lie within the
    rounding bounds, computed from the data, of what the original's attributes say. If anything of the original is left
    out, `port` warns (`convlab.errors.PartialPortWarning`) and `untouched` lists it.

    >>> from convlab import numpy as lab
    >>> layer = lab.Conv2D(3, out_channels=4, in_channels=2, padding="same", seed=0)
    >>> ported = port(layer, to="numpy")
    >>> print(ported)
    numpy  numpy  layer   result  gradients
    -      -      conv2d  ...                same
    (errors are multiples of what rounding allows: at most 1 is agreement)
    The layers compute the same results.

    Args:
        model: the layer or the model.
        to: the backend, "torch", "jax" (for `flax.nnx` "jax.nnx"), "tensorflow", "mxnet" or "numpy".
        layers: "builtin" for the framework's own convolutions, "convlab" for convlab's, which have every padding.
        input_size: rows and columns of the images it is for, or the length of sequences, or the depth, rows and columns
            of volumes; needed where padding "same" depends on it and the target's convolution has no such padding, for
            adaptive maxima in MXNet, for a dense layer on pixels in another order, and for code of PyTorch's and Flax's
            models that computes with sizes, or decides by them.
        inputs: images to prove it with, (N, C, H, W), sequences (N, C, L), volumes (N, C, D, H, W), or rows of numbers,
            (N, C), instead of random ones; for a model of several inputs a tuple of them, or a dictionary by name.
        seed: the seed of the random images.

    Raises:
        ModelError: what isn't a model, or can't be read: the message names the layer by its path.
        UnsupportedError: the target can't express a convolution, and no other layer has weights; the message says what.
        PortError: the result doesn't compute the same; the message says why.
    """
    choice("layers", layers, STYLES)
    given = None if inputs is None else images_of(inputs)
    to = models_name(to)
    target = models_of(to)
    if given is None and input_size is None:
        input_size = only_size(model)
    source = _read(model, input_size) if given is None else read(model, given[0])
    images = batches(given, source)
    size = _size(source, images, input_size)
    as_read, source = source, for_size(source, size)
    lowering = lowered(source, target, layers, size)
    built, untouched = lowering.built, lowering.untouched | source.loose
    if not built:
        what = _shortly(lowering.untouched or untouched)
        raise ModelError(
            f"model: got {type(source.native).__name__}, of which no layer can be ported{what and f' ({what})'}, "
            "expected a convolution, or a model with one.",
            hint="convlab.port's documentation lists what it takes.",
        )
    whole = source.whole and not untouched
    tied = lowering.tied or source is not as_read
    new = assembled(target, built, shapes_of(source, size if tied else None)) if whole else None
    alone = source.alone or (source.size is None and (lowering.sized or source is not as_read))
    if whole:
        evidence = compare_read(source, target.read(new), images, size if tied else None, seed=seed)
    else:
        fixed = {part.path for part in as_read.parts if isinstance(part.layer, (AdaptivePool, Resize))}
        sizes = {part.path: lowering.values[part.inputs[0]].shape.size for part in source.parts if part.path in fixed}
        evidence = _each_alone(source, to, target, lowering, seed, sizes)
    if alone or only_size(model) is not None:
        evidence.size = size
    if evidence.same is False or (whole and not evidence.same):
        raise PortError(
            f"{evidence}",
            hint="this is a fault of convlab, or the original layer's code doesn't compute what its attributes say.",
        )
    if not whole or source.unused:
        what = "only parts of the model were ported" if not whole else "all that inference needs was ported"
        untouched |= source.unused
        omissions, hint = _listed(untouched, "\n  "), _what_helps(untouched, size) if not whole else ""
        warnings.warn(f"{what}. Left out:\n  {omissions}{hint}", PartialPortWarning, stacklevel=2)
    return Ported(to, _by_path(built), untouched, evidence, evidence.size, new, size)


def _by_path(built: Built) -> dict[str, list[Any]]:
    """The native layers by the paths of the parts, once for a layer that is called several times."""
    by_path: dict[str, list[Any]] = {}
    for part, natives in {id(natives): (part, natives) for part, natives in built}.values():
        by_path.setdefault(part.path, []).extend(natives)
    return by_path


def _read(model: Any, input_size: Any) -> Model:
    """A model, read for images of a size if it can't be read for all sizes."""
    if input_size is None:
        return read(model)
    try:
        source = read(model)
    except ModelError:  # It may take images of that size alone.
        return read(model, np.zeros((2, 0, *image_size("input_size", input_size, 2)), "float32"))
    return read_at(source, image_size("input_size", input_size, source.rank))


def _what_helps(untouched: dict[str, str], size: Size | None) -> str:
    """What to do about layers and code that weren't ported, unless each of them has a hint of its own."""
    without = [why for why in untouched.values() if " Hint: " not in why]
    others = {"whose operations between layers": "their code", "doesn't know": "these layers"}
    known = [words for part, words in others.items() if any(part in why for why in without)]
    write = f"write {' and '.join(known)} with what docs/reference/ported-layers.md lists, or " if known else ""
    if size is None and any("traced" in why or "size" in why for why in without):
        write = f"give input_size=, if the code computes with sizes or decides by them, {write or 'or '}"
    return f"\nHint: {write}take the rest by name from .layers and add what is left out by hand." if without else ""


def _listed(untouched: dict[str, str], separator: str) -> str:
    return separator.join(f"{path}: {why}" if path else why for path, why in untouched.items())


def _shortly(untouched: dict[str, str]) -> str:
    """A few of what wasn't ported, code before layers and parameters."""
    in_order = dict(sorted(untouched.items(), key=lambda each: not each[0].endswith("()")))
    more = len(in_order) - _MOST_LISTED
    listed = _listed(dict(islice(in_order.items(), _MOST_LISTED)), "; ")
    return f"{listed}; and {more} more in .untouched" if more > 0 else listed


# So many of what wasn't ported are named in an error.
_MOST_LISTED = 8


def _size(source: Model, images: list[Batch] | None, input_size: Any) -> Size | None:
    """The rows and columns of the images that a model is for."""
    given = None if input_size is None else image_size("input_size", input_size, source.rank)
    if images is not None and (of_images := one_size(images[:1])):
        given = of_images
    if given is not None and source.size is not None and tuple(given) != source.size:
        raise ModelError(
            f"{'input_size' if images is None else 'inputs'}: got {times(given)} pixels, expected "
            f"{times(source.size)}, the only size that the model takes.",
            hint="leave it out: the model says what it takes.",
        )
    if given is not None and any(n % source.multiple for n in given):
        raise ModelError(
            f"{'input_size' if images is None else 'inputs'}: got {times(given)} pixels, expected multiples of "
            f"{source.multiple}, for which what the model computes from its images' sizes is always the same.",
            hint="the port is for such sizes alone; a border before the model makes others fit.",
        )
    return source.size if given is None else given


def assembled(target: Models, built: Built, inputs: Inputs = ONE_IMAGE) -> Any:
    """One model of native layers; a lone layer stays itself."""
    natives = [native for _, natives in built for native in natives]
    if len(natives) == 1 and not built[0][0].path:
        return natives[0]
    names = iter(_names(built))
    nodes: list[Node] = []
    for part, natives in built:
        taken = part.inputs
        for index, native in enumerate(natives, 1):
            value = part.value if native is natives[-1] else f"{part.value}.{index}"
            nodes.append(Node(next(names), native, taken, value))
            taken = (value,)
    return target.assemble(nodes, inputs)


def _names(built: Built) -> list[str]:
    """A name of its own for each native layer, in the order of calls: the original's, with a "." between its parts.

    What has no weights gives way to what has, and no layer is called like what others are in.
    """
    stems = [_stem(part.name or part.path) for part, _ in built]
    kept = {stem for stem, (part, _) in zip(stems, built, strict=True) if part.layer and part.layer.arrays}
    stems = [stem if stem in kept else _beside(stem, kept) for stem in stems]
    around = {stem[:place] for stem in stems for place, letter in enumerate(stem) if letter == "."}
    names: list[str] = []
    of_shared: dict[int, list[str]] = {}
    for stem, (part, natives) in zip(stems, built, strict=True):
        if id(natives) in of_shared:
            names += of_shared[id(natives)]
            continue
        main, other = (0, "after") if isinstance(part.layer, TransposedConvolution) else (len(natives) - 1, "before")
        for index, _ in enumerate(natives):
            own = stem if index == main else f"{stem}_{other}"
            weighted = index == main and part.layer is not None and part.layer.arrays
            taken = {*names, *around} if weighted else {*names, *around, *kept}
            names.append(next(name for n in count(1) if (name := own if n == 1 else f"{own}_{n}") not in taken))
        of_shared[id(natives)] = names[len(names) - len(natives) :]
    return names


def _beside(stem: str, kept: Container[str]) -> str:
    """The name of a layer without weights, beside the one that it is in, if that has weights itself.

    >>> _beside("block.bn1.act", ["block.bn1"]), _beside("block.act", [])
    ('block.bn1_act', 'block.act')
    """
    places = [place for place, letter in enumerate(stem) if letter == "." and stem[:place] in kept]
    return f"{stem[: places[-1]]}_{stem[places[-1] + 1 :]}" if places else stem


def _stem(path: str) -> str:
    """A path without the characters that names can't have.

    >>> _stem("block/conv-1"), _stem(".")
    ('block.conv_1', 'layer')
    """
    plain = "".join(c if c.isalnum() or c in "./" else "_" for c in path)
    return ".".join(filter(None, plain.replace("/", ".").split("."))) or "layer"


# These do nothing in inference, or say nothing by themselves: they only move numbers, or take several values.
_NOT_ALONE = (Dropout, Flatten, Unflatten, Joining, Anchors, Tokens)


def _each_alone(
    source: Model, to: str, target: Models, lowering: Lowering, seed: int, sizes: Mapping[str, Size | None]
) -> Comparison:
    """Compare each layer of the source with the layers that it became, which are read again.

    `sizes` are those of the images for which layers at some paths were changed.
    """
    pairs: list[tuple[Step, Step]] = []
    for part, natives in lowering.built:
        parts = [each for native in natives for each in target.read(native).parts]
        layers = tuple(each.layer for each in parts if each.layer is not None)
        if part.layer is not None and layers and not isinstance(part.layer, _NOT_ALONE):
            other = Step(part.path, layers, tuple(each.native for each in parts))
            pairs.append((Step(part.path, (part.layer,), (part.native,)), other))
    known = lowering.at | {path: size for path, size in sizes.items() if size is not None}
    rows = compare_separately((models_of(source.backend), target), pairs, seed, known)
    return Comparison((source.backend, to), rows, whole=False, partial="the whole model wasn't ported")
