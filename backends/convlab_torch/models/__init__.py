"""PyTorch's layers, read, built and run: see `convlab.models.adapters.Models`."""

from __future__ import annotations

from .build import assemble, build
from .read import read
from .run import gradients, run
from .source import source
from .state import fill, load, save, weights, with_weights

BUILTIN = True
SAME = False
LAYOUT = "NCHW"
FILES = (".pt", ".pth")
