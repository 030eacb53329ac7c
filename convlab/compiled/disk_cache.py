"""Where compiled kernels are kept: in one folder of the user's cache, by the content of the sources.

numba keeps code beside each source, and looks only at that file's time. Here all environments share what one of them
has compiled, and a change of any file makes all code new. NUMBA_CACHE_DIR names another folder.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # numba's type hints are incomplete
    numba: Any
    llvmlite: Any
    caching: Any
    CFunc: Any
else:
    import llvmlite
    import numba
    from numba.core import caching
    from numba.core.ccallback import CFunc


def kept(function: Callable[..., Any], compiled: Any) -> Any:
    """What numba makes of a function, with a cache on disk if there is a place to write to."""
    try:
        compiled._cache = _Cache(function)
    except (RuntimeError, AttributeError):
        # There is no place, or numba has lost a name.
        return compiled
    return compiled


def c_function(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Make Python functions C functions of a numba signature, which never take the interpreter's lock.

    Their code is kept on disk if possible. They mustn't raise errors.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        kind = numba.core.sigutils.normalize_signature(signature)
        code = kept(function, CFunc(function, kind, locals={}, options={"error_model": "numpy"}))
        code.compile()
        return code

    return compiled


class _Locator(caching._CacheLocator if not TYPE_CHECKING else object):  # type: ignore[misc]
    """numba's question where to keep the code of one function."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        self._py_file = file
        self._line = function.__code__.co_firstlineno

    def get_cache_path(self) -> str:
        return str(_folder())

    def get_source_stamp(self) -> str:
        return hashlib.sha256(Path(self._py_file).read_bytes()).hexdigest()

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> _Locator | None:
        locator = cls(function, file)
        try:
            locator.ensure_cache_path()
        except OSError:
            return None
        return locator


class _Implementation(caching.CompileResultCacheImpl if not TYPE_CHECKING else object):  # type: ignore[misc]
    _locator_classes = (_Locator,)


class _Cache(caching.FunctionCache if not TYPE_CHECKING else object):  # type: ignore[misc]
    _impl_class = _Implementation


@functools.cache
def _folder() -> Path:
    from platformdirs import user_cache_path

    base = os.environ.get("NUMBA_CACHE_DIR")
    place = Path(base) if base else user_cache_path("convlab", appauthor=False) / "kernels"
    content = hashlib.sha256()
    for version in (numba.__version__, llvmlite.__version__, sys.version):
        content.update(version.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        content.update(source.read_bytes())
    return place / f"convlab-{content.hexdigest()[:16]}"
