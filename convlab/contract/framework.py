"""`Framework`: a backend whose framework is loaded, as the core sees it."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from .adapter import Adapter
from .operations import Operations


class Framework:
    """A loaded backend: what its adapter says, its operations and its modules.

    Attributes:
        name: "torch", "jax", …
        adapter: what the backend can do (`convlab.contract.Adapter`).
        ops: the framework's array operations (`convlab.contract.Operations`).
    """

    def __init__(self, adapter: Adapter, ops: Operations) -> None:
        self.name = adapter.name
        self.adapter = adapter
        self.ops = ops

    @property
    def version(self) -> str:
        """The framework's version."""
        return self.ops.version

    @property
    def Conv2D(self) -> Any:
        """The native layer class; its arguments are those of `convlab.Conv2D`."""
        return self.module("layers").Conv2D

    @property
    def training(self) -> Any:
        """The adapter's module with its `Descent` (`convlab.learning.descent`)."""
        return self.module("training")

    def to_numpy(self, x: Any) -> np.ndarray:
        """A tensor's values as a NumPy array (bfloat16 as float32, which is exact)."""
        return self.ops.to_numpy(x) if self.adapter.is_native(x) else np.asarray(x)

    def module(self, name: str) -> Any:
        """A module of the adapter's package, imported on first use."""
        return importlib.import_module(f"{self.adapter.package}.{name}")
