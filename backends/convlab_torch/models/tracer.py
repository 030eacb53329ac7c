"""The calls in a PyTorch model, by `torch.fx`, which is told what is read as a whole."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch.fx
from torch import nn

from convlab.errors import UnsupportedError

from . import encoders, partitions
from .functions import class_path, is_known_function
from .in_place import OPERATORS
from .rewriting import how_many, inline


class CountedProxy(torch.fx.Proxy):
    """A proxy whose values can be counted where the call tells how many there are."""

    def __len__(self) -> int:
        count = how_many(self.node)
        return super().__len__() if count is None else count

    def __setitem__(self, index: object, value: object) -> None:
        raise UnsupportedError("it writes into a part of a tensor, as x[...] = y does")


def _in_place(target: Callable[..., Any]) -> Callable[[torch.fx.Proxy, Any], Any]:
    def changed(proxy: torch.fx.Proxy, other: Any) -> Any:
        return proxy.tracer.create_proxy("call_function", target, (proxy, other), {})

    return changed


# Without these, a trace has `y += x` as `y = y + x`, whatever else y is called.
for _operator in OPERATORS:
    setattr(CountedProxy, f"__{_operator.__name__}__", _in_place(_operator))


_FORWARDS: dict[str, Callable[..., Any]] = {**partitions.FORWARDS, **encoders.FORWARDS}


class Tracer(torch.fx.Tracer):
    """A tracer that is told which modules are read as a whole."""

    def __init__(self, is_leaf: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self._is_leaf = is_leaf

    def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is read as a whole."""
        return self._is_leaf(module)

    def proxy(self, node: torch.fx.Node) -> torch.fx.Proxy:
        """See `torch.fx.Tracer`."""
        return CountedProxy(node, self)

    def iter(self, obj: torch.fx.Proxy) -> Iterator[Any]:
        """See `torch.fx.Tracer`; parts and sizes are counted where the call tells how many there are."""
        count = how_many(obj.node)
        return super().iter(obj) if count is None else iter([obj[index] for index in range(count)])  # type: ignore[index]

    def path_of_module(self, mod: nn.Module) -> str:
        """See `torch.fx.Tracer`; one function that many modules have is called like that of the module around it."""
        path = super().path_of_module(mod)
        if any(True for _ in (*mod.parameters(), *mod.buffers(), *mod.children())):
            return path
        scope, _ = next(reversed(self.module_stack.values()), ("", None))
        inside = self.root.get_submodule(scope).named_children()
        names = (name for name, inner in inside if inner is mod)
        return next((f"{scope}.{name}".removeprefix(".") for name in names), path)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """See `torch.fx.Tracer`; some modules have a forward that is easier to trace."""
        simpler = _FORWARDS.get(class_path(m))
        return super().call_module(m, forward if simpler is None else partial(simpler, m), args, kwargs)


def _length(value: Any) -> Any:
    """`len`, of a traced tensor the size of its first axis."""
    tensor = isinstance(value, CountedProxy) and how_many(value.node) is None and value.node.target != "size"
    return value.size(0) if tensor else len(value)


@contextlib.contextmanager
def _traced_length(model: nn.Module) -> Iterator[None]:
    """A context in which a model's code may take `len` of a traced tensor, for which Python allows a number alone."""
    names = {id(each): each for module in model.modules() if (each := _globals_of(module)) and "len" not in each}
    try:
        for each in names.values():
            each["len"] = _length
        yield
    finally:
        for each in names.values():
            del each["len"]


def _globals_of(module: nn.Module) -> dict[str, Any] | None:
    path = type(module).__module__
    return None if path.startswith("torch.") else getattr(type(module).forward, "__globals__", None)


@contextlib.contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """A context in which a model's code may keep what it computes, and a trace its constants: not behind it."""
    kept = [(module, {**vars(module)}) for module in model.modules()]
    registered = [(attributes[name], {**attributes[name]}) for _, attributes in kept for name in _REGISTERED]
    try:
        yield
    finally:
        for now, before in (*((vars(module), attributes) for module, attributes in kept), *registered):
            now.clear()
            now.update(before)


_REGISTERED = "_parameters", "_buffers", "_modules"


def defaults_of(model: nn.Module) -> dict[str, Any]:
    """The defaults of a module's arguments beyond the first."""
    parameters = [*inspect.signature(model.forward).parameters.values()][1:]
    return {each.name: each.default for each in parameters if each.default is not each.empty}


def graph_of(
    model: nn.Module,
    is_leaf: Callable[[nn.Module], bool],
    of_torch: Callable[[nn.Module], bool],
    tracer: Callable[[Callable[[nn.Module], bool]], Tracer] = Tracer,
) -> torch.fx.Graph:
    """The calls in a model: into all modules of others than PyTorch, or else only into those with modules inside."""
    # A module may be tried on numbers, which it isn't given any more while it is traced.
    leaves = {module for module in model.modules() if is_leaf(module)}

    def has_none_inside(module: nn.Module) -> bool:
        return not any(True for _ in module.children())

    failure: Exception | None = None
    for into_all in (True, False):

        def leaf(module: nn.Module, into_all: bool = into_all) -> bool:
            return module in leaves or (has_none_inside(module) and (of_torch(module) or not into_all))

        try:
            with _traced_length(model):
                graph = tracer(leaf).trace(model, defaults_of(model))
            inline(graph, is_known_function)
            return graph
        except Exception as error:  # A model's code may fail in any way when it is given a proxy.
            failure = error
    raise UnsupportedError(f"it can't be traced ({_in_words(failure)})") from failure


def _in_words(failure: Exception | None) -> str:
    if isinstance(failure, UnsupportedError):
        return str(failure)
    if isinstance(failure, torch.fx.proxy.TraceError) and "control flow" in str(failure):
        return "its code decides by a tensor's numbers, or by sizes, which input_size= or inputs= tells"
    why = (str(failure).strip().splitlines() or [""])[0][:200]
    return f"{type(failure).__name__}{': ' if why else ''}{why}"
