"""Nothing that the tests and the benchmarks do reaches the user's own cache folder."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

from convlab.planning import costs

ROOT = Path(__file__).parent.parent


def test_the_suite_has_a_cache_of_its_own() -> None:
    folder = Path(os.environ["XDG_CACHE_HOME"])
    assert folder.is_absolute()
    assert costs.user_file() == folder / "convlab" / "wisdom.json"
    assert Path.home() not in folder.parents


def test_the_tests_that_write_a_table_leave_the_home_empty(tmp_path) -> None:
    """Whatever they are started with; tests/cli/test_cli.py does the same to `convlab tune`."""
    home = tmp_path / "home"
    home.mkdir()
    tests = ("test_planner.py", "test_cache.py::test_the_suite_has_a_cache_of_its_own")
    command = [sys.executable, "-m", "pytest", "-q", "--backends", "numpy"]
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": "relative/folder"}
    done = subprocess.run(
        [*command, *(str(ROOT / "tests" / each) for each in tests)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert [*home.rglob("*")] == []


def test_nox_gives_the_commands_that_write_a_table_a_folder_of_their_own(tmp_path, monkeypatch) -> None:
    """`session.create_tmp` returns a relative path, which platformdirs, by the standard, doesn't look at."""
    namespace: dict = {"__file__": str(ROOT / "noxfile.py"), "__name__": "noxfile"}
    stand_in = types.ModuleType("nox")
    stand_in.options, stand_in.Session = types.SimpleNamespace(), object
    stand_in.project = types.SimpleNamespace(load_toml=lambda _: {}, dependency_groups=lambda *_: ())
    stand_in.session = lambda function=None, **_: function or (lambda function: function)
    stand_in.parametrize = lambda *_: lambda function: function
    monkeypatch.setitem(sys.modules, "nox", stand_in)
    monkeypatch.chdir(tmp_path)
    exec(compile((ROOT / "noxfile.py").read_text(), "noxfile.py", "exec"), namespace)
    namespace["BUILT"].append(tmp_path / "convlab.whl")
    folders = []

    class Session:
        posargs = ()
        virtualenv = types.SimpleNamespace(location=str(tmp_path / "none"))
        install = staticmethod(lambda *_, **__: None)
        create_tmp = staticmethod(lambda: "tmp")

        def __init__(self) -> None:
            self.env: dict[str, str] = {}

        def run(self, command: str, *arguments: str, **_) -> None:
            if "tune" in arguments or "choices.py" in str(arguments):
                folders.append(self.env["XDG_CACHE_HOME"])

    monkeypatch.delenv("CI", raising=False)
    namespace["choices"](Session())
    assert folders == [str(tmp_path / "tmp")] * 2
