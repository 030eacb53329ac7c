"""Keras's layers of the tokens of a sequence, (N, L, C), for images: their pixels, row by row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from convlab.errors import UnsupportedError
from convlab.geometry.geometry import Pair
from convlab.models.layers.attention import ClassToken, PositionEmbedding
from convlab.models.layers.flattening import Flatten
from convlab.models.layers.folded import convolution
from convlab.models.layers.layer import Convolution, Layer
from convlab.models.layers.ranks import layer_of_tokens
from convlab.models.layers.reading import Part
from convlab.models.layers.shapes import gives_rows

from .. import attention_layers, private
from .arrays import array_of

# The sizes between those of the batch and of the channels; None for one that isn't known.
Pixels = tuple[int | None, ...]
# These take images and tokens alike.
_AS_THEY_ARE = (
    *(kl.Add, kl.Subtract, kl.Multiply, kl.Maximum, kl.Minimum, kl.Flatten, kl.Activation, kl.Dropout),
    *(attention_layers.ClassToken, attention_layers.PositionEmbedding, attention_layers.FirstPixel),
)


class OfTokens(kl.Layer):  # type: ignore[misc]
    """A layer of tokens, or of pixels in other rows, for images (N, H, W, C).

    Args:
        of_tokens: the layer; attention is given the same as queries and as keys and values.
        pixels: the sizes between those of the batch and of the channels that it takes; None for the images' own.
    """

    def __init__(self, of_tokens: kl.Layer, pixels: Pixels | None = None) -> None:
        super().__init__(dtype=of_tokens.dtype_policy, autocast=False)
        self.of_tokens, self.pixels, self.built = of_tokens, pixels, True

    def call(self, x: Any) -> Any:
        """The images, or rows of numbers."""
        n, *size, channels = keras.ops.shape(x)
        if self.pixels is None:
            tokens = x
        else:
            tokens = keras.ops.reshape(x, (n, *(size if None in self.pixels[1:] else self._known(size)), channels))
        attends = isinstance(self.of_tokens, kl.MultiHeadAttention)
        y = self.of_tokens(tokens, tokens) if attends else self.of_tokens(tokens)
        if len(y.shape) == 2 or self.pixels is None:
            return y
        as_before = math.prod(y.shape[1:-1]) == math.prod(size)
        return keras.ops.reshape(y, (n, *(size if as_before else (-1, 1)), y.shape[-1]))

    def _known(self, size: Sequence[int]) -> Sequence[int]:
        assert self.pixels is not None
        return (math.prod(size),) if len(self.pixels) == 1 else self.pixels  # type: ignore[return-value]


class Patches(kl.Layer):  # type: ignore[misc]
    """The patches of images (N, H, W, C), side by side, as pixels: `keras.ops.image.extract_patches`.

    Args:
        size: their rows and columns.
    """

    def __init__(self, size: Pair, **names: Any) -> None:
        super().__init__(**names)
        self.size = size

    def call(self, x: Any) -> Any:
        """The images (N, H / rows, W / columns, rows * columns * C)."""
        return keras.ops.image.extract_patches(x, self.size)


def convolution_of_patches(first: Part, second: Part) -> Layer | None:
    """What patches and a dense layer of each of them are together; None for other layers."""
    patches, dense = first.native, second.layer
    if not isinstance(patches, Patches) or not isinstance(dense, Convolution) or dense.spec.groups > 1:
        return None
    rows, columns = patches.size
    if dense.kernel.shape[2:] != (1, 1) or dense.kernel.shape[1] % (rows * columns):
        return None
    kernel = dense.kernel.reshape(len(dense.kernel), rows, columns, -1).transpose(0, 3, 1, 2)
    return convolution(np.ascontiguousarray(kernel), dense.bias, str(dense.spec.dtype), stride=patches.size)


def of_itself(layer: kl.Layer) -> kl.Layer:
    """Attention for images, which are given to it thrice; another layer as it is."""
    if not isinstance(layer, kl.MultiHeadAttention) or isinstance(layer, attention_layers.PixelAttention):
        return layer
    of_images = len(layer.get_build_config()["shapes_dict"]["query_shape"]) == 4
    return OfTokens(layer, None if of_images else (None,))


def part_of_tokens(part: Part, pixels: Pixels) -> Part:
    """A layer that takes tokens, or an image's pixels in other rows, as one that takes the image."""
    if part.layer is None:
        return part
    layer = layer_of_tokens(part.layer)
    if layer is None:
        why = f"it takes an image's pixels in the shape {pixels}, and heeds which ones are side by side"
        return replace(part, layer=None, note=f"{part.note}: {why}")
    if isinstance(part.native, kl.Concatenate):
        native: Any = kl.Concatenate(-1, autocast=False)
    elif isinstance(part.native, _AS_THEY_ARE):
        native = part.native
    else:
        native = OfTokens(part.native.of_tokens if isinstance(part.native, OfTokens) else part.native, pixels)
    return replace(part, layer=layer, native=native)


class Forms:
    """In which rows and columns the pixels stand that the model's code has as the tokens of a sequence, by value."""

    def __init__(self) -> None:
        self.known: dict[str, Pixels] = {}

    def reshape(self, value: str, before: Sequence[int | None], after: Sequence[int | None]) -> bool:
        """Whether a change of the shape leaves the channels of each pixel together, and so is none of the value."""
        if len(after) not in (3, 4) or after[-1] is None or before[-1] != after[-1]:
            return False
        if value not in self.known and len(before) != 4:
            return False
        form = self.known.get(value, tuple(before[1:-1]))
        sizes = [*before[1:], *after[1:], *form]
        if len(after) == 4 and tuple(after[1:-1]) != form and None in sizes:
            return False
        if None not in sizes and math.prod(before[1:]) != math.prod(after[1:]):  # type: ignore[arg-type]
            return False
        self.known[value] = form
        return True

    def boxes_at_pixel(self, value: str, before: Sequence[int | None], after: Sequence[int | None]) -> int:
        """How many tokens a change of the shape makes of each pixel of an image; 0 where it does something else."""
        if len(before) != 4 or len(after) != 3 or value in self.known or None in (before[-1], after[-1]):
            return 0
        count, rest = divmod(before[-1], after[-1])  # type: ignore[operator]
        sizes = [*before[1:], *after[1:]]
        whole = None in sizes or math.prod(before[1:]) == math.prod(after[1:])  # type: ignore[arg-type]
        return count if whole and not rest else 0

    def pixels(self, values: Sequence[str], tensor: Any) -> Pixels | None:
        """The sizes in which a layer takes these values' pixels; None where they are the images' own.

        Raises:
            UnsupportedError: the values are of images of different sizes.
        """
        if tensor is None or len(tensor.shape) < 3:
            return None
        own = tuple(tensor.shape[1:-1])
        forms = {self.known.get(value, own) for value in values}
        if len(forms) > 1:
            raise UnsupportedError(
                f"it joins tokens that are the pixels of images of the sizes {sorted(map(str, forms))}"
            )
        return None if forms == {own} else own

    def keep(self, value: str, source: str, layer: Layer | None) -> None:
        """Note the form of the pixels that a layer of tokens gives."""
        form = self.known.get(source)
        if form is None or layer is None or gives_rows(layer) or isinstance(layer, Flatten):
            return
        if isinstance(layer, ClassToken):
            form = (None if None in form else 1 + math.prod(form), 1)  # type: ignore[arg-type]
        self.known[value] = form


def known_by_what_it_does(layer: kl.Layer, tensor: Any) -> Layer | None:
    """The class token or the positions that anyone's layer with one weight adds to tokens; None if it doesn't.

    It is run with other numbers, and must give exactly what the layer of convlab's gives.
    """
    if len(layer.weights) != 1 or private.layers_inside(layer) or tensor is None or len(tensor.shape) not in (3, 4):
        return None
    _, *size, channels = tensor.shape
    if None in (*size, channels) or layer.compute_dtype != layer.variable_dtype:
        return None
    (weight,) = layer.weights
    random = np.random.default_rng(0)
    numbers = random.normal(size=tuple(weight.shape)).astype(layer.compute_dtype)
    made = _made(numbers, size, channels, layer.compute_dtype)
    for batch in (2, 3):
        x = random.normal(size=(batch, *size, channels)).astype(layer.compute_dtype)
        state = ([numbers], []) if weight.trainable else ([], [numbers])
        try:
            y, _ = layer.stateless_call(*state, x)
            result = array_of(y)
        except Exception:  # The layer's own code may fail in any way.
            return None
        if made is None or not _same(result, made, x):
            return None
    return _made(array_of(weight), size, channels, layer.compute_dtype)


def _made(numbers: np.ndarray, size: Sequence[int], channels: int, dtype: str) -> Layer | None:
    if numbers.size == channels:
        return ClassToken(numbers.reshape(-1), dtype)
    if numbers.size == math.prod(size) * channels:
        rows, columns = size if len(size) == 2 else (*size, 1)
        return PositionEmbedding(
            np.ascontiguousarray(numbers.reshape(rows, columns, channels).transpose(2, 0, 1)), dtype
        )
    return None


def _same(result: np.ndarray, layer: Layer, x: np.ndarray) -> bool:
    n, *size, channels = x.shape
    image = np.moveaxis(x.reshape(n, *(size if len(size) == 2 else (*size, 1)), channels), -1, 1)
    expected = np.moveaxis(layer.reference(image.astype(np.float64)), 1, -1).astype(x.dtype)
    tokens = n, math.prod(expected.shape[1:-1]), channels
    return (
        result.ndim >= 3
        and result.size == expected.size
        and np.array_equal(result.reshape(tokens), expected.reshape(tokens))
    )
