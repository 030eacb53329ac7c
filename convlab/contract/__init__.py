"""What a backend is: the contract between convlab and an adapter package.

An adapter is a package with

- an `Adapter` in its framework-free `__init__.py`, named by an entry point of the group `convlab.backends`;
- a module `ops` with an instance of `Operations`, also called `ops`;
- a module `layers` with a native layer class `Conv2D`, built from a `convlab.contract.layer.LayerSpec`;
- a module `training` with a class `Descent` and a function `draw` (see `convlab.learning.descent`). A backend whose
  images can't be read as a whole also has `statistics` and `identity` there (see `convlab.learning.moments`).

Adapters import convlab and their framework, never one another.
"""

from __future__ import annotations

from .adapter import Adapter, is_instance
from .operations import Operations

__all__ = ["Adapter", "Operations", "is_instance"]
