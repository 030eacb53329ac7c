"""Mistakes with transposed convolutions are named, in results that PyTorch computed from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv_transpose2d

from convlab import compare
from convlab.models.compare.suspects import LayerCase, layer_cause
from convlab.models.layers.transposed import TransposedConvolution

RNG = np.random.default_rng(0)
X, KERNEL, BIAS = (RNG.standard_normal(shape).astype("float32") for shape in ((2, 4, 5, 6), (4, 4, 3, 3), (4,)))
# As stride 2, padding 1 and output_padding 1 of PyTorch.
UP = TransposedConvolution(KERNEL, BIAS, (2, 2), ((1, 0), (1, 0)))


def torchs(kernel=KERNEL, bias=BIAS, padding=(1, 1), output_padding=(1, 1), groups=1):
    arrays = [None if array is None else torch.from_numpy(np.array(array)) for array in (X, kernel, bias)]
    return conv_transpose2d(*arrays, (2, 2), padding, output_padding, groups).numpy().astype(float)


def cause(result, a=UP, b=None):
    bound = a.error(X.astype(float), np.zeros(X.shape), "float32")
    return layer_cause(LayerCase(a, b or a, X.astype(float), result, bound))


NAMED = {
    "both axes": (torchs(KERNEL[:, :, ::-1, ::-1]), "kernel flipped: the kernel is flipped on both axes"),
    "rows": (torchs(KERNEL[:, :, ::-1]), "kernel flipped: the kernel is flipped top to bottom"),
    "columns": (torchs(KERNEL[..., ::-1]), "kernel flipped: the kernel is flipped left to right"),
    "transposed": (torchs(KERNEL.transpose(0, 1, 3, 2)), "kernel transposed: the kernel's rows are its columns"),
    "channels": (
        torchs(KERNEL.transpose(1, 0, 2, 3)),
        "kernel channels swapped: the kernel's 4 input and 4 output channels are swapped",
    ),
    "no padding": (
        torchs(padding=(0, 0), output_padding=(0, 0))[:, :, :-1, :-1],
        "other padding: .* is ((0, 1), (0, 1)) instead of ((1, 0), (1, 0))",
    ),
    "no output_padding": (
        torchs(output_padding=(0, 0)),
        "other padding: .* is ((1, 1), (1, 1)) instead of ((1, 0), (1,",
    ),
    "one more": (torchs(padding=(2, 1)), "other padding: .* is ((2, 1), (1, 0)) instead of"),
    "no bias": (torchs(bias=None), "bias missing: the bias isn't added"),
    "minus bias": (torchs(bias=-BIAS), "bias negated: the bias is subtracted"),
    "two biases": (torchs(bias=2 * BIAS), "bias doubled: the bias is added twice"),
    "bias reversed": (torchs(bias=BIAS[::-1]), "bias reversed: the bias's channels stand in reverse"),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_mistake_is_named(name) -> None:
    result, words = NAMED[name]
    text = cause(result)
    assert text.startswith(words.split(" .* ")[0]), text
    assert words.split(" .* ")[-1] in text
    assert "\nTo mend it: " in text


def test_what_isnt_one_has_no_name() -> None:
    assert cause(torchs(KERNEL + 0.01)) == ""
    assert cause(torchs()[:, :2]) == ""


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (KERNEL[[2, 0, 1, 3]], "permuted inputs: the second's input channels are those of the first in the order 2, 0"),
        (
            KERNEL[:, [0, 3, 1, 2]],
            "permuted outputs: the second's output channels are those of the first in the order 0",
        ),
        (-KERNEL, "negated weights"),
        (KERNEL * 2, "scaled weights: the second's kernel is 2 times"),
        (
            np.where(np.arange(4).reshape(-1, 1, 1) == 2, KERNEL + 1, KERNEL),
            "some outputs: the weights of output channels 2 ",
        ),
    ],
)
def test_weights_that_differ(kernel, words) -> None:
    assert cause(torchs(kernel), b=TransposedConvolution(kernel, BIAS, (2, 2), UP.crop)).startswith(words)


def test_models_are_compared() -> None:
    torch.manual_seed(0)
    mine, theirs = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 4, 3, 2, 1, 1)) for _ in range(2))
    theirs.load_state_dict(mine.state_dict())
    assert compare(mine, theirs).same is True
    with torch.no_grad():
        theirs[1].weight.copy_(mine[1].weight.flip(2, 3))
    (row,) = (row for row in compare(mine, theirs).rows if not row.same)
    assert row.a == "1"
    assert row.diagnosis.startswith("kernel flipped: the kernel is flipped on both axes")
