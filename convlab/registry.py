"""Finding, loading and choosing backends."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import re
import sys
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from .contract.adapter import Adapter
from .contract.framework import Framework
from .errors import (
    BackendBroken,
    BackendNotInstalled,
    ConvlabError,
    DuplicateBackendError,
    MixedBackendsError,
    UnknownBackendError,
)

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


GROUP = "convlab.backends"
VARIABLE = "CONVLAB_BACKEND"

chosen: ContextVar[str | None] = ContextVar("convlab_backend", default=None)
_adapters: dict[str, Adapter] = {}
_faults: dict[str, ConvlabError] = {}
_begun: set[str] = set()  # adapters whose own import led here: they will be found when it has ended
_loaded: dict[str, Framework] = {}
_owners: dict[type, str] = {}
_lock = threading.RLock()


def adapters() -> dict[str, Adapter]:
    """Every installed adapter by name, found by entry point; loads no framework."""
    _find()
    return _adapters


def _find() -> None:
    if not _adapters or _begun:  # no functools.cache, which torch.compile warns about
        _begun.clear()
        found, faults = discover()
        _faults.update(faults)
        _adapters.update(found)


def register(adapter: Adapter) -> None:
    """Make an adapter known to this process without an entry point, for trying it out.

    Raises:
        DuplicateBackendError: another adapter has that name.
    """
    if adapters().setdefault(adapter.name, adapter) != adapter:
        raise DuplicateBackendError(
            f"backend {adapter.name!r}: got a second adapter of that name, expected one.", hint="choose another name."
        )


def faults() -> dict[str, ConvlabError]:
    """The names whose adapters can't be used, and why."""
    adapters()
    return _faults


def discover() -> tuple[dict[str, Adapter], dict[str, ConvlabError]]:
    """Look for adapters; one that fails to load, or two of one name, are faults that leave the others in place."""
    from importlib.metadata import entry_points  # which takes a while to import

    points: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        same = points.setdefault(point.name, [])
        if point.value not in [other.value for other in same]:
            same.append(point)
    found: dict[str, Adapter] = {}
    faults: dict[str, ConvlabError] = {}
    for name, same in sorted(points.items()):
        providers = ", ".join(map(_provider, same))
        if len(same) > 1:
            faults[name] = DuplicateBackendError(
                f"backend {name!r}: got several adapters, {providers}, expected one.", hint="uninstall the others."
            )
            continue
        if getattr(getattr(sys.modules.get(same[0].module), "__spec__", None), "_initializing", False):
            _begun.add(name)
            continue
        try:
            found[name] = same[0].load()
        except Exception as error:
            faults[name] = BackendBroken(
                f"backend {name!r}: its adapter {providers} fails to import ({type(error).__name__}: {error}).",
                hint="install that distribution again, or uninstall it.",
            )
            faults[name].__cause__ = error
    return found, faults


def _provider(point: EntryPoint) -> str:
    distribution = point.dist.name if point.dist else "an unknown distribution"
    return f"{point.value} of {distribution}"


def adapter(name: str) -> Adapter:
    """The adapter of that name, or `UnknownBackendError`."""
    known, unusable = adapters(), faults()
    if isinstance(name, str) and name in unusable:
        raise unusable[name]
    if not isinstance(name, str) or name not in known:
        raise UnknownBackendError(
            f"backend: got {name!r}, expected one of {', '.join(known)}.",
            hint=f"another backend is found by its entry point in the group {GROUP!r}.",
        )
    return known[name]


def framework(name: str) -> Framework:
    """The backend of that name, its framework loaded.

    >>> framework("numpy").name
    'numpy'

    Raises:
        UnknownBackendError: no adapter has that name.
        BackendNotInstalled: its framework isn't installed; the hint is the command that installs it.
        BackendBroken: its framework is installed and fails to import; `__cause__` says why.
    """
    _ensure(name)
    return _loaded[name]


def _ensure(name: str) -> None:
    if not isinstance(name, str) or name not in _loaded:
        with _lock:
            found = adapter(name)
            if name not in _loaded:
                _loaded[name] = _load(found)


# torch.compile must call these and not look inside: this is what torch._dynamo.assume_constant_result sets.
_find._dynamo_marked_constant = _ensure._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _load(found: Adapter) -> Framework:
    for package in found.frameworks:
        if package not in sys.modules and importlib.util.find_spec(package) is None:
            raise BackendNotInstalled(
                f"backend {found.name!r}: {package} isn't installed.", hint=install_command(found)
            )
    try:
        loaded = Framework(found, importlib.import_module(f"{found.package}.ops").ops)
    except Exception as error:
        raise BackendBroken(
            f"backend {found.name!r}: {found.frameworks[0]} is installed and fails to import "
            f"({type(error).__name__}: {error}).",
            hint=install_command(found, again=True),
        ) from error
    if _release(loaded.version) < _release(found.minimum):
        raise BackendBroken(
            f"backend {found.name!r}: got {found.frameworks[0]} {loaded.version}, expected at least {found.minimum}.",
            hint=install_command(found, again=True),
        )
    return loaded


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def install_command(found: Adapter, *, again: bool = False) -> str:
    """The command that installs a backend's framework into this very environment, or installs it again.

    >>> install_command(adapter("numpy"))
    '... install ...numpy...'
    """
    arguments = found.install or _extra(found) or found.frameworks
    return pip_command(*(["--upgrade", "--force-reinstall"] if again else []), *arguments)


def pip_command(*arguments: str) -> str:
    """The command line of `pip install` with these arguments for this very environment."""
    import shlex

    if importlib.machinery.PathFinder.find_spec("pip"):  # not importlib.util: setuptools hooks that one
        pip = [sys.executable, "-m", "pip", "install"]
    else:
        pip = ["uv", "pip", "install", "--python", sys.executable]
    return shlex.join([*pip, *arguments])


def _extra(found: Adapter) -> tuple[str, ...]:
    """The requirements behind the extra of the backend's name, in the distribution of its adapter."""
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP, name=found.name):
        lines = (point.dist.requires if point.dist else None) or []
        wanted = [line.split(";") for line in lines if f"extra == '{found.name}'" in line.replace('"', "'")]
        return tuple(line[0].strip() for line in wanted)
    return ()


def default_backend() -> str:
    """The backend for arrays of no framework: `use_backend`, else CONVLAB_BACKEND, else NumPy."""
    return chosen.get() or os.environ.get(VARIABLE) or "numpy"


def owner(x: object) -> str | None:
    """The name of the backend whose tensor x is; "numpy" for NumPy arrays, None for what is no tensor."""
    kind = type(x)
    name = _owners.get(kind)
    if name is None and kind not in (list, tuple, int, float, bool, type(None)):
        name = next((each.name for each in adapters().values() if each.is_native(x)), None)
        if name is not None:
            _owners[kind] = name
    return name


def resolve(name: str | None, **arguments: Any) -> Framework:
    """The backend of a call: the tensors' own, else the one that is named, else the default.

    Raises:
        MixedBackendsError: tensors of two frameworks, or of another one than the named.
    """
    found: str | None = None
    for key, x in arguments.items():
        mine = owner(x)
        if mine == found or mine is None or mine == "numpy":
            continue
        if found is not None or (name is not None and name != mine and not adapter(mine).wraps):
            owners = {key: owner(x) for key, x in arguments.items() if owner(x) not in (None, "numpy")}
            got = ", ".join(f"{key} of {other}" for key, other in owners.items())
            wanted = f"backend {name!r}" if name is not None else "one framework"
            raise MixedBackendsError(
                f"{key}: got {got}, expected tensors of {wanted}.",
                hint="convert with convlab.backend(name).asarray(...) and .to_numpy(...).",
            )
        found = mine
    return framework(found or (default_backend() if name is None else name))


def inner_backend(name: str | None) -> str:
    """The backend that computes the pieces of a wrapping backend's arrays: the one that is named, else the default.

    One that wraps others itself doesn't count; if nothing else is said, it is NumPy.
    """
    wanted = (name, chosen.get(), os.environ.get(VARIABLE))
    return next((each for each in wanted if each and not adapter(each).wraps), "numpy")
