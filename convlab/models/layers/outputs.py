"""The results of a model that gives several: the last node of its graph, and how frameworks hold them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import UnsupportedError
from .joining import Joining

# What the node is called in a model whose code only returns the results.
OUTPUTS = "outputs"


@dataclass(frozen=True, eq=False)
class Outputs(Joining):
    """Several results, as a tuple; or as a dictionary or in nested containers, if they have names.

    They are images, rows of numbers or both, of any sizes. It is the last layer of a model. To `reference` and `error`
    its result is one row of all their numbers for each image.

    Attributes:
        names: one for each result, in the order of `results_of`; none of a tuple. In nested containers it is a result's
            path, of keys with "/" between them and places in brackets: "head/boxes[0]".
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


# What a key can't have, since names in nested containers are made with it.
_NOT_IN_KEYS = {*"/[]"}
_Path = tuple[str | int, ...]


def results_of(result: Any) -> tuple[tuple[str, ...], list[Any]]:
    """The names and the results in what a model gives; one that is alone, in a container or not, has no name.

    Those in a dictionary stand in the order of its keys: see `Outputs`.

    >>> results_of({"class": 1, "box": 2})
    (('box', 'class'), [2, 1])
    >>> results_of({"class": [1, 2], "box": (3,)})
    (('box[0]', 'class[0]', 'class[1]'), [3, 1, 2])
    >>> results_of({"out": 3}), results_of((1, 2))
    (((), [3]), ((), [1, 2]))

    Raises:
        UnsupportedError: there is none, a container is empty, or a key is no string or has a character of the names.
    """
    leaves = [*_leaves(result, "")]
    names, results = tuple(name for name, _ in leaves), [each for _, each in leaves]
    plain = len(results) == 1 or names == tuple(f"[{number}]" for number in range(len(results)))
    return () if plain else names, results


def _leaves(result: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(result, (tuple, list, Mapping)):
        yield name, result
        return
    if not result:
        raise UnsupportedError(f"it gives nothing{f' for {name!r}' if name else ''}")
    if not isinstance(result, Mapping):
        for number, each in enumerate(result):
            yield from _leaves(each, f"{name}[{number}]")
        return
    if not all(isinstance(key, str) and key and not _NOT_IN_KEYS.intersection(key) for key in result):
        raise UnsupportedError(f"its results are called {[*result]}, expected strings without '/', '[' and ']'")
    for key in sorted(result):
        yield from _leaves(result[key], f"{name}/{key}" if name else key)


def arrays_of_results(result: Any, array: Callable[[Any], np.ndarray]) -> np.ndarray | tuple[np.ndarray, ...]:
    """What `convlab.models.adapters.Models.run` gives: an array, or a tuple of several in the order of `results_of`.

    Args:
        result: what a model or a layer gave.
        array: makes an array of one result.
    """
    arrays = tuple(map(array, results_of(result)[1]))
    return arrays[0] if len(arrays) == 1 else arrays


def container_of(results: Sequence[Any], names: Sequence[str], several: Callable[[Any], Any] = tuple) -> Any:
    """Results in the containers that their names tell of: what `results_of` takes apart.

    >>> container_of([1, 2], ["box", "class"]), container_of([1, 2], ())
    ({'box': 1, 'class': 2}, (1, 2))
    >>> container_of([3, 1, 2], ["box", "class[0]", "class[1]"])
    {'box': 3, 'class': (1, 2)}

    Args:
        results: in the order of `results_of`.
        names: of the results, none for a tuple.
        several: makes what isn't a dictionary.
    """
    return _nested([*map(_path_of, names)], results, several) if names else several(results)


def _path_of(name: str) -> _Path:
    """The keys and places of a name.

    >>> _path_of("head/boxes[0]")
    ('head', 'boxes', 0)
    """
    return tuple(int(place) if place else key for place, key in re.findall(r"\[(\d+)\]|([^/\[\]]+)", name))


def _nested(paths: Sequence[_Path], results: Sequence[Any], several: Callable[[Any], Any]) -> Any:
    if [*paths] == [()]:
        return results[0]
    inside: dict[str | int, list[int]] = {}
    for number, path in enumerate(paths):
        inside.setdefault(path[0], []).append(number)
    made = {
        key: _nested([paths[number][1:] for number in numbers], [results[number] for number in numbers], several)
        for key, numbers in inside.items()
    }
    return several(made.values()) if all(isinstance(key, int) for key in made) else made


def are_names(names: Sequence[str]) -> bool:
    """Whether results may have these names, in this order: those of one container, nested or not.

    >>> are_names(["box", "class[0]", "class[1]"]), are_names(["class[1]", "box"]), are_names(["a", "a/b"])
    (True, False, False)
    """
    try:
        paths = [*_leaves(container_of(names, names), "")]
    except (LookupError, UnsupportedError):  # one has no path, or is a container, too
        return not names
    return paths == [(name, name) for name in names] and any("[" not in name or _path_of(name)[1:] for name in names)


def are_alike(names: Sequence[str], others: Sequence[str]) -> bool:
    """Whether results may be the same by their names: a framework without dictionaries has places for keys.

    >>> are_alike(["box", "class[0]"], ["[0]", "[1][0]"]), are_alike(["box"], ["class"]), are_alike(["box"], ())
    (True, False, True)
    """
    if not names or not others:
        return True
    pairs = [*zip(map(_path_of, names), map(_path_of, others), strict=False)]
    alike = (len(a) == len(b) and all(map(_alike, a, b)) for a, b in pairs)
    return len(names) == len(others) and all(alike)


def _alike(key: str | int, other: str | int) -> bool:
    return key == other or type(key) is not type(other)


def names_in_tuples(names: Sequence[str]) -> tuple[str, ...]:
    """The names of the same results in a framework that has tuples for dictionaries.

    >>> names_in_tuples(["box", "class[0]", "class[1]"]), names_in_tuples(["box", "class"])
    (('[0]', '[1][0]', '[1][1]'), ())
    """
    return results_of(_in_tuples(container_of(names, names)))[0] if names else ()


def _in_tuples(result: Any) -> Any:
    if isinstance(result, str):
        return result
    return tuple(map(_in_tuples, result.values() if isinstance(result, dict) else result))


def template_of(names: Sequence[str], brackets: str = "()") -> str:
    """The expression of several results in a source, as `convlab.models.source.forward.Statement` has them.

    >>> template_of(["box", "class[0]", "class[1]"])
    '{{"box": {0}, "class": ({1}, {2})}}'

    Args:
        names: of the results, none for a tuple.
        brackets: of what isn't a dictionary.
    """
    start, end = brackets[0], brackets[1]
    if not names:
        return "{all}" if brackets == "()" else f"{start}{{all}}{end}"

    def written(result: Any) -> str:
        if isinstance(result, str):
            return result
        if isinstance(result, dict):
            return f"{{{{{', '.join(f'{_quoted(key)}: {written(each)}' for key, each in result.items())}}}}}"
        comma = "," if len(result) == 1 and brackets == "()" else ""
        return f"{start}{', '.join(map(written, result))}{comma}{end}"

    return written(container_of([f"{{{number}}}" for number in range(len(names))], names))


def _quoted(name: str) -> str:
    plain = repr(name).replace("{", "{{").replace("}", "}}")
    return plain if '"' in plain or "\\" in plain else f'"{plain[1:-1]}"'
