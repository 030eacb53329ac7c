"""PyTorch's code of several arguments: views and resizes by the sizes of another image, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from making import port_parts
from torch import nn

from convlab import port
from convlab.errors import PartialPortWarning

RNG = np.random.default_rng(3)
LEFT, RIGHT = (torch.from_numpy(RNG.normal(size=(2, 3, n, n + 1)).astype("float32")) for n in (12, 9))
ROW = torch.from_numpy(RNG.normal(size=(2, 5)).astype("float32"))


class Code(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3, stride=2)
        self.dense, self.head = nn.Linear(5, 4), nn.Linear(8, 2)


class Views(Code):
    def forward(self, image, row):
        x = self.conv(image).amax((2, 3), keepdim=True)
        return self.head(torch.cat([x.view(x.size(0), -1), self.dense(row)], 1))


class RowFirst(Code):
    def forward(self, row, image):
        x = self.conv(image)
        n, c, rows, columns = x.shape
        return x * torch.sigmoid(self.dense(row)).view(n, c, 1, 1).expand(n, c, rows, columns)


class Resized(Code):
    def forward(self, left, right):
        return self.other(right), self.conv(F.interpolate(left, size=right.shape[2:]))


class Beside(Code):
    def forward(self, image, row):
        x = self.conv(image).amax((2, 3))
        return self.head(torch.cat([x[:, :3], row], 1))


class Keyword(Code):
    def forward(self, left, *, right):
        return self.conv(left) + self.conv(right)


def initialised(kind: type[Code]) -> Code:
    torch.manual_seed(0)
    return kind().eval()


def together(result: torch.Tensor | tuple[torch.Tensor, ...]) -> np.ndarray:
    several = result if isinstance(result, tuple) else (result,)
    return np.concatenate([each.detach().numpy().ravel() for each in several])


@pytest.mark.filterwarnings("ignore::convlab.errors.PartialPortWarning")  # of layers that a kind doesn't use
@pytest.mark.parametrize(
    ("kind", "given"),
    [(Views, (LEFT, ROW)), (RowFirst, (ROW, LEFT)), (Resized, (LEFT, RIGHT)), (Resized, (RIGHT, LEFT))],
)
def test_code_that_computes_with_sizes(kind, given):
    model = initialised(kind)
    ported = port(model, to="torch")
    assert ported.evidence.same
    np.testing.assert_allclose(together(ported.model(*given)), together(model(*given)), rtol=1e-5, atol=1e-6)


def test_sizes_that_fail_are_tried_in_silence(capfd):
    """Nothing tells that the second argument is a row before the code is read; PyTorch logs each failure."""
    model = initialised(Beside)
    with pytest.warns(PartialPortWarning):
        ported = port(model, to="torch")
    assert ported.evidence.same
    np.testing.assert_allclose(together(ported.model(LEFT, ROW)), together(model(LEFT, ROW)), rtol=1e-5, atol=1e-6)
    assert "Number of dimensions" not in capfd.readouterr().err


def test_an_argument_by_keyword_alone_is_refused():
    why = "'right' beside 'left', which isn't an argument by position"
    assert "conv" in port_parts(initialised(Keyword), why, to="torch").layers
