"""`Tracing`: what a backend with a compiler, symbols or tracers has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from .arrays import Arrays, T

Mode = Literal["eager", "traced", "embedded", "deferred", "native", "other"]
# The modes of tensors without values for which an algorithm is chosen while tracing.
TRACED: tuple[Mode, ...] = ("traced", "embedded")


class Tracing(Arrays[T]):
    """Tensors without values, loops and branches of the framework's own, and what can be planned for them."""

    def is_concrete(self, x: T) -> bool:
        """Whether x has values now, that is, isn't a tracer or a symbol."""
        return True

    def mode(self, *tensors: T) -> Mode:
        """What can be planned for tensors.

        - "eager": they have values, on a CPU.
        - "traced": `apply` is traced, for a CPU.
        - "embedded": so it is, and the program can call the compiled kernels.
        - "deferred": while tracing, `apply` becomes one operator, which plans when it has values.
        - "native": only the framework's own operators may be used.
        - "other": they are on another processor.
        """
        return "eager"

    def constant(self, array: T) -> Any:
        """A list or a NumPy array as a tensor while a tracer runs that can't look into NumPy arrays; else None."""
        return None

    def pad_same(
        self, x: T, axis: int, extent: int, stride: int, mode: str, lower: bool, value: float = 0.0
    ) -> T | None:
        """x with the border of padding "same" along an axis; None if the backend only takes sizes that it knows.

        It is asked where a size isn't known while tracing. The border makes room for ceil(n / stride) places of a
        kernel of `extent`; if lower, the odd pixel is at the start ("same_lower"). `value` is that of mode "zeros".
        """
        return None

    def fold(self, function: Callable[[Any, Any], Any], total: Any, count: Any) -> Any:
        """The value function(… function(function(total, 0), 1) …, count - 1); traced, a loop of the framework's."""
        for index in range(count):
            total = function(total, index)
        return total

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of tensors, without gradients, compiled where calling it again and again is faster for it."""
        return function

    def choose(self, condition: Any, yes: Callable[[], T], no: Callable[[], T]) -> T:
        """The result of yes() or of no(), tensors of one shape and dtype, by a condition that `every` returned."""
        return yes() if condition else no()

    def wait(self, y: T) -> T:
        """The tensor y, once it has its values."""
        return y
