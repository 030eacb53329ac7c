"""The explorer's modules in node: its arithmetic, and the Python programs that it writes, which are run here."""

from __future__ import annotations

import base64
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
from convlab.parity.archive import read_case

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


def test_the_test_cases_are_read_and_their_results_are_right(answers: list[dict[str, Any]], tmp_path: Path) -> None:
    cases = [answer["archive"] for answer in answers if answer["archive"]]
    assert len(cases) > 30
    for archive in cases:
        path = tmp_path / "case.npz"
        path.write_bytes(base64.b64decode(archive))
        with np.load(path) as arrays:
            assert {"X", "K", "Y"} <= {*arrays}
        case = read_case(path)
        np.testing.assert_array_equal(backend("numpy").corr2d(case.X, case.K, **case.options), case.Y)


def test_the_change_makes_the_frameworks_agree(answers: list[dict[str, Any]]) -> None:
    torch, keras = pytest.importorskip("torch"), pytest.importorskip("keras")
    jnp, nn = pytest.importorskip("jax.numpy"), pytest.importorskip("flax.linen")
    found = [(a["layer"], a["conventions"]) for a in answers if a["conventions"] and not a["layer"]["transposed"]]
    assert len(found) > 30
    pooled = 0
    for layer, conventions in found[:40]:
        X, K = (np.array(layer[name], dtype="float32") for name in ("image", "kernel"))
        K = K[::-1, ::-1].copy() if layer["flip"] else K
        model = eval(conventions["converted"]["PyTorch, as SAME"], {"torch": torch})
        model[1].weight.data = torch.tensor(K)[None, None]
        same = model(torch.tensor(X)[None, None])[0, 0].detach().numpy()
        np.testing.assert_array_equal(same, np.array(conventions["same"]))
        flax = eval(conventions["converted"]["Flax, as PyTorch"], {"nn": nn})
        sides = flax.apply({"params": {"kernel": jnp.array(K)[:, :, None, None]}}, jnp.array(X)[None, :, :, None])
        np.testing.assert_array_equal(np.asarray(sides)[0, :, :, 0], np.array(conventions["sides"]))
        model = eval(conventions["converted"]["Keras, as PyTorch"], {"keras": keras})
        model.build((1, *X.shape, 1))
        model.set_weights([K[:, :, None, None]])
        pooled += len(model.layers) == 3
        sides = np.asarray(model(X[None, :, :, None]))[0, :, :, 0]
        np.testing.assert_array_equal(sides, np.array(conventions["sides"]))
    assert pooled > 3
