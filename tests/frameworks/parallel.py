"""Problems for data-parallel training, and what one process finds in float64, by plain NumPy."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convlab.truth.bounds import gamma, worst_ratio

DOC = Path(__file__).parents[2] / "docs" / "how-to" / "train-on-devices.md"
LEARNING_RATE = 0.125
STEPS = {"integers": (1,), "normal": (1, 5)}


class Problem(NamedTuple):
    """Images, targets and first weights for `Conv2D(weight's size, padding="same", **options)`, float32."""

    images: np.ndarray
    targets: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    options: dict[str, Any]

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.weight.shape[:2] if self.nhwc or self.weight.ndim == 2 else self.weight.shape[2:]
        return height, width

    @property
    def nhwc(self) -> bool:
        return self.options.get("data_format") == "NHWC"

    def matrix(self, weight: Any, bias: Any) -> np.ndarray:
        """Parameters or gradients as a column for each output channel, the bias below."""
        weight, bias = np.asarray(weight), np.asarray(bias)
        weight = weight.transpose(3, 2, 0, 1) if self.nhwc else weight
        return np.vstack([weight.reshape(len(bias), -1).T, bias])


def problem(layer: str, kind: str) -> Problem:
    """For the "chapter"'s layer, which fast ways compute, or for one of channels in a layout; sizes are powers of 2."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return (rng.integers(-3, 4, shape) if kind == "integers" else rng.normal(size=shape)).astype("float32")

    images, targets, weight, options = {
        "chapter": ((4, 64, 128), (4, 64, 128), (5, 5), {}),
        "NCHW": ((4, 2, 16, 32), (4, 4, 16, 32), (4, 2, 3, 3), {"in_channels": 2, "out_channels": 4}),
        "NHWC": (
            (4, 16, 32, 2),
            (4, 16, 32, 4),
            (3, 3, 2, 4),
            {"in_channels": 2, "out_channels": 4, "data_format": "NHWC"},
        ),
    }[layer]
    bias = (options.get("out_channels", 1),)
    return Problem(*(draw(*shape) for shape in (images, targets, weight, bias)), options)


class Path64(NamedTuple):
    """The last step's gradients and the parameters after it, in float64, and how far float32 may be from them."""

    gradients: np.ndarray
    gradient_bounds: np.ndarray
    parameters: np.ndarray
    parameter_bounds: np.ndarray
    largest_sum: float  # the largest sum of the magnitudes that a gradient adds up


def one_process(given: Problem, steps: int) -> Path64:
    """Gradient descent on the mean squared error; the bounds are those of `convlab.testing.descent`, with a bias."""
    images = given.images[:, None] if given.images.ndim == 3 else given.images
    images = np.moveaxis(images, -1, 1) if given.nhwc else images
    pads = [(n // 2, n // 2) for n in given.size]
    padded = np.pad(images.astype(float), ((0, 0), (0, 0), *pads))
    windows = np.lib.stride_tricks.sliding_window_view(padded, given.size, (2, 3)).transpose(0, 2, 3, 1, 4, 5)
    A = windows.reshape(windows[..., 0, 0, 0].size, -1)
    A = np.hstack([A, np.ones((len(A), 1))])  # the column of ones is the bias's
    targets = given.targets if given.nhwc or given.targets.ndim == 3 else np.moveaxis(given.targets, 1, -1)
    T = targets.reshape(len(A), -1).astype(float)
    P = given.matrix(given.weight, given.bias).astype(float)

    unit, scale, curvature = 2.0**-24, 2 / T.size, np.linalg.eigvalsh(2 / T.size * A.T @ A)
    growth, error = np.abs(1 - LEARNING_RATE * curvature).max(), np.zeros(P.shape[1])
    for _ in range(steps):
        residual = A @ P - T
        gradients = scale * A.T @ residual
        added = gamma(len(P) + 2, "float32") * np.abs(A) @ np.abs(P) + 2 * unit * (np.abs(residual) + np.abs(T))
        # The mean's factors, the replicas' sum and the average add eight roundings.
        own = scale * np.abs(A).T @ (gamma(len(A) + 8, "float32") * (np.abs(residual) + added) + added)
        gradient_bounds = own + curvature.max() * error
        P = P - LEARNING_RATE * gradients
        rounding = LEARNING_RATE * own + 3 * unit * (np.abs(P) + 2 * LEARNING_RATE * np.abs(gradients))
        error = growth * error * (1 + 4 * unit) + np.linalg.norm(rounding, axis=0)
    largest_sum = float((np.abs(A).T @ np.abs(residual)).max())
    return Path64(gradients, gradient_bounds, P, np.broadcast_to(error, P.shape), largest_sum)


def check(given: Problem, steps: int, arrays: dict[str, np.ndarray], exact: bool) -> None:
    """Hold arrays, named as `saved` names them, against one process: to the bit if `exact`, else within the bounds."""
    path = one_process(given, steps)
    pairs = [(given.matrix(arrays["weight"], arrays["bias"]), path.parameters, path.parameter_bounds)]
    if "weight gradient" in arrays:
        gradients = given.matrix(arrays["weight gradient"], arrays["bias gradient"])
        pairs.append((gradients, path.gradients, path.gradient_bounds))
    for got, want, bound in pairs:
        if exact:
            assert path.largest_sum < 2**24
            np.testing.assert_array_equal(got, want)
        assert worst_ratio(got, want, bound) <= 1


def saved(case: str, weight: Any, bias: Any, gradients: Any) -> dict[str, np.ndarray]:
    """Parameters and their last gradients, if there are any, as entries of an .npz file."""
    names = ("weight", "bias", "weight gradient", "bias gradient")
    values = (weight, bias, *gradients)
    return {f"{case}: {name}": np.array(value) for name, value in zip(names, values, strict=False)}


def loaded(file: Path, case: str) -> dict[str, np.ndarray]:
    """What `saved` made of a case."""
    with np.load(file) as arrays:
        return {name.split(": ")[1]: arrays[name] for name in arrays if name.split(": ")[0] == case}


def example(name: str, folder: Path) -> Path:
    """The example of docs/how-to/train-on-devices.md that calls itself so, as a file."""
    (code,) = re.findall(rf"^```python\n(# {name}\n.*?)^```$", DOC.read_text(), re.MULTILINE | re.DOTALL)
    file = folder / name
    file.write_text(code)
    return file


def run(file: str | Path, folder: Path, **environment: str) -> str:
    """What a Python file prints, run in a folder whose modules it may import."""
    path = os.pathsep.join([str(folder), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(file)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
