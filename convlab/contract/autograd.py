"""`Autograd`: what a backend with gradients has."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .rule import Rule
from .arrays import Arrays, T, lacking


class Autograd(Arrays[T]):
    """Custom gradients, and gradients of functions."""

    # Seconds that `apply` takes eagerly, with its gradients, beyond what a native operation takes.
    apply_seconds = 0.0

    def apply(self, rule: Rule, *inputs: T) -> T:
        """`compute(self, rule, *inputs)`, whose gradients are `gradients_of_rule(self, rule, …)`.

        This is the custom-gradient hook. Both functions are in `convlab.correlation.compute`; only backends with
        autograd have it.
        """
        raise lacking("apply")

    @abstractmethod
    def vjp(self, function: Callable[..., Any], inputs: Sequence[T], dy: T) -> tuple[T, ...]:
        """The gradients of sum(dy * function(*inputs)) with respect to each input, by the framework's autograd."""

    def records(self, *tensors: T | None) -> bool:
        """Whether gradients may be asked for of what is computed from eager tensors now; None stands for no tensor."""
        return False
