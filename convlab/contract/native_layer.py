"""`NativeLayer`: the arguments that users of a framework know from its own layer, as options of convlab's `Conv2D`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import OptionError, UnsupportedError
from ..geometry.checks import shown
from .layer import LayerArguments

Options = dict[str, Any]
# What frameworks call the options of `Conv2D`.
SYNONYMS = {
    "channels": "out_channels",
    "features": "out_channels",
    "filters": "out_channels",
    "out_features": "out_channels",
    "in_features": "in_channels",
    "strides": "stride",
    "dilation_rate": "dilation",
    "kernel_dilation": "dilation",
    "feature_group_count": "groups",
    "bias": "use_bias",
    "layout": "data_format",
}
_INITIALISERS = ("kernel_init", "kernel_initializer", "weight_initializer")
_OURS = tuple(LayerArguments.__annotations__)


@dataclass(frozen=True)
class NativeLayer:
    """A framework's own convolutional layer, as far as its arguments go.

    >>> keras = NativeLayer("keras.layers.Conv2D", ("filters", "kernel_size", "strides", "activation"), ("activation",))
    >>> keras.arguments((8, 3), {"activation": "relu"})
    ({'out_channels': 8, 'kernel_size': 3, 'layout_given': False}, {'activation': 'relu'})
    >>> keras.arguments((3,), {"dilatoin": 2})
    Traceback (most recent call last):
    convlab.errors.OptionError: dilatoin: got an argument that Conv2D doesn't have. Hint: did you mean dilation?

    Attributes:
        name: what its users call it.
        order: its arguments by its own names, the positional ones first and in order.
        own: arguments that convlab hasn't got, which the adapter's layer takes as the framework's does.
        refused: arguments that convlab's layer can't take, each with what to do instead. None, and 1, ask for nothing.
    """

    name: str = ""
    order: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)

    def arguments(self, given: Sequence[object], keywords: Mapping[str, object]) -> tuple[Options, Options]:
        """The arguments of `LayerSpec`, and those that are the framework's own, for a call of the layer.

        Args:
            given: the positional arguments. One is the kernel's size, as on every backend. Several, or one beside
                `kernel_size=`, stand in the order of the framework's own layer.
            keywords: the keyword arguments, by convlab's names or the framework's.

        Raises:
            OptionError: an unknown argument, one that is given twice, or no `kernel_size`.
            UnsupportedError: an argument of the framework's that convlab's layer can't take.
        """
        options: Options = {}
        for name, value in [*self._named(given, keywords), *keywords.items()]:
            if name in self.refused:
                self._check_idle(name, value)
                continue
            option = self._option(name, value)
            if name == "bias" and value is None:
                # PyTorch's None is no bias.
                value = False
            if value is None and (name != option or name == "data_format"):
                # A framework's None stands for a default, and convlab's is taken.
                continue
            if option in options:
                raise OptionError(f"{name}: got {option} twice.", hint=f"give {option}= once.")
            options[option] = value
        if options.get("kernel_size") is None:
            raise OptionError("kernel_size: got none, expected an int or a pair.", hint=self._example())
        own = {name: options.pop(name) for name in self.own if name in options}
        _check_one_start(options, own)
        return {**options, "layout_given": "data_format" in options}, own

    def _named(self, given: Sequence[object], keywords: Mapping[str, object]) -> list[tuple[str, object]]:
        """The positional arguments with their names."""
        several = len(given) > 1 or "kernel_size" in keywords
        order = self.order if several and self.order else ("kernel_size",)
        if len(given) > len(order):
            raise OptionError(
                f"Conv2D: got {len(given)} positional arguments, expected at most {len(order)}.", hint=self._example()
            )
        return list(zip(order, given, strict=False))

    def _option(self, name: str, value: object) -> str:
        """The option that an argument is; the framework's own keep their names."""
        if name in _OURS or name in self.own:
            return name
        if name in SYNONYMS and name in self.order:
            return SYNONYMS[name]
        if name in SYNONYMS:
            hint = f"write {SYNONYMS[name]}={shown(value)}."
        else:
            known = sorted({*_OURS, *self.order, *self.own} - {*self.refused})
            near = difflib.get_close_matches(name, known, 3, 0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}."
        raise OptionError(f"{name}: got an argument that Conv2D doesn't have.", hint=hint)

    def _check_idle(self, name: str, value: object) -> None:
        """Raise `UnsupportedError` unless an argument that can't be taken asks for nothing."""
        if value is not None and not (isinstance(value, int) and value == 1):
            raise UnsupportedError(
                f"{name}: got {shown(value)}, which {self.name} takes and Conv2D doesn't.", hint=self.refused[name]
            )

    def _example(self) -> str:
        plain = "Conv2D(3, out_channels=8) has a kernel of 3x3 and 8 output channels"
        positional = self.order[: self.order.index("kernel_size") + 1] if "kernel_size" in self.order else ()
        return f"{plain}, and so has Conv2D({', '.join(positional)})." if positional else f"{plain}."


def _check_one_start(options: Options, own: Options) -> None:
    """Raise `OptionError` if both a seed and an initialiser say what the weight's first values are."""
    initialiser = next((name for name in _INITIALISERS if own.get(name) is not None), "")
    if initialiser and options.get("seed") is not None:
        raise OptionError(
            f"seed, {initialiser}: got both, expected one.",
            hint="the seed has an initialiser of its own, the same everywhere.",
        )
