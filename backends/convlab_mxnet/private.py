"""The private names of MXNet and gluon that the adapter cannot do without, each behind one function.

MXNet 1.9.1 is the last release, and the only one that convlab supports: its names stay as they are. Where one is
missing nevertheless, most of these functions raise an `AttributeError` that names it; the others say what they do.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any


def library() -> Any:
    """MXNet's C library, once MXNet is imported, for DLPack and OpenMP's number of threads.

    Python's API has no public function for either.
    """
    return sys.modules["mxnet"].base._LIB


def kind(array: Any) -> tuple[int, int, int]:
    """An array's dtype and device as MXNet's numbers: the dtype's, the device type's and the device's own.

    The public `dtype` and `ctx` tell the same, in four times the time.
    """
    dtype, device_type, device = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    core, handle = library(), array.handle
    core.MXNDArrayGetDType(handle, ctypes.byref(dtype))
    core.MXNDArrayGetContext(handle, ctypes.byref(device_type), ctypes.byref(device))
    return dtype.value, device_type.value, device.value


def in_foreign_thread() -> bool:
    """Whether the thread was started by a library and not by Python, as the threads of MXNet's engine are.

    `threading` has no public name for the class of such threads. Without the private name the answer goes by the
    thread's name, which Python chooses.
    """
    thread = threading.current_thread()
    kind = getattr(threading, "_DummyThread", None)
    return thread.name.startswith("Dummy-") if kind is None else isinstance(thread, kind)


def children(block: Any) -> Mapping[str, Any]:
    """The blocks right inside a block, by name.

    A Sequential can be iterated over, which doesn't tell the names; other blocks can't.
    """
    inside: Mapping[str, Any] = block._children
    return inside


def parameters(block: Any) -> Mapping[str, Any]:
    """A block's own parameters by the names of its attributes, without those of the blocks inside.

    The public `params` has them by names with a prefix that differs between copies, and shares them between blocks.
    """
    own: Mapping[str, Any] = block._reg_params
    return own


def all_parameters(block: Any) -> dict[str, Any]:
    """The parameters of a block and of all inside it, by the paths that `save_parameters` writes.

    The public `collect_params` has them by names with a prefix that differs between copies.
    """
    paths: dict[str, Any] = block._collect_params_with_prefix()
    return paths


def option(block: Any, name: str) -> Any:
    """An argument that a gluon layer was made with: gluon keeps it as `_name`, and only `repr` shows it."""
    return getattr(block, f"_{name}")


def operator_options(block: Any) -> Mapping[str, Any]:
    """The options that a gluon layer gives to its operator, which only `repr` shows; none for other blocks."""
    options: Mapping[str, Any] = getattr(block, "_kwargs", {})
    return options


def symbols_taken(block: Any) -> list[str]:
    """The names of the symbols that a `SymbolBlock` takes, of which it takes the first by a name of its own."""
    return [symbol.name for symbol in block._cached_graph[0]]


_NOT_COMPILED: dict[str, Any] = {"_cached_op": None, "_cached_graph": ()}


def without_activation(block: Any) -> Any:
    """A layer that shares its parameters with another one, and has no activation and no compiled graph.

    A public copy, by `copy.deepcopy`, would have parameters of its own.
    """
    alone = copy.copy(block)
    vars(alone).update(act=None, _children=OrderedDict(), _active=False, **_NOT_COMPILED)
    return alone


@contextlib.contextmanager
def not_compiled(block: Any) -> Iterator[None]:
    """A context in which a block, and all inside it, are without what hybridizing has compiled, which can't be copied.

    The public `hybridize(False)` would drop it for good, and forget how each block was hybridized.
    """
    blocks: list[Any] = []
    block.apply(blocks.append)
    compiled = [{name: vars(inner)[name] for name in _NOT_COMPILED if name in vars(inner)} for inner in blocks]
    try:
        for inner, graphs in zip(blocks, compiled, strict=True):
            vars(inner).update({name: _NOT_COMPILED[name] for name in graphs})
        yield
    finally:
        for inner, graphs in zip(blocks, compiled, strict=True):
            vars(inner).update(graphs)


def update_counts(optimizer: Any) -> dict[int, int]:
    """How often an optimiser has updated each parameter, by the parameter's index.

    Some step sizes depend on it. A Trainer's public `save_states` writes it into a file as a pickle.
    """
    counts: dict[int, int] = optimizer._index_update_count
    return counts


def updater(trainer: Any) -> Any:
    """What holds a Trainer's memory of each parameter, of which `save_states` makes a pickle in a file."""
    return trainer._updaters[0]


def start(trainer: Any) -> None:
    """Let a Trainer do what it does before its first step, which would otherwise replace the memory that it is given.

    In public only `step` does it, which needs gradients.
    """
    if not trainer._kv_initialized:
        trainer._init_kvstore()
