"""Calls in a traced graph of images whose pixels are the tokens of a sequence, or the boxes of a detector."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch.fx

from convlab.models.layers.reading import Part
from convlab.models.layers.shapes import Known, channels_at, known_at

from .across_channels import anchors, concatenate_pixels, tokens
from .functions import concatenate, flatten_pixels, read_function
from .rewriting import OPENS
from .tokens import (
    boxes_at_pixel,
    is_flat,
    joined_rows,
    joined_tokens,
    makes_column,
    merges_pixels,
    row_of_tokens,
    swaps_tokens,
)


class TokenReading:
    """What a graph on its way to parts knows of tokens.

    Attributes:
        rank: how many axes the images have beside those of images and channels.
        runs: the shapes of tensors for images of several sizes, or of the only one.
        values: the name of each node's value; a node that does nothing has that of its input.
        last: the nodes whose last axis is that of the channels, since the code permuted the axes.
        tokens: the nodes whose pixels are the tokens of a sequence, (N, C, L) or (N, L, C).
        pixels: the nodes that flatten images NHWC, or join such rows, and those images' nodes.
        result: the parts.
    """

    def __init__(self, rank: int, runs: Sequence[Mapping[torch.fx.Node, Any]]) -> None:
        self.rank, self.runs = rank, runs
        self.values: dict[torch.fx.Node, str] = {}
        self.last: set[torch.fx.Node] = set()
        self.tokens: set[torch.fx.Node] = set()
        self.pixels: dict[torch.fx.Node, list[torch.fx.Node]] = {}
        self.result: list[Part] = []

    def of_tokens(self, node: torch.fx.Node) -> bool:
        """Whether a node only changes the axes of tokens, takes one, or joins them, and has been read."""
        if self.rank != 2 or self._joins(node):
            return self.rank == 2
        source = node.args[0] if node.args else None
        if not isinstance(source, torch.fx.Node) or source not in self.values:
            return False
        if node in self.values:  # what attention gives
            return True
        if source in self.pixels:
            return self._boxes(node, self.pixels[source])
        if source in self.tokens:
            return self._changes(node, source)
        if source in self.last:
            return self._flattens(node, source) or self._boxes(node, [source])
        if not merges_pixels(node, self.channels_of(source)):
            return False
        self.tokens.add(node)
        self.values[node] = self.values[source]
        return True

    def _changes(self, node: torch.fx.Node, source: torch.fx.Node) -> bool:
        """Read a node that changes the axes of tokens, or takes one."""
        if self._makes_image(node, source):
            if source in self.last:
                self.last.add(node)
        elif swaps_tokens(node):
            self.tokens.add(node)
            if source not in self.last:
                self.last.add(node)
        elif (native := row_of_tokens(node, source in self.last)) is not None:
            self._add(node, native, [source])
            return True
        elif not makes_column(node) or source in self.last or not self._is_joined(source):
            return False
        self.values[node] = self.values[source]
        return True

    def channels_of(self, node: torch.fx.Node) -> int:
        """The channels of a node's value, 0 for an unknown number."""
        return channels_at(self.result, self.values.get(node, ""))

    def _makes_image(self, node: torch.fx.Node, tokens: torch.fx.Node) -> bool:
        """Whether a node makes an image of tokens again, NCHW or NHWC, of the rows and columns that they came from."""
        if node.target not in OPENS or not self.runs:
            return False
        return all(self._is_image(seen, node, tokens) for seen in self.runs)

    def _is_image(self, seen: Mapping[torch.fx.Node, Any], node: torch.fx.Node, tokens: torch.fx.Node) -> bool:
        """Whether a node has, in one run, the rows and columns that the image has whose pixels the tokens are."""
        given = {value: seen[each] for each, value in self.values.items() if each.op == "placeholder"}
        images = {value: Known(shape[1], tuple(shape[2:]) or None, len(shape) == 2) for value, shape in given.items()}
        size, before = known_at(self.result, self.values[tokens], images).size, seen[tokens]
        if size is None:
            return False
        expected = (before[0], *size, before[2]) if tokens in self.last else (*before[:2], *size)
        return tuple(seen[node]) == expected

    def _boxes(self, node: torch.fx.Node, sources: Sequence[torch.fx.Node]) -> bool:
        """Read a node that makes tokens, one or several for each pixel, of images NHWC, one image behind another."""
        last = {shape[-1] for seen in self.runs if isinstance(shape := seen.get(node), torch.Size) and shape}
        known = last.pop() if len(last) == 1 else 0
        counts = [boxes_at_pixel(node, self.channels_of(source), known) for source in sources]
        if not all(counts):
            return False
        values = [self.values[source] for source in sources]
        for place, (source, count) in enumerate(zip(sources, counts, strict=True)):
            if count > 1:
                self._add(node, partial(anchors, count=count), [source], f".{place}")
                values[place] = self.values[node]
        self.values[node] = values[0]
        if len(values) > 1:
            self._add(node, concatenate_pixels, values)
        self.tokens.add(node)
        self.last.add(node)
        return True

    def _is_joined(self, node: torch.fx.Node) -> bool:
        """Whether a node has tokens of several images behind each other, which are an image of one column."""
        return any(part.native is concatenate_pixels for part in self.result if part.value == self.values[node])

    def _flattens(self, node: torch.fx.Node, image: torch.fx.Node) -> bool:
        """Note a node that makes rows of numbers of images NHWC."""
        if is_flat(node):
            self.pixels[node], self.values[node] = [image], self.values[image]
        return node in self.pixels

    def as_rows(self, node: torch.fx.Node) -> None:
        """Add what makes rows of numbers of images, pixel by pixel, if a node does that and is taken for it."""
        images = self.pixels.pop(node, [])
        values = []
        for place, image in enumerate(images):
            self._add(node, flatten_pixels, [image], f".{place}")
            values.append(self.values[node])
        if len(values) > 1:
            self._add(node, concatenate, values)

    def _joins(self, node: torch.fx.Node) -> bool:
        """Read a node that puts tokens of several images behind each other."""
        rows = joined_rows(node, self.pixels.keys())
        if rows:
            self.pixels[node] = [image for each in rows for image in self.pixels[each]]
            self.values[node] = self.values[rows[0]]
        sources = joined_tokens(node, self.tokens, self.last)
        if sources:
            self._add(node, concatenate_pixels, sources)
            self.tokens.add(node)
            if sources[0] in self.last:
                self.last.add(node)
        return bool(sources or rows)

    def as_results(self, results: Sequence[Any]) -> None:
        """Add what makes tokens (N, L, C) of images, for those of the results that the code has so."""
        for each in dict.fromkeys(results):
            self.as_rows(each)
            if each in self.tokens and each in self.last:
                self.tokens.remove(each)
                self.last.remove(each)
                self._add(each, tokens, [each], ".tokens")

    def _add(self, node: torch.fx.Node, native: Any, sources: Sequence[torch.fx.Node | str], behind: str = "") -> None:
        layer, note = read_function(native)
        path = ".".join(filter(None, [owner(node), note]))
        inputs = tuple(source if isinstance(source, str) else self.values[source] for source in sources)
        self.values[node] = f"{node.name}{behind}"
        self.result.append(Part(path, native, layer, note, inputs, self.values[node]))


def owner(node: torch.fx.Node) -> str:
    """The path of the module whose code a node is of; torch.fx numbers the calls of one, as in `tower@1`."""
    return re.sub(r"@\d+", "", str(next(reversed(node.meta.get("nn_module_stack") or [""]))))
