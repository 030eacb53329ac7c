"""Cases of the parity suite: golden ones from `golden.json`, and random ones by their seeds."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np

from ..geometry.geometry import PADDING_MODES, PADDING_NAMES
from ..geometry.lower import output_shape


@dataclass(frozen=True)
class Case:
    """One call: `function(X, K, bias=bias, **options)`, and Y where it is known independently of convlab."""

    name: str
    X: np.ndarray
    K: np.ndarray
    bias: np.ndarray | None = None
    options: dict[str, Any] = field(default_factory=dict)
    function: str = "corr2d"
    Y: np.ndarray | None = None
    source: str = ""

    @property
    def arrays(self) -> list[np.ndarray]:
        """X and K, and the bias if there is one."""
        return [array for array in (self.X, self.K, self.bias) if array is not None]

    def __str__(self) -> str:
        return self.name


def golden_cases() -> list[Case]:
    """Small integer-valued cases worked out by hand, by SciPy or by ONNX's own test vectors; each names its source.

    >>> golden_cases()[0].name
    'chapter 3x3'
    """
    text = resources.files(__package__).joinpath("golden.json").read_text()
    return [_case(entry) for entry in json.loads(text)["cases"]]


def _case(entry: dict[str, Any]) -> Case:
    arrays = {key: np.array(entry[key]) if key in entry else None for key in ("X", "K", "bias", "Y")}
    return Case(
        name=entry["name"],
        options=entry.get("options", {}),
        function=entry.get("function", "corr2d"),
        source=entry["source"],
        **arrays,  # type: ignore[arg-type]
    )


def random_case(seed: int, *, integers: bool = False) -> Case:
    """A case with random geometry: any rank, layout, stride, padding, mode, value, origin, dilation and groups.

    Values are normal, or with `integers` whole numbers from -8 to 8, whose sums float32 and float64 hold exactly.
    Sizes are small; an impossible geometry is never drawn.
    """
    rng = np.random.default_rng(seed)

    def draw(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    channels, outputs = draw(1, 3), draw(1, 3)
    groups = draw(1, 3) if rng.random() < 0.4 else 1
    layout = str(rng.choice(["NCHW", "NHWC"]))
    h, w, dilation = draw(1, 4), draw(1, 4), (draw(1, 2), draw(1, 2))
    padding: Any = str(rng.choice(PADDING_NAMES))
    if rng.random() < 0.6:
        padding = ((draw(0, 3), draw(0, 3)), (draw(0, 3), draw(0, 3)))
    options: dict[str, Any] = {
        "stride": (draw(1, 5), draw(1, 5)),
        "padding": padding,
        "padding_mode": str(rng.choice(PADDING_MODES)),
        "dilation": dilation,
        "data_format": layout,
    }
    if options["padding_mode"] == "zeros" and rng.random() < 0.4:
        options["padding_value"] = float(draw(-3, 3))
    if padding == "same" and rng.random() < 0.5:
        options["origin"] = (draw(-(h // 2), (h - 1) // 2), draw(-(w // 2), (w - 1) // 2))
    size = ((h - 1) * dilation[0] + draw(1, 6), (w - 1) * dilation[1] + draw(1, 6))
    leading = tuple(draw(1, 3) for _ in range(draw(0, 2)))
    kernel: tuple[int, ...] = (h, w)
    nchw = layout == "NCHW"
    shape: tuple[int, ...] = (*leading, *size) if nchw or not leading else (*leading[1:], *size, leading[0])
    if rng.random() < 0.7:
        options["groups"] = groups
        kernel = (outputs * groups, channels, h, w) if nchw else (h, w, channels, outputs * groups)
        image = (channels * groups, *size) if nchw else (*size, channels * groups)
        shape = (draw(1, 3), *image) if rng.random() < 0.8 else image
    bias_shape = (1,) if len(kernel) == 2 else (outputs * groups,)
    output_shape(shape, kernel, **options)  # A geometry that convlab refuses is an error here.

    def values(shape: tuple[int, ...]) -> np.ndarray:
        return rng.integers(-8, 9, shape).astype(float) if integers else rng.standard_normal(shape)

    bias = values(bias_shape) if rng.random() < 0.5 else None
    return Case(f"random {seed}", values(shape), values(kernel), bias, options)


KINDS = ("normal", "wide", "cancelling", "subnormal", "special")


def fill(kind: str, shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
    """Random values that show how a sum was computed.

    "normal"; "wide": of very different magnitudes; "cancelling": pairs of plus and minus one number, some of them
    large, whose rounded sum shows its order; "subnormal": around the smallest normal number; "special": normal with
    some infinities, NaNs and negative zeros.

    >>> values = fill("cancelling", (4, 4), "float32", np.random.default_rng(0))
    >>> float(np.abs(values).max()) > 1000
    True
    """
    normal, limits = rng.standard_normal(shape), np.finfo(dtype)
    if kind == "wide":
        normal = normal * 2.0 ** rng.integers(limits.minexp // 3, limits.maxexp // 3, shape)
    elif kind == "subnormal":
        normal = normal * float(limits.tiny) * 2.0 ** rng.integers(-8, 3, shape)
    elif kind == "cancelling":
        flat = normal.ravel()
        half = flat.size // 2
        flat[half : 2 * half] = -rng.permutation(flat[:half])
        large = {"float16": 4, "float32": 40, "float64": 60}[dtype]
        normal = (flat * 2.0 ** rng.choice([0, large], flat.size)).reshape(shape)
    elif kind == "special":
        chosen = rng.random(shape) < 0.05
        normal[chosen] = rng.choice([np.inf, -np.inf, np.nan, -0.0], int(chosen.sum()))
    with np.errstate(over="ignore"):
        return normal.astype(dtype)
