"""Hybrids of convolutions and transformers in PyTorch: images whose pixels become tokens, and images again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_torch_attention import Encoded, Transformer, check, shaken
from torch import nn

from convlab import port
from convlab.errors import PartialPortWarning
from convlab.models.adapters import read


class Hybrid(nn.Module):
    """Convolutions, tokens of their pixels, and convolutions of the image that these become again."""

    def __init__(self, back, tokens=lambda y: y.flatten(2).transpose(1, 2), mixed: nn.Module | None = None) -> None:
        super().__init__()
        self.back, self.tokens, self.mixed = back, tokens, mixed or nn.Linear(8, 8)
        self.stem, self.norm, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.LayerNorm(8), nn.Conv2d(8, 3, 1)

    def forward(self, x):
        y = self.stem(x)
        return self.head(self.back(self.norm(self.mixed(self.tokens(y))), y) + y)


class Attended(nn.Module):
    """Attention of tokens to themselves, added to them."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return x + self.attention(x, x, x)[0]


def channels_and_tokens(t, y):
    b, c, h, w = y.shape
    return t.transpose(1, 2).reshape(b, c, h, w)


BACK = {
    "reshape": channels_and_tokens,
    "view": lambda t, y: t.permute(0, 2, 1).contiguous().view(y.shape[0], -1, y.shape[2], y.shape[3]),
    "size": lambda t, y: t.transpose(-1, -2).reshape(y.size(0), 8, y.size(2), y.size(-1)),
    "its shape": lambda t, y: t.transpose(1, 2).reshape(y.shape),
    "-1 images": lambda t, y: t.transpose(2, 1).view(-1, y.shape[1], *y.shape[2:]),
    "-1 columns": lambda t, y: torch.reshape(t.transpose(1, 2), (y.shape[0], y.shape[1], y.shape[2], -1)),
    "unflatten": lambda t, y: t.transpose(1, 2).unflatten(2, (y.shape[2], y.shape[3])),
    "view_as": lambda t, y: t.transpose(1, 2).reshape_as(y),
    "channels last": lambda t, y: t.reshape(len(t), y.shape[2], y.shape[3], -1).permute(0, 3, 1, 2),
    "channels last, unflatten": lambda t, y: t.unflatten(1, y.shape[2:]).permute(0, 3, 1, 2),
    "channels last, c": lambda t, y: t.view(y.size(0), y.size(2), y.size(3), y.size(1)).movedim(-1, 1),
}
FORTH = {
    "reshape": lambda y: y.reshape(y.shape[0], y.shape[1], -1).permute(0, 2, 1),
    "view": lambda y: y.view(y.shape[0], y.shape[1], y.shape[2] * y.shape[3]).transpose(1, 2),
    "channels last": lambda y: y.permute(0, 2, 3, 1).reshape(y.shape[0], -1, 8),
    "channels last, c": lambda y: y.permute(0, 2, 3, 1).reshape(y.shape[0], y.shape[2] * y.shape[3], y.shape[1]),
    "channels last, -1": lambda y: y.permute(0, 2, 3, 1).reshape(y.shape[0], y.shape[2] * y.shape[3], -1),
    "channels last, flatten": lambda y: y.permute(0, 2, 3, 1).flatten(1, 2),
}


@pytest.mark.parametrize("options", [{}, {"input_size": (16, 8)}])
@pytest.mark.parametrize("name", BACK)
def test_tokens_become_the_image_that_they_came_from(name, options) -> None:
    check(shaken(Hybrid(BACK[name])), **options)


@pytest.mark.parametrize("options", [{}, {"input_size": (16, 8)}])
@pytest.mark.parametrize("name", FORTH)
def test_an_image_becomes_tokens_and_an_image_again(name, options) -> None:
    check(shaken(Hybrid(channels_and_tokens, FORTH[name])), **options)


@pytest.mark.parametrize("options", [{}, {"input_size": (16, 8)}])
@pytest.mark.parametrize("name", ["attention", "encoder"])
def test_tokens_that_attend_become_an_image(name, options) -> None:
    mixed = Attended() if name == "attention" else Encoded(norm_first=True).blocks
    check(shaken(Hybrid(channels_and_tokens, mixed=mixed)), **options)


def test_a_port_of_tokens_and_images_is_for_images_of_other_sizes() -> None:
    model = shaken(Hybrid(channels_and_tokens)).double()
    images = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 3, 13, 22)))
    torch.testing.assert_close(port(model, to="torch").model(images), model(images), rtol=0, atol=1e-12)


def test_rows_and_columns_may_be_computed_from_those_of_the_image() -> None:
    class Patches(Hybrid):
        def forward(self, x):
            n, _, rows, columns = x.shape
            t = self.norm(self.mixed(self.tokens(F.max_pool2d(self.stem(x), 2))))
            return self.head(t.transpose(1, 2).reshape(n, 8, rows // 4, columns // 4))

    model = shaken(Patches(None))
    check(model)
    assert read(model).multiple == 2


WRONG = {
    "swapped": lambda t, y: (
        t.transpose(1, 2).reshape(y.shape[0], y.shape[1], y.shape[3], y.shape[2]).mean((2, 3), True)
    ),
    "swapped, unflatten": lambda t, y: t.transpose(1, 2).unflatten(2, (y.shape[3], y.shape[2])).mean((2, 3), True),
    "swapped, last": lambda t, y: (
        t.reshape(y.shape[0], y.shape[3], y.shape[2], 8).permute(0, 3, 1, 2).mean((2, 3), True)
    ),
    "a row": lambda t, y: t.transpose(1, 2).reshape(y.shape[0], 8, 1, -1).mean((2, 3), True),
    "not moved": lambda t, y: t.reshape(y.shape),
}


@pytest.mark.parametrize("options", [{}, {"input_size": (16, 8)}])
@pytest.mark.parametrize("name", WRONG)
def test_other_images_of_tokens_are_refused(name, options) -> None:
    with pytest.warns(PartialPortWarning, match="reshape|unflatten|view"):
        port(shaken(Hybrid(WRONG[name])), to="torch", **options)


def test_an_image_of_tokens_behind_a_class_token_is_refused() -> None:
    class Behind(Transformer):
        def forward(self, x):
            x = self.tokens(x)
            x = self.blocks(torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1))
            return x.transpose(1, 2).reshape(x.shape[0], 8, 3, 3)

    with pytest.warns(PartialPortWarning, match="reshape"):
        port(shaken(Behind()), to="torch", input_size=(16, 8))
