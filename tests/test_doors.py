"""The three doors to a backend, their errors, and what importing convlab costs."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

import convlab
from convlab import errors, registry
from convlab import lab as lab_room

FRAMEWORKS = ("torch", "mxnet", "jax", "flax", "tensorflow", "keras", "dask")
# What `import convlab` may load of itself, and of the standard library if NumPy hasn't: nothing that reads files,
# starts threads or learns, which would take several times as long.
IMPORTED = """
    algorithms algorithms.adjoint algorithms.border algorithms.fourier algorithms.phase algorithms.reproducible
    algorithms.taps chapter compiled compiled.instructions compiled.kernels compiled.reproducible compiled.threads
    compiled.tiling contract contract.adapter contract.arrays contract.autograd contract.call contract.framework
    contract.layer contract.memory contract.operations contract.rule contract.tracing contract.transforms
    correlation correlation.arguments correlation.call correlation.compute correlation.corr2d correlation.decide
    correlation.explain correlation.images correlation.integers correlation.matrix correlation.on_host
    correlation.repeated correlation.transposed dtypes errors filters filters.blurs filters.edges filters.parameters
    filters.parse filters.restoration geometry geometry.checks geometry.geometry geometry.limits geometry.lower
    geometry.names geometry.options geometry.receptive geometry.transposed lab planning planning.caches
    planning.choose planning.execute planning.large_fft planning.on_need reference registry
"""
STANDARD = """
    __future__ collections contextlib contextvars copy ctypes dataclasses functools importlib itertools math numbers os
    re threading types typing warnings
"""


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_is_cheap_and_loads_no_framework() -> None:
    """Counted in modules, since time depends on what else the machine does."""
    code = """
        import sys, numpy
        import contextvars, typing  # with the private modules behind them, which old NumPys don't import
        before = set(sys.modules)
        import convlab
        imported = set(sys.modules) - before
        convlab.corr2d([[1.0]], [[1.0]])
        print(*imported, "|", *{name.partition(".")[0] for name in sys.modules})
    """
    imported, _, used = run(code).partition("|")
    own = {name for name in imported.split() if name.startswith("convlab.")}
    assert own <= {f"convlab.{name}" for name in IMPORTED.split()}
    assert {name.partition(".")[0] for name in imported.split()} - {"convlab"} <= {*STANDARD.split()}
    assert not {"scipy", "numba", "typer", "rich", *FRAMEWORKS} & set(used.split())


def test_by_tensor(lab) -> None:
    y = convlab.corr2d(lab.asarray(np.eye(3, dtype="float32")), [[1, -1]])
    assert registry.owner(y) == lab.name
    assert lab.to_numpy(y).tolist() == [[1, 0], [-1, 1], [0, -1]]


ALIASES = {
    "torch": ["pytorch", "PyTorch", "TORCH"],
    "jax": ["flax", "JAX"],
    "tensorflow": ["keras", "tf", "TensorFlow"],
    "mxnet": ["gluon", "mx", "MXNet"],
    "numpy": ["NumPy"],
}


def test_by_another_name(lab) -> None:
    for alias in ALIASES.get(lab.name, []):
        assert convlab.backend(alias) is lab
        assert registry.owner(convlab.corr2d([[1.0, 2.0]], [[1.0, 1.0]], backend=alias)) == lab.name
        x = lab.asarray([[1.0, 2.0]])
        assert lab.to_numpy(convlab.corr2d(x, [[1.0, 1.0]], backend=alias)).tolist() == [[3.0]]
        with convlab.use_backend(alias):
            assert registry.owner(convlab.corr2d([[1.0]], [[1.0]])) == lab.name
        namespace: dict = {}
        exec(f"from convlab import {alias} as lab", namespace)
        assert namespace["lab"] is lab


@pytest.mark.parametrize(("name", "near"), [("pytroch", "'pytorch'"), ("kera", "'keras'"), ("numpi", "'numpy'")])
def test_names_near_a_backends(name, near) -> None:
    with pytest.raises(errors.UnknownBackendError, match=f"got '{name}', expected one of .*did you mean {near}?"):
        convlab.backend(name)


class Picture:
    """What NumPy reads by `__array_interface__` alone, as old images of Pillow."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.__array_interface__ = pixels.__array_interface__


def test_whatever_numpy_reads_is_an_image(lab) -> None:
    pixels = np.arange(12, dtype="uint8").reshape(3, 4)
    for image in (Picture(pixels), memoryview(pixels)):
        y = convlab.corr2d(image, lab.asarray([[1.0, 1.0]]))
        assert lab.to_numpy(y).tolist() == [[1, 3, 5], [9, 11, 13], [17, 19, 21]]
    y = lab.corr2d([Picture(pixels), Picture(pixels)], [[1, 1]])
    assert lab.to_numpy(y).tolist() == [[[1, 3, 5], [9, 11, 13], [17, 19, 21]]] * 2


def test_by_import(lab) -> None:
    namespace: dict = {}
    exec(f"from convlab import {lab.name} as lab", namespace)
    assert namespace["lab"] is lab is convlab.backend(lab.name) is getattr(convlab, lab.name)
    assert f"{lab.name!r}" in repr(lab)
    assert lab.version
    assert lab.ops.devices()
    assert pickle.loads(pickle.dumps(lab)) is lab
    assert "stride" in lab.corr2d.func.__doc__


def test_by_default(lab, monkeypatch) -> None:
    X, K = np.eye(3), [[1.0, -1.0]]
    assert registry.owner(convlab.corr2d(X, K)) == "numpy"
    assert registry.owner(convlab.corr2d(X, K, backend=lab.name)) == lab.name
    with convlab.use_backend(lab.name) as same:
        assert same is lab
        assert registry.owner(convlab.corr2d(X, K)) == lab.name
        with convlab.use_backend("numpy"):
            assert registry.owner(convlab.corr2d(X, K)) == "numpy"
    monkeypatch.setenv("CONVLAB_BACKEND", lab.name)
    assert registry.owner(convlab.corr2d(X, K)) == lab.name
    assert type(convlab.Conv2D(3)) is lab.Conv2D
    with convlab.use_backend("numpy"):
        assert registry.owner(convlab.corr2d(X, K)) == "numpy"


def test_the_default_belongs_to_its_thread_and_task(monkeypatch) -> None:
    """A choice is seen by the tasks that are started within it, not by other tasks and threads."""
    monkeypatch.setenv("CONVLAB_BACKEND", "elsewhere")
    seen: dict[str, str] = {}

    def look(where: str) -> None:
        seen[where] = registry.default_backend()

    async def task(where: str, started: asyncio.Event) -> None:
        await started.wait()
        look(where)

    async def main() -> None:
        event = asyncio.Event()
        outside = asyncio.create_task(task("task outside", event))
        with convlab.use_backend("numpy"):
            inside = asyncio.create_task(task("task inside", event))
            event.set()
            await asyncio.sleep(0)
            thread = threading.Thread(target=look, args=("thread",))
            thread.start()
            thread.join()
        await asyncio.gather(outside, inside)

    asyncio.run(main())
    assert seen == {"task outside": "elsewhere", "task inside": "numpy", "thread": "elsewhere"}


def test_dtypes_follow_one_table(lab) -> None:
    ones, f16, f32, f64, u8 = np.ones((2, 2)), "float16", "float32", "float64", "uint8"
    table = [
        ((f16, f32), f32),
        ((f32, f64), f64),
        ((u8, f16), f16),
        ((f64, u8), f64),
        (("int8", "int64"), "int64"),
        (("bool", u8), "int64"),
    ]
    for (x, k), expected in table:
        y = convlab.corr2d(lab.asarray(ones, x), lab.asarray(ones, k))
        assert lab.ops.dtype(y) == expected
        assert lab.to_numpy(y).tolist() == [[4]]
    if lab.name != "numpy" and "bfloat16" in lab.adapter.dtypes:
        y = convlab.corr2d(lab.asarray(ones, f16), lab.asarray(ones, "bfloat16"))
        assert lab.ops.dtype(y) == f32
    # lists are weak; so are NumPy arrays beside another framework's tensor
    assert lab.ops.dtype(convlab.corr2d(lab.asarray(ones, f16), [[0.5]])) == f16
    assert lab.ops.dtype(convlab.corr2d(lab.asarray(ones, u8), [[0.5]])) == f32
    assert lab.ops.dtype(convlab.corr2d(lab.asarray(ones, f32), [[1]], bias=0.5)) == f32
    beside = convlab.corr2d(lab.asarray(ones, f32), np.ones((1, 1), f64))
    assert lab.ops.dtype(beside) == (f64 if lab.name == "numpy" else f32)
    assert lab.ops.dtype(lab.corr2d([[1, 2]], [[1, 1]])) == "int64"
    assert lab.ops.dtype(lab.corr2d([[1.0, 2.0]], [[1, 1]])) == f32
    assert lab.ops.dtype(lab.corr2d(np.ones((2, 2)), np.ones((1, 1)))) == f64


def test_empty_batches(lab) -> None:
    assert lab.ops.shape(lab.corr2d(np.ones((0, 5, 6)), np.ones((2, 2)))) == (0, 4, 5)
    assert lab.ops.shape(lab.corr2d(np.ones((2, 0, 5, 6)), np.ones((2, 2)))) == (2, 0, 4, 5)
    X, K = np.ones((0, 3, 5, 6), "float32"), np.ones((4, 3, 2, 2), "float32")
    assert lab.ops.shape(lab.corr2d(X, K, padding="same", padding_mode="reflect", bias=np.ones(4))) == (0, 4, 5, 6)
    assert lab.ops.shape(lab.corr2d(X.astype(int), K.astype(int))) == (0, 4, 4, 5)
    # an image of no pixels, padded with zeros
    assert lab.to_numpy(lab.corr2d(np.ones((2, 0, 3)), np.ones((2, 2)), padding=1, bias=7)).tolist() == [[[7] * 4]] * 2


def test_big_endian_views_and_readonly_arrays(lab) -> None:
    X = np.arange(24, dtype=">f4").reshape(4, 6)[::-1, ::2]
    X.flags.writeable = False
    y = lab.to_numpy(lab.corr2d(X, np.array([[1, 1]], ">i2")))
    assert y.tolist() == (X[:, :-1] + X[:, 1:]).tolist()


# Errors.


def test_unknown_backends() -> None:
    with pytest.raises(errors.UnknownBackendError, match="got 'theano', expected one of dask, jax, mxnet"):
        convlab.corr2d([[1]], [[1]], backend="theano")
    with pytest.raises(ImportError, match="cannot import name 'theano'"):
        exec("from convlab import theano")
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        convlab.nonsense  # noqa: B018


def test_absent_and_broken_are_two_errors(tmp_path) -> None:
    """A framework that is absent, one that fails to import, and one that lacks a module of its own."""
    absent = """
        import importlib.util, sys
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name == "torch" else find(name, *rest)
        import convlab
        try: from convlab import torch
        except convlab.errors.BackendNotInstalled as error: print(isinstance(error, ModuleNotFoundError), error)
    """
    printed = run(absent)
    assert printed.startswith("True backend 'torch': torch isn't installed. Hint: ")
    assert "-m pip install 'torch>=" in printed
    broken = tmp_path / "torch"
    broken.mkdir()
    (broken / "__init__.py").write_text("import a_module_that_is_not_there")
    printed = run(
        """
        import convlab
        try: convlab.backend("torch")
        except ModuleNotFoundError: raise
        except convlab.errors.BackendBroken as error: print(type(error.__cause__).__name__, error)
        """,
        PYTHONPATH=str(tmp_path),
    )
    assert printed.startswith("ModuleNotFoundError backend 'torch': torch is installed and fails to import (")
    assert "No module named 'a_module_that_is_not_there'" in printed


def test_an_old_framework_is_refused(lab, monkeypatch) -> None:
    from dataclasses import replace

    monkeypatch.setattr(registry, "_loaded", {})
    monkeypatch.setattr(lab_room, "_BACKENDS", {})
    monkeypatch.setitem(registry._adapters, lab.name, replace(lab.adapter, minimum="9999.0"))
    with pytest.raises(errors.BackendBroken, match=r"expected at least 9999\.0"):
        convlab.backend(lab.name)


def third_party(folder: Path, number: int, name: str, value: str, *requirements: str) -> None:
    info = folder / f"third_party_{number}-1.0.dist-info"
    info.mkdir()
    lines = "".join(f"Requires-Dist: {requirement}\n" for requirement in requirements)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: third-party-{number}\nVersion: 1.0\n{lines}")
    (info / "entry_points.txt").write_text(f"[convlab.backends]\n{name} = {value}\n")


def test_two_providers_of_one_name_and_a_broken_one(tmp_path) -> None:
    """Faults of third-party adapters are told when they are asked for, and leave the others alone."""
    third_party(tmp_path, 1, "fancy", "package_1:adapter")
    third_party(tmp_path, 2, "fancy", "package_2:adapter")
    third_party(tmp_path, 3, "missing", "package_3:adapter")
    printed = run(
        """
        import convlab
        print(convlab.corr2d([[1, 2]], [[1, 1]]))
        for name in ("fancy", "missing"):
            try: convlab.backend(name)
            except convlab.errors.ConvlabError as error: print(type(error).__name__, error)
        """,
        PYTHONPATH=str(tmp_path),
    )
    computed, fancy, missing = printed.splitlines()
    assert computed == "[[3]]"
    assert fancy.startswith("DuplicateBackendError backend 'fancy': got several adapters, package_")
    assert "package_1:adapter of third-party-1" in fancy
    assert "package_2:adapter of third-party-2" in fancy
    assert missing.startswith("BackendBroken backend 'missing': its adapter package_3:adapter of third-party-3 fails")


def test_the_hint_installs_the_requirements_that_hold_here(tmp_path) -> None:
    requirements = (
        "always>=1",
        'fancy[fast]<3,>=2; extra == "fancy"',
        "elsewhere; python_version < '3' and extra == 'fancy'",
        "another; extra == 'other'",
    )
    third_party(tmp_path, 4, "fancy", "package_4:adapter", *requirements)
    (tmp_path / "package_4.py").write_text(
        "from convlab.contract import Adapter\n"
        "adapter = Adapter('fancy', 'package_4', ('an_absent_framework',), lambda x: False, '1.0', ('float32',))\n"
    )
    printed = run(
        """
        import convlab
        try: convlab.backend("fancy")
        except convlab.errors.BackendNotInstalled as error: print(error)
        """,
        PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    )
    assert printed.startswith("backend 'fancy': an_absent_framework isn't installed. Hint: ")
    assert printed.endswith("install 'fancy[fast]<3,>=2'")


# Packaging.

ROOT = Path(__file__).parent.parent


def test_folders_wheel_packages_and_entry_points_are_the_same() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = {path.name.removeprefix("convlab_") for path in (ROOT / "backends").glob("convlab_*")}
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {p.removeprefix("backends/convlab_") for p in packages} - {"convlab"} == folders
    assert set(project["project"]["entry-points"][registry.GROUP]) == folders
    assert {point.name for point in importlib.metadata.entry_points(group=registry.GROUP)} >= folders
    assert importlib.metadata.version("convlab") == convlab.__version__


def test_adapters_import_no_framework_and_not_each_other() -> None:
    for path in (ROOT / "backends").rglob("*.py"):
        own = path.parent.name
        for line in path.read_text().splitlines():
            if line.strip().startswith(("import ", "from ")):
                words = line.replace(",", " ").split()
                assert not [w for w in words if w.startswith("convlab_") and w != own], (path, line)
    assert run("import sys, convlab; convlab.adapters(); print('torch' in sys.modules)") == "False"


def test_adapters_say_what_they_can(lab) -> None:
    """The capability flags are true: the dtypes compute, the gradients are there or refused."""
    for dtype in lab.adapter.dtypes:
        if dtype == "bfloat16" and lab.name == "numpy" and not importlib.util.find_spec("ml_dtypes"):
            continue  # NumPy has no bfloat16 of its own: it comes in arrays of ml_dtypes, where that is installed
        y = lab.corr2d(lab.asarray([[1, 2]], dtype), lab.asarray([[3, 4]], dtype))
        assert lab.ops.dtype(y) == dtype
        assert lab.to_numpy(y).tolist() == [[11]]
    missing = {"bfloat16", "complex64"} - set(lab.adapter.dtypes)
    for dtype in missing:
        with pytest.raises(errors.DTypeError, match=f"got dtype {dtype}, expected integers or one of"):
            lab.asarray([[1]], dtype)


def test_an_adapter_can_be_imported_first(backends) -> None:
    """Its import leads to convlab, which looks for adapters before this one is there."""
    for name in backends:
        code = (
            f"import convlab_{name}, convlab; print(sorted(convlab.registry.faults()), {name!r} in convlab.adapters())"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["[]", "True"]


def test_dir_lists_what_is_loaded_on_first_use_without_loading_it() -> None:
    code = "import sys, convlab; print(*dir(convlab)); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, modules = (set(line.split()) for line in done.stdout.splitlines())
    assert {"corr2d", "port", "compare", "save", "load", "port_weights", "learn_kernel", "testing"} <= names
    assert {"numpy", "torch", "mxnet", "jax", "tensorflow"} <= names
    assert not {"torch", "mxnet", "jax", "tensorflow", "convlab.models", "convlab.testing"} & modules
