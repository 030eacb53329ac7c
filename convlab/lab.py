"""A loaded backend: the object behind `from convlab import torch as lab`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

import numpy as np

from .contract import Adapter, Operations
from .corr import conv2d, corr2d
from .dtypes import check_numeric, dtype_name
from .matrix import im2col
from .operands import as_array, check_supported

if TYPE_CHECKING:
    from .learn import learn_kernel

P = ParamSpec("P")
R = TypeVar("R")


class _Bound(Generic[P, R]):
    """A function of convlab as a method that computes on this backend."""

    def __init__(self, function: Callable[P, R]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __get__(self, lab: Backend, kind: type[Backend] | None = None) -> Callable[P, R]:
        if lab is None:
            return self.function
        return partial(self.function, backend=lab.name)  # type: ignore[arg-type]


class Backend:
    """convlab on one framework: the same functions, bound to it.

    >>> from convlab import numpy as lab
    >>> lab.corr2d([[1.0, 2.0, 4.0]], [[-1.0, 1.0]])
    array([[1., 2.]], dtype=float32)

    Attributes:
        name: "torch", "jax", …
        adapter: what the backend can do (`convlab.contract.Adapter`).
        ops: the framework's array operations (`convlab.contract.Operations`).
    """

    def __init__(self, adapter: Adapter, ops: Operations) -> None:
        self.name = adapter.name
        self.adapter = adapter
        self.ops = ops

    corr2d = _Bound(corr2d)
    conv2d = _Bound(conv2d)
    im2col = _Bound(im2col)
    if TYPE_CHECKING:
        learn_kernel = _Bound(learn_kernel)
    else:  # which takes a while to import

        @property
        def learn_kernel(self):
            """`convlab.learn_kernel` on this backend."""
            return partial(importlib.import_module(".learn", __package__).learn_kernel, backend=self.name)

    @property
    def version(self) -> str:
        """The framework's version."""
        return self.ops.version

    @property
    def Conv2D(self) -> Any:
        """The native layer class; its arguments are those of `convlab.Conv2D`."""
        return self._module("layers").Conv2D

    @property
    def training(self) -> Any:
        """The adapter's module with its `Descent` (`convlab.learn`)."""
        return self._module("training")

    def asarray(self, array: Any, dtype: Any = None) -> Any:
        """A tensor of this framework from an array, a list, or a tensor of this framework.

        >>> from convlab import numpy as lab
        >>> lab.asarray([[1, 2]], dtype="float16")
        array([[1., 2.]], dtype=float16)
        """
        native = self.adapter.is_native(array)
        values = array if native else as_array("array", array)
        if dtype is None:
            dtype = self.ops.dtype(array) if native else values.dtype.name
            dtype = "float32" if dtype == "float64" and isinstance(array, (list, tuple)) else dtype
        name = dtype_name(dtype)
        check_numeric("array", name)
        check_supported(self, name)
        with self.ops.scope(name):
            return self.ops.cast(values, name) if native else self.ops.asarray(values, name)

    def to_numpy(self, x: Any) -> np.ndarray:
        """A tensor's values as a NumPy array (bfloat16 as float32, which is exact)."""
        return self.ops.to_numpy(x) if self.adapter.is_native(x) else np.asarray(x)

    def _module(self, name: str) -> Any:
        return importlib.import_module(f"{self.adapter.package}.{name}")

    def __reduce__(self) -> Any:
        from .registry import backend

        return backend, (self.name,)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name in self.adapter.extras:
            return self._module(name)
        raise AttributeError(f"backend {self.name!r} has no {name!r}")

    def __repr__(self) -> str:
        return f"<convlab backend {self.name!r} on {self.adapter.frameworks[0]} {self.version}>"
