"""The protocol of an adapter's module `models`, by which its framework's layers are ported, compared and saved."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..errors import ModelError, UnsupportedError
from ..registry import adapter, adapters, framework
from .layers.inputs import ONE_IMAGE, Inputs
from .layers.layer import Convolution, Layer
from .layers.reading import Model, Part, is_chain
from .layers.spatial import Size

STYLES = ("builtin", "convlab")
# The names of a layer's parameters in the frameworks, and their names in the result of `gradients`.
ROLES = {
    "weight": "K",
    "kernel": "K",
    "gamma": "scale",
    "beta": "shift",
    "alpha": "slope",
    "negative_slope": "slope",
    "token": "token",
    "embedding": "embedding",
}


# What a layer takes: an array for each value.
Arrays = tuple[np.ndarray, ...]


def as_input(values: Arrays) -> np.ndarray | Arrays:
    """What `Models.run` takes for these values: a lone one as it is."""
    return values[0] if len(values) == 1 else values


def as_arrays(result: np.ndarray | Arrays) -> Arrays:
    """What `Models.run` gives, as a tuple also of one array."""
    return result if isinstance(result, tuple) else (result,)


class Node(NamedTuple):
    """A native layer in the graph of a new model.

    Attributes:
        name: its name in the model; parts are separated by ".". Nodes of the same name are calls of one layer.
        native: the layer.
        inputs: the names of the values that it takes; `convlab.models.layers.reading.INPUT` is the image.
        value: the name of its result.
    """

    name: str
    native: Any
    inputs: tuple[str, ...]
    value: str


def is_sequence(nodes: Sequence[Node]) -> bool:
    """Whether layers are one after another, each of which is called once, so that a container may call them in turn."""
    return is_chain(nodes) and len({id(node.native) for node in nodes}) == len(nodes)


def is_numbered(nodes: Sequence[Node]) -> bool:
    """Whether layers are one after another and called by their numbers, so that a list of them needs no names."""
    return is_chain(nodes) and [node.name for node in nodes] == [*map(str, range(len(nodes)))]


def free_name(name: str, owner: type) -> str:
    """A name for attributes of a class, whose parts that the class itself has get a "_".

    >>> free_name("block.append.conv", list)
    'block.append_.conv'
    """
    return ".".join(f"{part}_" if hasattr(owner, part) else part for part in name.split("."))


class Models(Protocol):
    """An adapter's module `models`.

    Arrays are NumPy's: images NCHW, sequences (N, C, L), volumes NCDHW, or (N, C) once flattened, and kernels OIHW, or
    of as many axes, whatever the framework's own layout.
    Values of bfloat16 are held in float32.

    Attributes:
        BUILTIN: whether the framework has convolution layers of its own.
        SAME: whether the framework's convolution has "same" padding that depends on the image's size.
        LAYOUT: the data_format of what `build` makes.
        FILES: suffixes of the framework's own files of weights.
    """

    BUILTIN: bool
    SAME: bool
    LAYOUT: str
    FILES: tuple[str, ...]

    def read(self, model: object, inputs: object = None) -> Model:
        """The model's layers, in order, and its inputs.

        A path may have several parts: an activation inside a convolution is a part of its own, and so is the flattening
        inside a dense layer. `inputs` is an example, for models that show their layers only when they run, or whose
        code computes with their images' size; with 0 channels if their number isn't known. Of several
        inputs it is a tuple, or a dictionary by their names: see `convlab.models.layers.reading.first_example`.
        """

    def build(self, layer: Layer, style: str) -> list[Any]:
        """Native layers that compute a layer, one after another; `style` is one of STYLES.

        A padding still has a name only where it depends on the image's size.

        Raises:
            UnsupportedError: the framework has none that do.
        """

    def assemble(self, nodes: Sequence[Node], inputs: Inputs = ONE_IMAGE) -> Any:
        """A native model of native layers with names, of which the last gives the result.

        Layers one after another make the framework's own `Sequential`, if it can have their names. The inputs are as in
        `Model`; of several each has a shape.
        """

    def source(self, parts: Sequence[Part], size: Size | None, inputs: Inputs = ONE_IMAGE) -> str:
        """The source of a model of these parts and inputs, as `read` gives them, as the framework's users write it.

        It has no weights; a lone layer is one line. `size` is the rows and columns of the images that it is for, where
        they are known: a framework's models may have to say it.

        Raises:
            UnsupportedError: a layer has no source; the message names it.
        """

    def run(self, natives: Sequence[Any], x: np.ndarray | Arrays, dtype: str) -> np.ndarray | Arrays:
        """The result of native layers one after another, in inference mode, for x in `dtype`.

        The first layer may take several arrays; the last may give several, those of a dictionary in the order of its
        names: see `convlab.models.layers.outputs.arrays_of_results`.
        """

    def gradients(self, natives: Sequence[Any], x: np.ndarray, dy: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
        """The gradients of sum(dy * run(natives, x)) by the framework's autograd.

        They are called "X", and those of the layer with parameters among the layers "K", OIHW or (O, I), and "bias", or
        "scale", "shift", "slope", "token" and "embedding" as in `Layer.arrays`, frozen or not; constants may have none.
        Those of attention are called like its arrays: see `convlab.models.layers.attention.gradients_read`.
        """

    def weights(self, model: object) -> Any:
        """The model's bare weights as the framework keeps them: a state dict, a tree, …."""

    def with_weights(self, model: object, weights: Any) -> Any:
        """A copy of the model with other weights."""

    def fill(self, model: Model, layers: Mapping[str, Layer]) -> Any:
        """A copy of a model that has been read, with the arrays of these layers at their paths, in its own dtypes.

        The layers are of the same kinds and shapes as the model's; both have a bias or neither has.
        """

    def save(self, model: object, path: Path) -> None:
        """Write the model's weights to a file of the framework's own."""

    def load(self, path: Path, model: object) -> Any:
        """The weights in such a file, by the framework's own loader; no code that the file brings is run."""


def models_name(name: str) -> str:
    """The name of a backend with models, of any name that people use for it; "jax.nnx" is one of `Adapter.extras`.

    >>> models_name("NumPy"), models_name("flax.linen"), models_name("nnx")
    ('numpy', 'jax', 'jax.nnx')

    Raises:
        UnknownBackendError: no backend has that name.
        UnsupportedError: the backend has no layers of its own.
    """
    wanted = str(name).lower()
    for each in adapters().values():
        if wanted in each.aliases:
            return each.name
        if wanted in each.extras:
            return f"{each.name}.{wanted}"
    base, _, extra = wanted.partition(".")
    known = adapter(base)
    if not known.models or (extra and extra not in known.extras):
        raise UnsupportedError(
            f"backend {name!r}: it has no models, expected one of {', '.join(_able())}.", hint="to='torch' is one."
        )
    return f"{known.name}.{extra}" if extra else known.name


def models_of(name: str) -> Models:
    """The module `models` of a backend (see `models_name`), whose framework is loaded."""
    base, _, extra = models_name(name).partition(".")
    module = f"{extra}_models" if extra else "models"
    return importlib.import_module(f"{framework(base).adapter.package}.{module}")


def model_owner(model: object) -> str | None:
    """The backend whose layer or model an object is, as `models_of` takes it: "jax.nnx" is one of JAX's extras."""
    owner = next((each for each in adapters().values() if each.models and each.is_model(model)), None)
    extra = "" if owner is None else owner.extra_of(model)
    return None if owner is None else f"{owner.name}.{extra}" if extra else owner.name


class StandIn:
    """A base class of what stands for a model, `model`, wherever convlab takes one.

    Attributes:
        size: the only rows and columns of images that it is for, although its layers take others; None for any.
    """

    size: Size | None = None

    @property
    def model(self) -> Any:
        """The framework's own model."""
        raise NotImplementedError


def only_size(model: object) -> Size | None:
    """The only rows and columns of images that what stands for a model is for."""
    return model.size if isinstance(model, StandIn) else None


def native_model(model: Any) -> Any:
    """The framework's own model that an argument stands for, wherever convlab takes a model.

    A `convlab.Ported` stands for its model, a pair (module, variables) of `flax.linen` for the module bound to them.

    Raises:
        ModelError: a `convlab.Ported` that has no whole model.
    """
    if isinstance(model, StandIn):
        return model.model
    if isinstance(model, tuple) and len(model) == 2 and isinstance(model[1], Mapping) and model_owner(model[0]):
        module, variables = model
        return module.bind(variables) if hasattr(module, "bind") else model
    return model


def read(model: object, inputs: object = None, name: str = "model") -> Model:
    """Read a model of any framework, or what stands for one: see `native_model`.

    Raises:
        ModelError: it is no model of a known framework.
    """
    model = native_model(model)
    whose = model_owner(model)
    if whose is None:
        raise ModelError(
            f"{name}: got {_kind(model)}, expected a layer or a model of {', '.join(_able())}.",
            hint="a flax.linen module goes with its variables: (module, variables), or module.bind(variables).",
        )
    return models_of(whose).read(model, inputs)


def read_at(source: Model, size: Size) -> Model:
    """The model, read again for images of one size where it can't be read for all of which that is one."""
    if source.holds_at(size):
        return source
    convolutions = (part.layer for part in source.parts if isinstance(part.layer, Convolution))
    channels = next((layer.input_channels for layer in convolutions), 3)
    return read(source.native, np.zeros((2, channels, *size), "float32"))


def _able() -> list[str]:
    names = [
        [each.name, *(f"{each.name}.{extra}" for extra in each.extras)] for each in adapters().values() if each.models
    ]
    return [name for several in names for name in several]


def _kind(model: object) -> str:
    kind = type(model)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
