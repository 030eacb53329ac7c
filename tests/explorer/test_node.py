"""The explorer's modules in node: its arithmetic, and the Python programs that it writes, which are run here."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import random
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convlab import backend
from convlab.errors import ConvlabError

HERE = Path(__file__).parent
# The backend whose packages a program imports. MXNet's adapter makes it work on today's NumPy.
BACKENDS = {"convlab": "numpy", "PyTorch": "torch", "Keras": "tensorflow", "Flax": "jax", "gluon": "mxnet"}
MODES = ("zeros", "reflect", "symmetric", "replicate", "circular")


def test_the_arithmetic() -> None:
    command = ["node", "--test", *sorted(map(str, HERE.glob("*.test.mjs")))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def random_layer(chance: random.Random) -> dict[str, Any]:
    def pair(least: int, most: int) -> list[int]:
        return [chance.randint(least, most) for _ in range(2)]

    def matrix(most: int) -> list[list[float]]:
        rows, columns = pair(1, most)
        return [[chance.randint(-9, 9) / 2 for _ in range(columns)] for _ in range(rows)]

    transposed = chance.random() < 0.4
    named = chance.choice(["valid", "same", "same_lower", "full"])
    return {
        "image": matrix(8),
        "kernel": matrix(4),
        "stride": pair(1, chance.choice([1, 3])),
        "padding": chance.choice([named, named, [pair(0, 3), pair(0, 3)], [[0, 0], [1, 1]]]),
        "mode": chance.choice(MODES),
        "value": chance.choice([0, 0, -1.5]),
        "dilation": pair(1, chance.choice([1, 1, 3])),
        "flip": chance.random() < 0.3,
        "transposed": transposed,
        "outputPadding": pair(0, chance.choice([0, 2])) if transposed else [0, 0],
    }


def some_layers(count: int) -> list[dict[str, Any]]:
    chance = random.Random(0)
    return [random_layer(chance) for _ in range(count)]


@pytest.fixture(scope="module")
def answers() -> list[dict[str, Any]]:
    """The answers for layers that have a result."""
    command = ["node", str(HERE / "programs.mjs")]
    done = subprocess.run(command, input=json.dumps(some_layers(150)), capture_output=True, text=True, check=True)
    return [answer for answer in json.loads(done.stdout) if "problem" not in answer]


@pytest.mark.parametrize("library", BACKENDS)
def test_the_programs_compute_what_the_page_shows(answers: list[dict[str, Any]], library: str) -> None:
    try:
        backend(BACKENDS[library])
    except ConvlabError as error:
        pytest.skip(str(error))
    assert len(answers) > 60
    for answer in answers:
        code, names = answer["programs"][library], {}
        with contextlib.redirect_stdout(io.StringIO()) as shown, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                exec(code, names)
            except Exception as error:
                raise AssertionError(f"{error}\n{code}") from error
        assert shown.getvalue()
        Y = names["Y"]
        Y = Y.asnumpy() if hasattr(Y, "asnumpy") else np.asarray(Y)
        np.testing.assert_array_equal(Y, np.array(answer["result"]), err_msg=code)


def test_the_layers_are_of_every_kind(answers: list[dict[str, Any]]) -> None:
    code = "".join(answer["programs"]["PyTorch"] for answer in answers)
    for each in (
        "F.conv2d",
        "F.conv_transpose2d",
        "F.pad",
        "np.pad",
        "dilation",
        "row[::-1]",
        '"same"',
        "output_padding",
    ):
        assert each in code
    assert all(
        f'"{mode}"' in "".join(a["programs"]["convlab"] for a in answers) for mode in itertools.islice(MODES, 1, 5)
    )
