"""The results of a model that gives several: the last node of its graph, and how frameworks hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import UnsupportedError
from .joining import Joining

# What the node is called in a model whose code only returns the results.
OUTPUTS = "outputs"


@dataclass(frozen=True, eq=False)
class Outputs(Joining):
    """Several results, as a tuple; or as a dictionary, if they have names.

    They are images, rows of numbers or both, of any sizes. It is the last layer of a model. To `reference` and `error`
    its result is one row of all their numbers for each image.

    Attributes:
        names: one for each result, sorted, since a dictionary has no order; none of a tuple.
    """

    kind = OUTPUTS

    # A framework that has no dictionaries of results gives the same as a tuple.
    names: tuple[str, ...] = field(default=(), compare=False)

    def reference(self, *values: np.ndarray) -> np.ndarray:
        """See `Joining.reference`."""
        return in_rows(values)

    def error(self, values: Sequence[np.ndarray], off: Sequence[np.ndarray], dtype: str) -> np.ndarray:  # type: ignore[override]
        """See `Joining.error`."""
        return in_rows(off)


def in_rows(results: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """All numbers of several results as one row for each image; a lone array as it is.

    >>> in_rows([np.zeros((2, 3, 4, 4)), np.ones((2, 5))]).shape
    (2, 53)
    """
    if isinstance(results, np.ndarray):
        return results
    return np.concatenate([np.reshape(each, (len(each), -1)) for each in results], axis=1)


def results_of(result: Any) -> tuple[tuple[str, ...], list[Any]]:
    """The names and the results in what a model gives; one that is alone, in a container or not, has no name.

    >>> results_of({"class": 1, "box": 2})
    (('box', 'class'), [2, 1])
    >>> results_of({"out": 3}), results_of((1, 2))
    (((), [3]), ((), [1, 2]))

    Raises:
        UnsupportedError: there is none, one is a container itself, or has a name that is no string.
    """
    names: tuple[str, ...] = ()
    if isinstance(result, Mapping):
        if not all(isinstance(name, str) for name in result):
            raise UnsupportedError(f"its results are called {[*result]}, expected strings")
        names = tuple(sorted(result))
        results = [result[name] for name in names]
    else:
        results = [*result] if isinstance(result, (tuple, list)) else [result]
    if not results:
        raise UnsupportedError("it gives nothing")
    for number, each in enumerate(results):
        if isinstance(each, (tuple, list, Mapping)):
            which = repr(names[number] if names else number)
            raise UnsupportedError(f"its result {which} holds several itself, expected one tensor")
    return (names if len(results) > 1 else ()), results


def arrays_of_results(result: Any, array: Callable[[Any], np.ndarray]) -> np.ndarray | tuple[np.ndarray, ...]:
    """What `convlab.models.adapters.Models.run` gives: an array, or a tuple of several in the order of `results_of`.

    Args:
        result: what a model or a layer gave.
        array: makes an array of one result.
    """
    arrays = tuple(map(array, results_of(result)[1]))
    return arrays[0] if len(arrays) == 1 else arrays


def container_of(results: Sequence[Any], names: Sequence[str]) -> Any:
    """Several results as a tuple, or as a dictionary if they have names.

    >>> container_of([1, 2], ["box", "class"]), container_of([1, 2], ())
    ({'box': 1, 'class': 2}, (1, 2))
    """
    return dict(zip(names, results, strict=True)) if names else tuple(results)


def template_of(names: Sequence[str], several: str = "{all}") -> str:
    """The expression of several results in a source, as `convlab.models.source.forward.Statement` has them.

    >>> template_of(["box", "class"])
    '{{"box": {0}, "class": {1}}}'

    Args:
        names: of the results, none for a tuple.
        several: the expression if they have none.
    """
    pairs = (f"{_quoted(name)}: {{{number}}}" for number, name in enumerate(names))
    return f"{{{{{', '.join(pairs)}}}}}" if names else several


def _quoted(name: str) -> str:
    plain = repr(name).replace("{", "{{").replace("}", "}}")
    return plain if '"' in plain or "\\" in plain else f'"{plain[1:-1]}"'
