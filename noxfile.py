#!/usr/bin/env -S python -m nox -f
# /// script
# dependencies = ["nox>=2025.2.9"]
# ///
"""Test sessions: one for each framework in an environment of its own, and all in one process.

`nox` runs everything; `nox -s torch` one session; `nox -s parity -- -k golden` passes arguments on to pytest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"  # pip reads the constraints and local builds that uv doesn't see
nox.options.error_on_missing_interpreters = True
nox.options.stop_on_first_error = False

ROOT = Path(__file__).parent
CONSTRAINTS = str(ROOT / "constraints.txt")
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
TESTS = nox.project.dependency_groups(PROJECT, "test")
LINTERS = nox.project.dependency_groups(PROJECT, "lint")
SITE = nox.project.dependency_groups(PROJECT, "site")
DEVELOPING = nox.project.dependency_groups(PROJECT, "dev")
NOTEBOOKS = nox.project.dependency_groups(PROJECT, "notebooks")
LITE = nox.project.dependency_groups(PROJECT, "lite")
# Tests that run with NumPy alone, whatever else is installed, and those that run with each backend.
WITHOUT_FRAMEWORKS = (
    *(f"tests/test_{name}.py" for name in ("house", "project", "site", "oracle", "archive", "moments", "host")),
    "tests/diagnosis",
)
CORE = (
    *WITHOUT_FRAMEWORKS,
    *(f"tests/{name}.py" for name in ("test_filters", "test_large_numbers", "test_doors", "test_explorer")),
    "tests/parity",
    "tests/frameworks/test_numpy_models.py",
)
PHOTOGRAPHS = ("image", "plot")
# All extras but MXNet's, and what some tests need beside them.
EXTRAS = ("torch", "jax", "tensorflow", "dask", "onnx", *PHOTOGRAPHS)
BESIDE = ("optax", "requests", "scikit-image", "setuptools")
TOGETHER = "numpy,torch,mxnet,jax,tensorflow"
# The tests of parity but for those that compare several backends.
ONE_BY_ONE = tuple(
    f"tests/parity/{path.name}"
    for path in sorted(ROOT.glob("tests/parity/test_*.py"))
    if path.stem not in ("test_parity", "test_errors")
)
# What the sessions of the frameworks and `docs` have run.
ELSEWHERE = tuple(f"--ignore={path}" for path in ("tests/frameworks", *WITHOUT_FRAMEWORKS, *ONE_BY_ONE))
SUMMING = tuple(f"tests/parity/test_{name}.py" for name in ("parity", "same_bits", "learning"))
AGREEING = SUMMING[:2]
PORTING = tuple(
    f"tests/frameworks/test_{name}_models.py"
    for name in ("torch", "mxnet", "mxnet_layer", "jax", "tensorflow", "tensorflow_layer")
)

BUILT: list[Path] = []


def build_wheel(session: nox.Session) -> Path:
    """convlab's wheel, which the first session builds for all."""
    if not BUILT:
        out = (session.cache_dir / "wheel").absolute()
        shutil.rmtree(out, ignore_errors=True)
        session.install("build")
        session.run("python", "-m", "build", "--wheel", "--outdir", str(out), str(ROOT), silent=True)
        BUILT.extend(out.glob("*.whl"))
    return BUILT[0]


def install(session: nox.Session, *extras: str, also: tuple[str, ...] = ()) -> None:
    """Install the built wheel, not the source tree, with the extras and whatever the tests need beside them."""
    wheel = build_wheel(session)
    extra = f"[{','.join(extras)}]" if extras else ""
    # Most modules of the frameworks are never imported.
    session.install("--no-compile", "--constraint", CONSTRAINTS, f"{wheel}{extra}", *TESTS, *also)


def run_tests(session: nox.Session, backends: str, *paths: str, under: tuple[str, ...] = ()) -> None:
    """Run pytest, perhaps under another program; a backend that is named here and doesn't load fails."""
    files = [*session.posargs] or paths
    # The sessions share what XLA and numba have compiled: most of their time.
    session.env["NUMBA_CACHE_DIR"] = str((session.cache_dir / "numba").absolute())
    session.env.update(
        JAX_COMPILATION_CACHE_DIR=str((session.cache_dir / "jax").absolute()),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
    )
    # Two processes, file by file: most tests keep one core busy, and each process takes gigabytes.
    workers = ("--numprocesses", "2", "--dist", "loadfile")
    # Not `python -m pytest`, which would put the source tree before the installed wheel. --pyargs names packages.
    pytest = str(Path(session.bin) / "pytest")
    session.run(*under, pytest, "--quiet", *workers, "--backends", backends, "--pyargs", *files)


def private_cache(session: nox.Session) -> None:
    """From here on, convlab keeps what it measures in the session's own folder, not in the user's."""
    # It must be absolute: what is relative doesn't count, and nox gives a relative one.
    session.env["XDG_CACHE_HOME"] = str(Path(session.create_tmp()).absolute())


def discard(session: nox.Session) -> None:
    """On a CI machine, remove the environment of a session that passed: together they fill 12 GB of disk."""
    if os.environ.get("CI"):
        shutil.rmtree(session.virtualenv.location)


def check_types(session: nox.Session, name: str) -> None:
    """Mypy in strict mode on an adapter, beside its framework, without which all types would be Any."""
    session.install("--constraint", CONSTRAINTS, "mypy")
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "backends")))
    session.run("mypy", "--strict", f"backends/convlab_{name}", env={"MYPYPATH": paths})


def framework(session: nox.Session, name: str, *also: str, current: bool = True) -> None:
    """One framework beside NumPy, with its own tests and its adapter's doctests.

    On current releases these are all tests of parity, and its types are checked; older ones have the central tests.
    """
    own = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(f"tests/frameworks/test_{name}*.py"))
    shared = ("tests/parity",) if current else (*AGREEING, "tests/parity/test_dtypes.py")
    run_tests(session, name, *shared, "tests/test_doors.py", *own, f"convlab_{name}", *also)
    if name != "dask":  # which has no models; pairs of frameworks belong to `parity`
        exporting = () if name == "mxnet" else ("tests/exporting/test_onnx.py",)
        files = ("test_files.py", "test_hostile.py", "test_symbol_files.py")
        run_tests(session, f"numpy,{name}", *(f"tests/models/{file}" for file in files), *exporting)
    if current:
        check_types(session, name)
    discard(session)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff; mypy in strict mode on the core and NumPy's adapter; import-linter; what the documentation copies."""
    core = (*PROJECT["project"]["dependencies"], "hypothesis", "pytest")
    session.install("--constraint", CONSTRAINTS, *LINTERS, *core)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports", env={"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'backends'}"})
    session.run("python", "docs/floors.py", "--check")
    session.run("python", "docs/measured.py", "--check")
    check_project_files(session)


def check_project_files(session: nox.Session) -> None:
    """What the project's host reads: against its schemas, for weaknesses, and for what a project should have."""
    github = ROOT / ".github"
    for schema, paths in {
        "vendor.github-workflows": github.glob("workflows/*.yml"),
        "custom.github-workflows-require-timeout": github.glob("workflows/*.yml"),
        "vendor.github-issue-config": github.glob("ISSUE_TEMPLATE/config.yml"),
        "vendor.github-issue-forms": set(github.glob("ISSUE_TEMPLATE/*.yml")) - {github / "ISSUE_TEMPLATE/config.yml"},
        "vendor.dependabot": [github / "dependabot.yml"],
        "vendor.citation-file-format": [ROOT / "CITATION.cff"],
    }.items():
        session.run("check-jsonschema", "--builtin-schema", schema, *sorted(map(str, paths)), silent=True)
    session.run("zizmor", "--offline", "--quiet", ".")
    session.run("repo-review", ".", "--show", "err")


@nox.session(default=False, python=False)
def dev(session: nox.Session) -> None:
    """An environment to work in, `.venv`: all frameworks, convlab from this folder, the linters, the commit hooks."""
    folder = ROOT / ".venv"
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    session.run(sys.executable, "-m", "venv", "--clear", str(folder))
    pip = (str(programs / "python"), "-m", "pip", "install", "--constraint", CONSTRAINTS)
    session.run(*pip, "--editable", f"{ROOT}[{','.join(EXTRAS)}]", *DEVELOPING, *BESIDE)
    session.run(*pip, "--no-deps", "mxnet")
    session.run(str(programs / "pre-commit"), "install")


@nox.session
def docs(session: nox.Session) -> None:
    """The examples in the docstrings of the core, run with NumPy and numba; the parity session runs those in docs/."""
    install(session, "plot")
    run_tests(session, "numpy", "convlab", "convlab_numpy", *CORE)


@nox.session
def site(session: nox.Session) -> None:
    """The documentation as a site, in site/; a broken link, anchor or reference fails."""
    session.install("--constraint", CONSTRAINTS, *SITE)  # with what the commands import
    session.install("--no-deps", str(ROOT))
    session.env["NO_MKDOCS_2_WARNING"] = "1"  # mkdocs-material's notice of its successor
    session.run("python", "-m", "mkdocs", "build", "--strict")  # --quiet would hide warnings from it


@nox.session
def torch(session: nox.Session) -> None:
    """PyTorch."""
    install(session, "torch", "onnx")
    framework(session, "torch")


@nox.session
def jax(session: nox.Session) -> None:
    """JAX and Flax."""
    install(session, "jax", "onnx", also=("optax",))
    framework(session, "jax")


@nox.session
def tensorflow(session: nox.Session) -> None:
    """TensorFlow and Keras."""
    install(session, "tensorflow", "onnx")
    framework(session, "tensorflow")


@nox.session
def dask(session: nox.Session) -> None:
    """Dask, with NumPy computing its chunks."""
    install(session, "dask")
    framework(session, "dask", "tests/cli/test_stores.py", "docs/how-to/scale-out.md")


@nox.session
@nox.parametrize("numpy", ["1.23.5", "1.26.4", "current"])
def mxnet(session: nox.Session, numpy: str) -> None:
    """MXNet on the last NumPy with all the names that it knows, the last that its metadata accepts, and today's."""
    if numpy == "current":
        install(session, also=("requests",))
        install_mxnet_alone(session)
    else:
        install(session, "mxnet", also=(f"numpy=={numpy}",))
    framework(session, "mxnet", current=numpy == "current")  # an old NumPy has other types, too


def install_mxnet_alone(session: nox.Session) -> None:
    """Without its dependencies: its metadata asks for a NumPy that the others can't use."""
    session.install("--no-deps", "--constraint", CONSTRAINTS, "mxnet")


def install_all(session: nox.Session) -> None:
    """All frameworks on current releases in one environment."""
    install(session, *EXTRAS, also=BESIDE)
    install_mxnet_alone(session)


@nox.session
def parity(session: nox.Session) -> None:
    """All frameworks in one environment and one process; Dask with each of them inside; and as if on a smaller CPU."""
    install_all(session)
    run_tests(session, TOGETHER, "tests", "docs", "README.md", *ELSEWHERE)
    run_tests(session, f"{TOGETHER},dask", "tests/frameworks/test_dask.py")
    run_as_if_smaller(session, {"1": AGREEING})
    discard(session)


@nox.session(default=False)
def processors(session: nox.Session) -> None:
    """All that may depend on the processor, on all frameworks as if on a smaller one: more than the end of `parity`."""
    install_all(session)
    run_as_if_smaller(session, {"1": SUMMING, "2": PORTING})
    discard(session)


# What each library asks for the most that it may use. XLA has no float16 below AVX.
SMALLER = {
    "ATEN_CPU_CAPABILITY": "default",
    "DNNL_MAX_CPU_ISA": "SSE41",
    "NUMBA_CPU_FEATURES": "",  # without it, numba keeps this processor's features under the other's name
    "NUMBA_CPU_NAME": "nehalem",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Nehalem",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX",
}
# The last is XLA's.
THREADS = ("CONVLAB_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "NPROC")
# NumPy warns about what it can't disable: what it wasn't built for, and what this processor hasn't got.
DISPATCHED = (
    "from numpy._core._multiarray_umath import __cpu_dispatch__ as names, __cpu_features__ as present;"
    "print(*(name for name in names if present.get(name)))"
)
BUSY = "import itertools; all(map(int, itertools.repeat(1)))"


def run_as_if_smaller(session: nox.Session, files: dict[str, tuple[str, ...]]) -> None:
    """Tests whose outcome may depend on the processor, by the number of threads: without AVX2 and beside a load."""
    features = session.run("python", "-c", DISPATCHED, silent=True) or ""
    unset = {name: value for name, value in SMALLER.items() if name not in os.environ}
    session.env.update(unset, NPY_DISABLE_CPU_FEATURES=features.strip())
    python = str(Path(session.bin) / "python")
    load = subprocess.Popen([python, "-c", BUSY])
    try:
        for threads, paths in files.items():
            session.env.update(dict.fromkeys(THREADS, threads))
            run_tests(session, TOGETHER, *paths)
    finally:
        load.kill()
        load.wait()


@nox.session
def conformance(session: nox.Session) -> None:
    """A backend from another distribution, found by its entry point and held to the suite that ours pass."""
    install(session)
    session.install(str(ROOT / "tests" / "toy"))
    private_cache(session)
    run_tests(session, "numpy", "tests/toy")
    session.run("convlab", "parity", "--seconds", "1", silent=True)


@nox.session(default=False)
def choices(session: nox.Session) -> None:
    """The planner's choices beside the best that it could have made, timed on this machine, which must be quiet."""
    install(session, "torch")
    private_cache(session)
    session.run("convlab", "tune", "--backends", "numpy,torch")
    session.run("python", str(ROOT / "benchmarks" / "choices.py"), "--backends", "numpy,torch", *session.posargs)
    discard(session)


@nox.session(default=False)
def browser(session: nox.Session) -> None:
    """The parity report and the explorer in a real Chromium, which must be installed (Debian's `chromium`)."""
    install(session)
    run_tests(session, "numpy", "tests/browser")


@nox.session(default=False)
def explorer(session: nox.Session) -> None:
    """The explorer's arithmetic in node, which must be installed, and its Python programs on all frameworks."""
    install_all(session)
    run_tests(session, TOGETHER, "tests/explorer")


@nox.session(default=False)
def notebooks(session: nox.Session) -> None:
    """The notebooks with their outputs, for each framework, in docs/notebooks/built.

    `nox -s notebooks -- --source git+https://host/owner/project` has them install convlab from there, as in Colab.
    """
    install_all(session)
    session.install("--constraint", CONSTRAINTS, *NOTEBOOKS)
    session.run("python", "docs/build_notebooks.py", *session.posargs, env={"TF_CPP_MIN_LOG_LEVEL": "3"})


@nox.session(default=False)
def lite(session: nox.Session) -> None:
    """The notebooks as a JupyterLite page with convlab's wheel, in docs/notebooks/built/lite."""
    wheel = build_wheel(session)
    session.install("--constraint", CONSTRAINTS, *LITE)
    session.run("python", "docs/build_notebooks.py", "--lite")
    built = ROOT / "docs" / "notebooks" / "built"
    options = (f"--contents={built / 'lite-files'}", f"--output-dir={built / 'lite'}", f"--piplite-wheels={wheel}")
    with session.chdir(session.create_tmp()):  # where it leaves files of its own
        session.run("jupyter", "lite", "build", *options, silent=True)


@nox.session(default=False)
def gpu(session: nox.Session) -> None:
    """PyTorch on a GPU, which must be there: conformance, reproducible bits, and the grid beside cuDNN.

    `nox -s gpu -- torch==2.13.0+cu130` installs this PyTorch instead of the one that the constraints name.
    """
    install(session)
    session.install(*(session.posargs or ("--constraint", CONSTRAINTS, "torch")))
    session.run("pytest", "--quiet", "--backends", "numpy,torch", str(ROOT / "tests" / "gpu"))
    session.run("python", str(ROOT / "benchmarks" / "gpu.py"))


@nox.session(default=False)
def coverage(session: nox.Session) -> None:
    """What the tests cover, all of them in one environment; they take a quarter longer."""
    install_all(session)
    session.install("coverage[toml]>=7.10")
    under = "coverage", "run"
    run_tests(session, TOGETHER, "tests", "docs", "README.md", under=under)
    run_tests(session, f"{TOGETHER},dask", "tests/frameworks/test_dask.py", under=under)
    session.run("coverage", "combine")
    session.run("coverage", "report", "--skip-covered", "--fail-under=90")
    discard(session)


if __name__ == "__main__":
    nox.main()
