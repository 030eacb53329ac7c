"""Convolutions of sequences and of volumes: folded, they are convolutions of images.

A volume is a set of images: for each place of the kernel in the depth an image whose channels are the channels of all
the slices that the kernel reaches there. A sequence is a volume of one slice with one row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NoReturn

import numpy as np

from ...errors import UnsupportedError
from ...truth.bounds import sum_bound
from ...truth.oracle import oracle_gradients
from .layer import Convolution, Pad
from .slopes import Slopes
from .spatial import WHAT, NdSpec, Size, padding_in


@dataclass(frozen=True, eq=False)
class FoldedConvolution(Convolution):
    """A convolution with a kernel of one or three axes, whose options are under the names of those of two.

    Attributes:
        spec: its options, with both numbers of channels and a dtype.
        kernel: (outputs, inputs / groups, length), or (outputs, inputs / groups, depth, rows, columns).
        bias: one number for each output channel, or None.
    """

    rank: ClassVar[int]

    spec: NdSpec  # type: ignore[assignment]

    def ours_for(self, data_format: str) -> NoReturn:
        """See `Convolution.ours_for`; there is none."""
        raise UnsupportedError(
            f"convlab's own Conv2D is for images, this convolution for {WHAT[self.rank]}.",
            hint="layers='builtin' makes the framework's own.",
        )

    def output_size(self, size: Size) -> Size:
        """See `Layer.output_size`."""
        axes = zip(size, padding_in(self.spec, size), self.spec.extent, self.spec.stride, strict=True)
        return tuple((n + sum(pads) - k) // s + 1 for n, pads, k, s in axes)

    @cached_property
    def _deep(self) -> NdSpec:
        """The options of the same convolution of volumes."""
        more = (1,) * (3 - self.rank)
        names = ("kernel_size", "stride", "dilation")
        sizes: dict[str, Any] = {name: (*more, *getattr(self.spec, name)) for name in names}
        padding = self.spec.padding
        pads = padding if isinstance(padding, str) else (*((0, 0) for _ in more), *padding)
        return replace(self.spec, **sizes, padding=pads)

    @cached_property
    def in_images(self) -> Convolution:
        """The convolution of the images that volumes become; its padding in the depth is done before."""
        deep, (outputs, per_group) = self._deep, self.kernel.shape[:2]
        padding = deep.padding if isinstance(deep.padding, str) else deep.padding[1:]
        kernel = self.kernel.reshape(outputs, per_group * deep.kernel_size[0], *deep.kernel_size[1:])
        options = {name: getattr(deep, name)[1:] for name in ("stride", "dilation")}
        options |= {name: getattr(deep, name) for name in ("padding_mode", "padding_value")}
        return Convolution.of(kernel, self.bias, str(deep.dtype), deep.groups, padding=padding, **options)

    def _volumes(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(*x.shape[:2], *(1,) * (3 - self.rank), *x.shape[2:])

    def _border(self, size: Size, value: float) -> Pad:
        """The border in the depth of volumes of a size."""
        before = padding_in(self._deep, size)[0]
        return Pad((before, (0, 0), (0, 0)), self.spec.padding_mode, value)

    def _depths(self, size: Size) -> list[slice]:
        """Where in a padded depth each element of the kernel lies, for all places of the kernel."""
        deep = self._deep
        (step, *_), (apart, *_), (count, *_) = deep.stride, deep.dilation, deep.kernel_size
        places = (self._border(size, 0.0).output_size(size)[0] - (count - 1) * apart - 1) // step + 1
        return [slice(i * apart, i * apart + (places - 1) * step + 1, step) for i in range(count)]

    def _folded(self, x: np.ndarray, value: float) -> np.ndarray:
        """The images that volumes become, (N * places in the depth, channels * the kernel's depth, rows, columns)."""
        size = x.shape[2:]
        padded = self._border(size, value).reference(x)
        slices = np.stack([padded[:, :, depth] for depth in self._depths(size)], axis=2)
        return np.moveaxis(slices, 3, 1).reshape(-1, x.shape[1] * slices.shape[2], *size[1:])

    def _unfolded(self, y: np.ndarray, images: int) -> np.ndarray:
        """The volumes, or sequences, whose slices are images."""
        volumes = np.moveaxis(y.reshape(images, -1, *y.shape[1:]), 1, 2)
        return volumes.reshape(*volumes.shape[:2], *volumes.shape[5 - self.rank :])

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        images = self._folded(self._volumes(x), self.spec.padding_value)
        return self._unfolded(self.in_images.reference(images), len(x))

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        images = self._folded(self._volumes(x), self.spec.padding_value)
        error = self.in_images.error(images, self._folded(self._volumes(off), 0.0), dtype)
        return self._unfolded(error, len(x))

    def gradients(self, x: np.ndarray, dy: np.ndarray, dtype: str) -> tuple[Slopes, Slopes]:
        """See `Layer.gradients`.

        Each number of x is in several of the images: the bound by X is that of all products that are added up for it.
        """
        images, by_places = self._folded(self._volumes(x), self.spec.padding_value), self._by_places(dy)
        true, bounds = self.in_images.gradients(images, by_places, dtype)
        for each in (true, bounds):
            each["K"] = each["K"].reshape(self.kernel.shape)
        true["X"] = self._added_up(true["X"], x.shape)
        magnitudes = np.abs(self.kernel), np.abs(dy)
        total, counts = self._by_image(x.shape, *magnitudes), self._by_image(x.shape, *map(np.sign, magnitudes))
        bounds["X"] = sum_bound(total, int(counts.max(initial=0)) + 1, dtype, *magnitudes)
        return true, bounds

    def _by_places(self, dy: np.ndarray) -> np.ndarray:
        volumes = self._volumes(dy)
        return np.moveaxis(volumes, 2, 1).reshape(-1, volumes.shape[1], *volumes.shape[3:])

    def _by_image(self, shape: tuple[int, ...], kernel: np.ndarray, dy: np.ndarray) -> np.ndarray:
        """The gradient by x, of this shape, of sum(dy * y) with another kernel."""
        layer = self.in_images
        images, flat = self._folded(self._volumes(np.zeros(shape)), 0.0), kernel.reshape(layer.kernel.shape)
        slopes = oracle_gradients(images, flat, self._by_places(dy), **layer.spec.geometry).X
        return self._added_up(slopes, shape)

    def _added_up(self, slopes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The gradient by x, of this shape, from that by the images: each image's goes to its slices."""
        whole = self._volumes(np.zeros(shape))
        size = whole.shape[2:]
        depths, border = self._depths(size), self._border(size, 0.0)
        slopes = slopes.reshape(shape[0], -1, shape[1], len(depths), *size[1:])
        padded = np.zeros((*shape[:2], *border.output_size(size)))
        for index, depth in enumerate(depths):
            padded[:, :, depth] += np.moveaxis(slopes[:, :, :, index], 1, 2)
        # Which slice each of the padded ones repeats; one of zeros repeats none.
        source = border.reference(np.arange(1.0, size[0] + 1).reshape(1, 1, -1, 1, 1)).ravel().astype(int)
        for place, repeated in enumerate(source):
            if repeated:
                whole[:, :, repeated - 1] += padded[:, :, place]
        return whole.reshape(shape)


@dataclass(frozen=True, eq=False)
class Convolution1D(FoldedConvolution):
    """A convolution of sequences (N, C, L)."""

    kind = "conv1d"
    rank = 1


@dataclass(frozen=True, eq=False)
class Convolution3D(FoldedConvolution):
    """A convolution of volumes (N, C, D, H, W)."""

    kind = "conv3d"
    rank = 3


def as_images(x: np.ndarray, y: np.ndarray, layer: Convolution) -> tuple[np.ndarray, np.ndarray, Convolution]:
    """What a convolution takes, what it gives, and the convolution, of images: a sequence is one of one row.

    Raises:
        UnsupportedError: it is one of volumes.
    """
    if isinstance(layer, FoldedConvolution):
        if layer.rank != 1 or y.ndim != x.ndim:
            raise UnsupportedError("volumes are no images.")
        return x[:, :, None], y[:, :, None], layer.in_images
    return x, y, layer


_BY_RANK: dict[int, type[Convolution]] = {1: Convolution1D, 2: Convolution, 3: Convolution3D}


def convolution(
    kernel: np.ndarray, bias: np.ndarray | None, dtype: str, groups: int = 1, **options: Any
) -> Convolution:
    """The convolution of a kernel, (outputs, inputs / groups, …), with as many axes as the kernel has beside those.

    >>> convolution(np.ones((4, 2, 3)), None, "float32", padding=((1, 1),)).output_size((7,))
    (7,)
    """
    return _BY_RANK[kernel.ndim - 2].of(kernel, bias, dtype, groups, **options)
