"""Finding, loading and choosing backends."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

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

    from packaging.requirements import Requirement

Function = TypeVar("Function", bound=Callable[..., object])

GROUP = "convlab.backends"
VARIABLE = "CONVLAB_BACKEND"

chosen: ContextVar[str | None] = ContextVar("convlab_backend", default=None)
_adapters: dict[str, Adapter] = {}
_faults: dict[str, ConvlabError] = {}
# Adapters that are being imported right now: they are looked up again afterwards.
_importing: set[str] = set()
_loaded: dict[str, Framework] = {}
_owners: dict[type, str] = {}
_lock = threading.RLock()


def constant_for_dynamo(function: Function) -> Function:
    """Mark a function as one that torch.compile calls and doesn't look into.

    It sets what `torch._dynamo.assume_constant_result` sets, without importing PyTorch.
    """
    vars(function)["_dynamo_marked_constant"] = True
    return function


def adapters() -> dict[str, Adapter]:
    """Every installed adapter by name, found by entry point; loads no framework."""
    _find()
    return _adapters


@constant_for_dynamo
def _find() -> None:
    """Fill `_adapters` and `_faults`. It isn't a functools.cache, about which torch.compile warns."""
    if not _adapters or _importing:
        _importing.clear()
        usable, unusable = discover()
        _adapters.update(usable)
        _faults.update(unusable)


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
    """The installed adapters that can be used, and why the others can't.

    An adapter that fails to load, or two of one name, are faults that leave the others in place.
    """
    from importlib.metadata import entry_points  # deferred: importing it takes a while

    points: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        same = points.setdefault(point.name, [])
        if point.value not in [other.value for other in same]:
            same.append(point)
    usable: dict[str, Adapter] = {}
    unusable: dict[str, ConvlabError] = {}
    for name, same in sorted(points.items()):
        providers = ", ".join(map(_provider, same))
        if len(same) > 1:
            unusable[name] = DuplicateBackendError(
                f"backend {name!r}: got several adapters, {providers}, expected one.", hint="uninstall the others."
            )
            continue
        if getattr(getattr(sys.modules.get(same[0].module), "__spec__", None), "_initializing", False):
            _importing.add(name)
            continue
        try:
            usable[name] = same[0].load()
        except Exception as error:
            unusable[name] = BackendBroken(
                f"backend {name!r}: its adapter {providers} fails to import ({type(error).__name__}: {error}).",
                hint="install that distribution again, or uninstall it.",
            )
            unusable[name].__cause__ = error
    return usable, unusable


def _provider(point: EntryPoint) -> str:
    """What an error says about an entry point: its value and its distribution."""
    distribution = point.dist.name if point.dist else "an unknown distribution"
    return f"{point.value} of {distribution}"


def adapter(name: str) -> Adapter:
    """The adapter of that name or alias, in upper or lower case, or `UnknownBackendError`.

    >>> adapter("NumPy").name
    'numpy'
    """
    known, unusable = adapters(), faults()
    if isinstance(name, str):
        for wanted in (name, name.lower()):
            if wanted in unusable:
                raise unusable[wanted]
            if wanted in known:
                return known[wanted]
        for candidate in known.values():
            if name.lower() in candidate.aliases:
                return candidate
    raise UnknownBackendError(
        f"backend: got {name!r}, expected one of {', '.join(known)}.", hint=_near_backend(name, known)
    )


def _near_backend(name: object, known: dict[str, Adapter]) -> str:
    """The hint of an unknown backend's name."""
    import difflib

    names = {alias: each.name for each in known.values() for alias in (each.name, *each.aliases)}
    near = difflib.get_close_matches(name.lower(), names, 1) if isinstance(name, str) else []
    if near:
        return f"did you mean {near[0]!r}?"
    return f"another backend is found by its entry point in the group {GROUP!r}."


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


@constant_for_dynamo
def _ensure(name: str) -> None:
    """Load a backend's framework unless it is loaded already."""
    if not isinstance(name, str) or name not in _loaded:
        with _lock:
            wanted = adapter(name)
            if wanted.name not in _loaded:
                _loaded[wanted.name] = _load(wanted)
            _loaded[name] = _loaded[wanted.name]


def _load(wanted: Adapter) -> Framework:
    """The backend of an adapter, or an error that says why its framework can't be used."""
    for package in wanted.frameworks:
        if package not in sys.modules and importlib.util.find_spec(package) is None:
            raise BackendNotInstalled(
                f"backend {wanted.name!r}: {package} isn't installed.", hint=install_command(wanted)
            )
    try:
        loaded = Framework(wanted, importlib.import_module(f"{wanted.package}.ops").ops)
    except Exception as error:
        raise BackendBroken(
            f"backend {wanted.name!r}: {wanted.frameworks[0]} is installed and fails to import "
            f"({type(error).__name__}: {error}).",
            hint=install_command(wanted, again=True),
        ) from error
    if _release(loaded.version) < _release(wanted.minimum):
        raise BackendBroken(
            f"backend {wanted.name!r}: got {wanted.frameworks[0]} {loaded.version}, "
            f"expected at least {wanted.minimum}.",
            hint=install_command(wanted, again=True),
        )
    return loaded


def _release(version: str) -> tuple[int, ...]:
    """Major and minor of a version, whether or not it is a final one; nothing, the least, of what is no version."""
    from packaging.version import InvalidVersion, Version

    try:
        return Version(version).release[:2]
    except InvalidVersion:
        return ()


def install_command(wanted: Adapter, *, again: bool = False) -> str:
    """The command that installs a backend's framework into this very environment, or installs it again.

    >>> install_command(adapter("numpy"))
    '... install ...numpy...'
    """
    arguments = wanted.install or _extra(wanted) or wanted.frameworks
    options = ["--upgrade", "--force-reinstall"] if again else []
    return pip_command(*options, *arguments)


def pip_command(*arguments: str) -> str:
    """The command line of `pip install` with these arguments for this very environment."""
    import shlex

    # Not by importlib.util.find_spec, which setuptools hooks.
    if importlib.machinery.PathFinder.find_spec("pip"):
        pip = [sys.executable, "-m", "pip", "install"]
    else:
        pip = ["uv", "pip", "install", "--python", sys.executable]
    return shlex.join([*pip, *arguments])


def _extra(wanted: Adapter) -> tuple[str, ...]:
    """The requirements behind the extra of the backend's name, in the distribution of its adapter, that hold here."""
    from importlib.metadata import entry_points

    from packaging.requirements import Requirement

    for point in entry_points(group=GROUP, name=wanted.name):
        lines = (point.dist.requires if point.dist else None) or []
        return tuple(_without_marker(line) for line in map(Requirement, lines) if _is_of_extra(line, wanted.name))
    return ()


def _is_of_extra(requirement: Requirement, extra: str) -> bool:
    """Whether a requirement holds in this environment with an extra and not without it."""
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def _without_marker(requirement: Requirement) -> str:
    """A requirement as pip's argument."""
    requirement.marker = None
    return str(requirement)


def default_backend() -> str:
    """The backend for arrays of no framework: `use_backend`, else CONVLAB_BACKEND, else NumPy."""
    return chosen.get() or os.environ.get(VARIABLE) or "numpy"


def owner(x: object) -> str | None:
    """The name of the backend whose tensor x is: "numpy" for a NumPy array, None for anything that isn't a tensor."""
    kind = type(x)
    name = _owners.get(kind)
    if name is None and kind not in (list, tuple, int, float, bool, type(None)):
        name = next((known.name for known in adapters().values() if known.is_native(x)), None)
        if name is not None:
            _owners[kind] = name
    return name


def resolve(name: str | None, **arguments: Any) -> Framework:
    """The framework of a call: that of its tensors, else the one that is named, else the default.

    Raises:
        MixedBackendsError: tensors of two frameworks, or of another framework than the one that is named.
    """
    common: str | None = None
    for key, x in arguments.items():
        own = owner(x)
        if own == common or own is None or own == "numpy":
            continue
        named = name is None or adapter(name).name == own
        if common is not None or (not named and not adapter(own).wraps):
            owners = {key: owner(x) for key, x in arguments.items() if owner(x) not in (None, "numpy")}
            got = ", ".join(f"{key} of {other}" for key, other in owners.items())
            wanted = f"backend {name!r}" if name is not None else "one framework"
            raise MixedBackendsError(
                f"{key}: got {got}, expected tensors of {wanted}.",
                hint="convert with convlab.backend(name).asarray(...) and .to_numpy(...).",
            )
        common = own
    return framework(common or (default_backend() if name is None else name))


def inner_backend(name: str | None) -> str:
    """The backend that computes the pieces of a wrapping backend's arrays: the one that is named, else the default.

    A backend that wraps others itself doesn't count; if no other is named, it is NumPy.
    """
    wanted = (name, chosen.get(), os.environ.get(VARIABLE))
    return next((each for each in wanted if each and not adapter(each).wraps), "numpy")
