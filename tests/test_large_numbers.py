"""Numbers that nothing can hold, in files and on the command line: one line that says so, at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convlab
from convlab.errors import CaseFileError, GeometryError, ModelFileError
from convlab.parity.archive import read_case

LARGE = [2**31, 2**32, 2**62, 2**64, 10**400, -1, 1e300]
CONV = {
    "path": "0", "kind": "conv2d", "kernel_size": [1, 1], "stride": [1, 1], "padding": [[0, 0], [0, 0]],
    "padding_mode": "zeros", "dilation": [1, 1], "groups": 1,
}  # fmt: skip


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from convlab.cli.main import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def written(path: Path, record: dict[str, Any], shape: Any = (1, 1, 1, 1), offsets: Any = (0, 4)) -> Path:
    """A file of one layer, whatever it says."""
    about = json.dumps({"format": "convlab.model", "version": 1, "layers": [record]})
    tensor = {"dtype": "F32", "shape": list(shape), "data_offsets": list(offsets)}
    header = json.dumps({"__metadata__": {"convlab": about}, "0.kernel": tensor}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + np.ones(1, "<f4").tobytes())
    return path


@pytest.mark.parametrize("value", LARGE, ids=range(len(LARGE)))
def test_a_model_file(tmp_path, value) -> None:
    path = tmp_path / "model.safetensors"
    assert convlab.load(written(path, CONV), backend="numpy") is not None
    for key, other in (
        ("stride", [value, 1]),
        ("dilation", [1, value]),
        ("kernel_size", [value, value]),
        ("groups", value),
        ("padding", [[0, value], [0, 0]]),
    ):
        with pytest.raises(ModelFileError, match=rf"layers\[0\]\.{key}: got .* expected .*65536"):
            convlab.load(written(path, {**CONV, key: other}), backend="numpy")
    for shape in ([value] * 4, [1, value, 1, 1], [value, 0, 1, 1]):
        with pytest.raises(ModelFileError):
            convlab.load(written(path, CONV, shape), backend="numpy")
    for offsets in ([0, value], [value, value], [value, 4]):
        with pytest.raises(ModelFileError):
            convlab.load(written(path, CONV, offsets=offsets), backend="numpy")


@pytest.mark.parametrize("value", LARGE[:4])
def test_a_case_file(tmp_path, value) -> None:
    """In an .npz a number has at most 64 bits."""
    path = tmp_path / "case.npz"
    X, K = np.ones((4, 4), "float32"), np.ones((2, 2), "float32")
    number = np.uint64(min(value, 2**64 - 1))
    for options in ({"padding": number}, {"padding": "full", "dilation": number}):
        np.savez(path, X=X, K=K, **options)
        with pytest.raises((CaseFileError, GeometryError), match="expected"):
            read_case(path)
    np.savez(path, X=X, K=K, stride=number)
    assert read_case(path).options["stride"] == number
    done = run("parity", "--backends", "numpy", "--seconds", 0, "--case", path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("gaussian:1e9", "size: got a kernel of size 8000000001, expected at most 4096"),
        ("gaussian:1e308", "size: got a kernel of size 2000000000000001"),
        ("gaussian:inf", "sigma: got inf"),
        ("box:4294967296", "size: got a kernel of size 4294967296"),
        (f"box:{10**400}", "size: got an integer of 1329 bits"),
        (f"derivative:{2**62}", f"order: got a kernel of order {2**62}, expected at most 1000"),
        (f"derivative:{'9' * 5000}", "filter: got 'derivative:999"),
        ("edge:nan", "v: got nan"),
        (f"sharpen:{'9' * 400}", "amount: got an integer of 1329 bits"),
    ],
)
def test_the_filter_command(tmp_path, name, part) -> None:
    with pytest.raises(GeometryError) as caught:
        convlab.filters.parse(name)
    assert part in str(caught.value)
    assert len(str(caught.value)) < 600
    if name in ("gaussian:1e9", "gaussian:1e308"):
        done = run("filter", tmp_path / "in.png", "--filter", name, "-o", tmp_path / "out.png")
        assert done.returncode == 2
        assert done.stderr.startswith(f"convlab: {part}")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("demo", "--backends", "9" * 5000),
        ("tune", "--show", "--backends", "9" * 5000),
        ("parity", "--seed", "-1"),
        ("parity", "--seconds", "1e400"),
        ("parity", "--seconds", "nan", "--backends", "numpy"),
        ("parity", "--patience", "nan", "--backends", "numpy"),
        ("parity", "--seed", "9" * 5000, "--backends", "numpy"),
        ("compare", "a.py:model", "b.py:model", "--seed", "9" * 5000),
    ],
    ids=lambda arguments: " ".join(arguments)[:30],
)
def test_options_of_no_size(arguments) -> None:
    done = run(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_an_input_size_of_a_load(tmp_path) -> None:
    path = written(tmp_path / "model.safetensors", {**CONV, "padding": "same", "stride": [2, 2]})
    model = convlab.load(path, backend="numpy", input_size=2**62)
    assert model(np.ones((1, 1, 4, 4), "float32")).tolist() == [[[[1, 1], [1, 1]]]]
    with pytest.raises(GeometryError, match="input_size: got an integer of 1329 bits"):
        convlab.load(path, backend="numpy", input_size=10**400)
