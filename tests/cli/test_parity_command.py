"""`convlab parity`: agreement, disagreement, and workers that misbehave in every way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import numpy as np
import pytest

import convlab as library
from convlab.parity.archive import read_case
from convlab.parity.run import RunPlan, run_plan
from convlab.testing.trials import TIERS
from convlab.truth.oracle import oracle

CONVLAB = (sys.executable, "-W", "ignore", "-c", "from convlab.cli.main import main; main()", "parity")


def convlab(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CONVLAB, *arguments], capture_output=True, text=True, check=False, cwd=folder)


def fake(folder: Path, code: str) -> str:
    """A 'Python' that runs this code instead of convlab's worker; asked for NumPy, it would be right."""
    path = folder / "python"
    path.write_text(
        f"#!{sys.executable}\nimport os, sys, time, signal, numpy as np\n"
        "from convlab.parity import wire, worker\nfrom convlab.testing import tasks\n"
        "out, hello = sys.stdout.buffer, worker._hello\n"
        "worker._hello = lambda lab: hello(lab) | {'hello': sys.argv[-1]}\n" + code
    )
    path.chmod(0o755)
    return str(path)


def test_every_backend_of_this_session_agrees(backends) -> None:
    report = run_plan(RunPlan(tuple(backends), frozenset(backends), seed=3, seconds=2))
    assert report.agreed, (report.failed, [each.message for each in report.failures])
    assert set(report.versions) == set(backends)
    assert {tier for tier, *_ in report.cells} == set(TIERS)
    for name in backends:
        assert report.cells["exact", name, "result"].trials >= 40
        assert 0 < report.cells["bounded", name, "result"].worst <= 1
        assert report.cells["reproducible", name, "losses"].trials == 3 if name != "mxnet" else 2
    if len(backends) > 1:
        assert report.pairs
        assert max(report.pairs.values()) <= 2  # Each is within one bound of the truth.


def test_the_command_prints_writes_and_exits_with_0(tmp_path) -> None:
    done = convlab("--backends", "numpy", "--seconds", "0", "--json", "a.json", "--html", "a.html", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "All backends agree" in done.stdout
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["agreed"] is True
    assert content["failures"] == []
    assert content["backends"]["numpy"]["numpy"] == np.__version__
    assert "convlab parity --backends numpy --seed 0 --seconds 0" in (tmp_path / "a.html").read_text()
    assert sorted(os.listdir(tmp_path)) == ["a.html", "a.json"]


FLIPPED = """
import convlab
right = convlab.numpy.corr2d
def corr2d(X, K, **options):
    return right(X, np.flip(K, (0, 1)), **options) if K.ndim == 2 else right(X, K, **options)
convlab.lab.Backend.corr2d = staticmethod(corr2d)
worker.serve("numpy")
"""


def test_a_wrong_backend_is_diagnosed(tmp_path) -> None:
    python = fake(tmp_path, FLIPPED)
    arguments = ("--python", f"numpy={python}", "--only", "chapter 3x3 float32")
    done = convlab("--backends", "numpy", *arguments)
    assert done.returncode == 1
    assert "The backends don't all agree" in done.stdout
    assert "kernel flipped" in done.stdout
    command = done.stdout[done.stdout.index("convlab parity --backends") :].splitlines()[0]
    assert f"numpy={python}" in command
    assert "--only 'chapter 3x3 float32'" in command
    report = run_plan(RunPlan(("numpy",), pythons={"numpy": python}, only="chapter 3x3 float32"))
    assert report.failures[0].worst == np.inf
    np.testing.assert_array_equal(report.failures[0].image, [[np.inf, np.inf], [np.inf, np.inf]])


FAILURES = {
    "wire.send(out, {'hello': 'torch', 'dtypes': [], 'autograd': True}); time.sleep(9)": "its greeting isn't what",
    "wire.send(out, {'hello': 'torch', 'dtypes': [], 'autograd': 1, 'versions': 'x'}); time.sleep(9)": "its greeting",
    "out.write(b'convlab-worker 1 5 0\\n{oops'); out.flush(); time.sleep(9)": "got JSON that can't be read",
    "tasks.TASKS['forward'] = lambda *a: {'result': np.full((2, 2), 'a')}; worker.serve('numpy')": "else than numbers",
    "os.system('sleep 300')": "no answer within 10 s while it was loading",
    "worker._hello = hello; worker.serve('numpy')": "it answered for 'numpy'",
    "sys.exit(3)": "it ended with status 3 while it was loading.",
    "print('hello')": "worker: got b'hello\\n', expected a message.",
    "time.sleep(100)": "it gave no answer within 10 s while it was loading.",
    "out.write(b'convlab-worker 7 2 0\\n{}'); out.flush(); time.sleep(9)": "it speaks version 7, expected 1.",
    "wire.send(out, {'error': 'broken'})": "broken",
    "out.write(b'convlab-worker 1 99999999999 0\\n'); out.flush(); time.sleep(9)": "got a message of 99999999999 bytes",
    "tasks.TASKS['forward'] = lambda *a: os.kill(os.getpid(), 9); worker.serve('numpy')": "was killed by SIGKILL (out",
    "tasks.TASKS['forward'] = lambda *a: np.zeros(10**15); worker.serve('numpy')": "it ran out of memory in",
    "tasks.TASKS['forward'] = lambda *a: time.sleep(100); worker.serve('numpy')": "no answer within 10 s in chapter",
    "tasks.TASKS['forward'] = lambda *a: os.abort(); worker.serve('numpy')": "was killed by SIGABRT",
}


@pytest.mark.parametrize("code", FAILURES)
def test_a_worker_that_misbehaves_is_one_row_and_the_others_go_on(tmp_path, code) -> None:
    python = fake(tmp_path, code)
    patience = 10 if "no answer" in FAILURES[code] else 300  # The other worker gets the same patience.
    plan = RunPlan(("numpy", "torch"), pythons={"torch": python}, only="chapter", patience=patience)
    report = run_plan(plan)
    assert list(report.failed) == ["torch"]
    assert FAILURES[code] in report.failed["torch"]
    assert report.cells["exact", "numpy", "result"].trials == 14
    assert report.cells["exact", "numpy", "result"].failed == 0
    assert not report.agreed


def test_what_is_no_python_or_lacks_convlab(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    venv.create(tmp_path / "bare")
    (tmp_path / "text").write_text("hello")
    cases = {
        "bare/bin/python": "No module named 'convlab'",
        "text": "can't be run as a Python (Permission denied)",
        "absent": "can't be run as a Python (No such file or directory)",
    }
    for python, reason in cases.items():
        report = run_plan(RunPlan(("numpy",), pythons={"numpy": str(tmp_path / python)}, only="chapter"))
        assert reason in report.failed["numpy"]
        assert not report.agreed


def test_a_framework_that_is_not_there(tmp_path) -> None:
    """A missing framework is left out if nobody named it; else it is a failure."""
    code = "wire.send(out, {'error': 'it is not installed', 'kind': 'BackendNotInstalled'})"
    python = fake(tmp_path, code)
    report = run_plan(RunPlan(("numpy", "torch"), pythons={"torch": python}, only="chapter"))
    assert report.absent == {"torch": "it is not installed"}
    assert report.agreed
    report = run_plan(RunPlan(("numpy", "torch"), frozenset(["torch"]), {"torch": python}, only="chapter"))
    assert report.failed == {"torch": "it is not installed"}


def test_an_error_of_the_backend_is_a_wrong_result(tmp_path) -> None:
    python = fake(tmp_path, "tasks.TASKS['forward'] = lambda *a: 1 / 0\nworker.serve('numpy')")
    report = run_plan(RunPlan(("numpy",), pythons={"numpy": python}, only="chapter"))
    assert "ZeroDivisionError" in report.failures[0].message
    assert report.wrong == 14
    assert len(report.failures) == 3  # No more of one kind are kept.


def test_an_answer_that_lacks_something(tmp_path) -> None:
    python = fake(tmp_path, "tasks.TASKS['forward'] = lambda *a: {}\nworker.serve('numpy')")
    report = run_plan(RunPlan(("numpy",), pythons={"numpy": python}, only="chapter 3x3 float32"))
    assert [each.message for each in report.failures] == ["the answer lacks this result"]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_case_is_judged_in_its_own_dtype(tmp_path, dtype) -> None:
    rng = np.random.default_rng(0)
    X, K = rng.standard_normal((9, 8)).astype(dtype), rng.standard_normal((3, 3)).astype(dtype)
    Y = library.corr2d(X, K)
    np.savez(tmp_path / "case.npz", X=X, K=K, Y=Y)
    report = run_plan(RunPlan(("numpy",), case=read_case(tmp_path / "case.npz"), only="case.npz"))
    assert report.agreed, report.failures
    assert report.cells["bounded", "your Y", "result"].trials == 1


def test_ones_own_case(tmp_path) -> None:
    rng = np.random.default_rng(0)
    X, K = rng.standard_normal((1, 2, 9, 8)).astype("float32"), rng.standard_normal((3, 2, 3, 3)).astype("float32")
    right = oracle(X, K, stride=2, padding=((1, 0), (1, 0)))
    wrong = oracle(X, K, stride=2, padding=((0, 1), (0, 1)))
    for y, code in ((right, 0), (wrong, 1)):
        np.savez(tmp_path / "case.npz", X=X, K=K, Y=y, stride=2, padding=[[1, 0], [1, 0]])
        done = convlab("--backends", "numpy", "--case", str(tmp_path / "case.npz"), "--only", "case.npz")
        assert done.returncode == code, done.stdout + done.stderr
    assert "your Y" in done.stdout
    assert "padding" in done.stdout


def test_an_interrupted_run_leaves_nothing(tmp_path) -> None:
    arguments = ("--backends", "numpy", "--seconds", "60", "--json", "a.json", "--html", "a.html")
    # A shell's background jobs ignore SIGINT, and so would this one.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); " + CONVLAB[4]
    command = [*CONVLAB[:4], code, "parity", *arguments]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(4)
    running.send_signal(signal.SIGINT)
    assert running.wait(300) != 0
    running.communicate()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backends", "nonsense"], "nonsense"),
        (["--python", "torch"], "expected BACKEND=PATH"),
        (["--case", "absent.npz"], "can't be read"),
        (["--backends", "numpy", "--only", "nothing such"], "no trial's name begins with 'nothing such'"),
        (["--json", "absent/a.json"], "can't be written there"),
        (["--html", "."], "can't be written there"),
        (["--html", "a", "--json", "a"], "one file for two reports"),
        (["--python", "numpy=a", "--python", "numpy=b"], "got a backend twice"),
    ],
)
def test_bad_options_are_one_line(arguments, message, tmp_path) -> None:
    done = convlab(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Hint: " in done.stderr
    assert "Traceback" not in done.stderr
