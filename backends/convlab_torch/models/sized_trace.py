"""A PyTorch model's calls for images of one size, whose numbers its code may compute with and decide by."""

from __future__ import annotations

import importlib
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from .sizes import float_dtype
from .tracer import CountedProxy, Tracer

# What differs between images of these numbers depends on their number.
_BATCHES = (2, 3)
Both = tuple[Any, ...]


class SizedProxy(CountedProxy):
    """A value of a traced model.

    Attributes:
        both: the value on two batches, tensors without numbers; empty where convlab can't tell.
    """

    both: Both = ()

    @property
    def shape(self) -> Any:
        """The number of each axis; a value of the trace for one that depends on the number of images."""
        return self.size()

    @property
    def ndim(self) -> Any:
        """The number of axes."""
        return self.dim()

    def dim(self) -> Any:
        """See `ndim`."""
        return self.both[0].ndim if self._is_tensor() else self._call("dim")

    def size(self, dim: int | None = None) -> Any:
        """See `shape`; `dim` for one axis."""
        if not self._is_tensor():
            return self._call("size") if dim is None else self._call("size", dim)
        if dim is None:
            return tuple(self.size(axis) for axis in range(self.dim()))
        size, other = (each.shape[dim] for each in self.both)
        return size if size == other else self._call("size", dim)

    def number(self) -> Any:
        """The number that it is for each number of images.

        Raises:
            torch.fx.proxy.TraceError: it is none.
        """
        first, other = self.both or (None, None)
        if isinstance(first, (bool, int, float)) and first == other:
            return first
        raise torch.fx.proxy.TraceError("the code decides by numbers of the image")

    def _is_tensor(self) -> bool:
        return bool(self.both) and all(isinstance(each, Tensor) for each in self.both)

    def _call(self, method: str, *args: Any) -> Any:
        return self.tracer.create_proxy("call_method", method, (self, *args), {})


class SizedTracer(Tracer):
    """A tracer that computes each value's shape beside the trace, on the meta device.

    Args:
        is_leaf: see `Tracer`.
        inputs: the shapes (C, H, W) of images, or (C,) of rows, of the arguments by their names.
    """

    def __init__(self, is_leaf: Callable[[nn.Module], bool], inputs: Mapping[str, Sequence[int]]) -> None:
        # The meta device loads it at its first use, which mustn't be while a trace has replaced functions of `math`.
        importlib.import_module("torch._dynamo")
        super().__init__(is_leaf)
        self._inputs = inputs
        self._computing = False

    def proxy(self, node: torch.fx.Node) -> SizedProxy:
        """See `torch.fx.Tracer`."""
        return SizedProxy(node, self)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **options: Any) -> Any:
        """See `torch.fx.Tracer`; the value of the call on both batches is noted."""
        if self._computing:
            raise ValueError("what a value is computed from isn't known")
        proxy: Any = super().create_proxy(kind, target, args, kwargs, *more, **options)
        if kind != "placeholder":
            proxy.both = self._compute(kind, target, args, kwargs)
        elif args:  # an argument with a default
            proxy.both = (*args, *args)
        else:
            dtype, shape = float_dtype(self.root), self._inputs[target]
            proxy.both = tuple(torch.empty(n, *shape, dtype=dtype, device="meta") for n in _BATCHES)
        return proxy

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """See `torch.fx.Tracer`; while values are computed, modules are."""
        return forward(*args, **kwargs) if self._computing else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """See `torch.fx.Tracer`; while values are computed, parameters are arrays."""
        return attr_val if self._computing else super().getattr(attr, attr_val, parameter_proxy_cache)

    def to_bool(self, obj: torch.fx.Proxy) -> bool:
        """See `torch.fx.Tracer`; of the images' number it is known whether two tensors have the same."""
        same = obj.node.target in (operator.eq, operator.ne) and len(obj.node.all_input_nodes) == 2
        return bool(obj.number()) if same and isinstance(obj, SizedProxy) else super().to_bool(obj)

    def _compute(self, kind: str, target: Any, args: Any, kwargs: Any) -> Both:
        """The value of a call on both batches."""
        self._computing = True
        try:
            with torch.no_grad():
                return tuple(self._call(kind, target, *_without_numbers((args, kwargs), i)) for i in range(2))
        except Exception:  # The model's own code may fail in any way; the trace goes on without the shape.
            return ()
        finally:
            self._computing = False

    def _call(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        if kind == "call_function":
            return target(*args, **kwargs)
        if kind == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        if kind == "get_attr":
            return _meta(operator.attrgetter(target)(self.root))
        module = self.root.get_submodule(target)
        arrays = (*module.named_parameters(), *module.named_buffers())
        return torch.func.functional_call(module, {name: _meta(array) for name, array in arrays}, args, kwargs)


def _without_numbers(arguments: Any, which: int) -> Any:
    def value(each: Any) -> Any:
        if isinstance(each, torch.fx.proxy.Attribute):  # such as the device of a tensor
            return getattr(value(each.root), each.attr)
        return each.both[which] if isinstance(each, SizedProxy) else _meta(each)

    return torch.fx.node.map_aggregate(arguments, value)


def _meta(value: Any) -> Any:
    return value.detach().to("meta") if isinstance(value, Tensor) else value
