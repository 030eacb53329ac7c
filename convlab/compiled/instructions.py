"""Which vector instructions the compiled kernels use; numba needn't be imported to know."""

from __future__ import annotations

import functools
import importlib
import os
from typing import Literal

InstructionSet = Literal["AVX-512", "AVX2", "other"]

# What LLVM calls some processors that have AVX2 and no AVX-512.
_AVX2 = ("haswell", "broadwell", "skylake", "znver1", "znver2", "znver3", "x86-64-v3")


@functools.cache
def instruction_set() -> InstructionSet:
    """What numba compiles for: by its settings NUMBA_CPU_FEATURES and NUMBA_CPU_NAME, else what this machine has.

    >>> instruction_set() in ("AVX-512", "AVX2", "other")
    True
    """
    settings = os.environ.get("NUMBA_CPU_FEATURES")
    if settings is not None:
        features = {name[1:] for name in settings.split(",") if name.startswith("+")}
        if os.environ.get("NUMBA_CPU_NAME") in _AVX2:
            features.add("avx2")
    else:
        features = {name.lower() for name, present in _numpys().items() if present}
    return "AVX-512" if "avx512f" in features else "AVX2" if "avx2" in features else "other"


def _numpys() -> dict[str, bool]:
    """The processor's features as NumPy finds them: none where it has lost the name."""
    for package in ("numpy._core", "numpy.core"):
        try:
            return dict(importlib.import_module(f"{package}._multiarray_umath").__cpu_features__)
        except (ImportError, AttributeError):
            continue
    return {}
