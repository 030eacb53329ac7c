"""The cost of each variant: from this machine's table, or one of convlab's own.

A table has entries `"<variant> <part> <kind>": [fixed, per_pixel, per_work]`, in microseconds and nanoseconds, for each
backend and version of its framework (see `convlab.planning.choose`). Costs belong to a processor. `costs.json` beside
this file has one table for AVX-512 and one for AVX2, whose ratios, which are all that matters, hold roughly on all
processors that have these instructions. The user's table, which `convlab tune` writes to the cache folder, belongs to
one version of convlab and one processor. On a processor with neither, a backend is measured for some seconds when it
is first needed, and the result is kept in the user's table.
"""

from __future__ import annotations

import contextlib
import functools
import json
import platform
import threading
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from ..atomic import whole
from ..compiled import threads
from ..compiled.instructions import instruction_set
from .caches import cleared_with_costs, forget_costs
from .on_need import MEASURE, Table

FORMAT = 2
# The bound of a constant. Every NaN and every int, however long, compares with it correctly.
_MOST = 1e300
# How many units of the file a second is, for each constant.
_UNITS = 1e6, 1e9, 1e9
_SHIPPED = Path(__file__).with_name("costs.json")
_measuring = threading.RLock()
# For each backend and version of its framework, the table that this process uses.
_IN_USE: dict[tuple[str, str], Source] = {}


class Source(NamedTuple):
    """A table, and where it comes from, in words."""

    table: Table
    name: str


def table(backend: str, version: str, may_measure: bool = False) -> Table:
    """The constants of a backend's variants, in seconds; the same for the whole process.

    `may_measure` allows to measure them if convlab has none for this processor's instructions.
    """
    return source(backend, version, may_measure).table


def source(backend: str, version: str, may_measure: bool = False) -> Source:
    """The table that `table` returns, and its name."""
    if (backend, version) not in _IN_USE:
        with _measuring:
            _IN_USE.setdefault((backend, version), _source(backend, version, may_measure))
    return _IN_USE[backend, version]


def _source(backend: str, version: str, may_measure: bool) -> Source:
    measured, instructions = _measured(backend, version), instruction_set()
    if measured:
        return Source(measured, f"this machine's, {user_file()}")
    shipped = {name: tables.get(backend, {}) for name, tables in _shipped().items()}
    if instructions in shipped:
        return Source(shipped[instructions], f"convlab's for {instructions}")
    if may_measure and MEASURE and shipped["AVX2"]:
        # Until they are known, what is measured is computed by the costs of another processor.
        _IN_USE[backend, version] = Source(shipped["AVX2"], "convlab's for AVX2, while this machine is measured")
        try:
            constants = MEASURE[0](backend)
            with contextlib.suppress(OSError):
                save_costs({backend: version}, {backend: constants})
        finally:
            forget_costs()
        return Source(constants, "this machine's, measured when it was first needed")
    return Source(shipped["AVX2"], "convlab's for AVX2, as this processor's isn't known")


def user_file() -> Path:
    """The file that `convlab tune` writes."""
    from platformdirs import user_cache_path

    return user_cache_path("convlab", appauthor=False) / "wisdom.json"


@functools.cache
def processor() -> str:
    """This machine's processor and its number of threads: a table is of no use where they differ."""
    # The settings of numba may choose other instructions than the processor's best.
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {instruction_set()}, {threads.available()} threads"


def save_costs(versions: dict[str, str], tables: dict[str, Table], path: Path | None = None) -> Path:
    """Write the tables of some backends, whose frameworks have these versions, beside those already in the file."""
    path = path or user_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    backends = {}
    if path.exists():
        # A file that can't be read is replaced.
        with contextlib.suppress(ValueError):
            backends = _read(path)["backends"]
    for name, table in tables.items():
        constants = {
            key: [float(f"{unit * value:.3g}") for unit, value in zip(_UNITS, values, strict=True)]
            for key, values in table.items()
        }
        backends[name] = {**backends.get(name, {}), versions[name]: constants}
    with whole(path) as part:
        part.write_text(json.dumps({**_stamp(), "backends": backends}, indent=1))
    forget_costs()
    return path


@functools.cache
def _measured(backend: str, version: str) -> Table:
    return _table(_user().get(backend, {}).get(version, {}))


@functools.cache
def _user() -> dict[str, Any]:
    path = user_file()
    if not path.exists():
        return {}
    try:
        content = _read(path)
    except (ValueError, OSError) as error:
        _warn(str(error))
        return {}
    return dict(content["backends"])


@functools.cache
def _shipped() -> dict[str, dict[str, Table]]:
    """For each set of instructions the tables of the backends."""
    content = json.loads(_SHIPPED.read_text())
    return {
        instructions: {
            name: _table(constants) for name, tables in entry["backends"].items() for constants in tables.values()
        }
        for instructions, entry in content.items()
    }


def _read(path: Path) -> Any:
    """The file's content, or a ValueError that says what is wrong with it."""
    try:
        content = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"it isn't JSON ({error})") from None
    for key, value in _stamp().items():
        actual = content.get(key) if isinstance(content, dict) else None
        if actual != value:
            raise ValueError(f"its {key} is {actual!r}, not {value!r}")
    backends = content.get("backends")
    if not isinstance(backends, dict) or not all(map(_is_entry, backends.values())):
        raise ValueError("its tables are damaged")
    return content


def _stamp() -> dict[str, Any]:
    """The entries that a file must have to be used here."""
    return {"format": FORMAT, "convlab": metadata.version("convlab"), "processor": processor()}


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not all(isinstance(constants, dict) for constants in entry.values()):
        return False
    return all(_are_constants(values) for constants in entry.values() for values in constants.values())


def _are_constants(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) == 3
        and all(type(value) in (int, float) and 0 <= value < _MOST for value in values)
    )


def _table(constants: dict[str, list[float]]) -> Table:
    return {
        key: tuple(value / unit for unit, value in zip(_UNITS, values, strict=True))  # type: ignore[misc]
        for key, values in constants.items()
    }


def _warn(why: str) -> None:
    warnings.warn(
        f"convlab ignores the table of this machine's speed, {user_file()}: {why}. Hint: run `convlab tune` again.",
        RuntimeWarning,
        stacklevel=2,
    )


for _clear in (_user.cache_clear, _measured.cache_clear, _shipped.cache_clear, _IN_USE.clear):
    cleared_with_costs(_clear)
