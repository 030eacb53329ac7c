"""torch's optimisers in `learn_kernel`, against loops written with torch alone."""

from __future__ import annotations

from functools import partial

import learning
import pytest
import torch
from learning import OPTIONS, START, X, Y
from torch import nn

from convlab import errors
from convlab import torch as lab

OPTIMISERS = [
    partial(torch.optim.SGD, lr=1e-4, momentum=0.9, nesterov=True),
    partial(torch.optim.Adam, lr=0.03),
    partial(torch.optim.AdamW, lr=0.03, amsgrad=True),
    partial(torch.optim.LBFGS, lr=0.1, max_iter=2, history_size=3),
]
NAMES = [each.func.__name__ for each in OPTIMISERS]


@pytest.mark.parametrize("optimizer", OPTIMISERS, ids=NAMES)
def test_walks_its_path(optimizer) -> None:
    layer = nn.Conv2d(3, 4, 3, padding=1)
    layer.weight.data, layer.bias.data = torch.from_numpy(START.copy()), torch.zeros(4)
    own, losses = optimizer(layer.parameters()), []

    def closure():
        own.zero_grad()
        loss = ((layer(torch.from_numpy(X)) - torch.from_numpy(Y)) ** 2).sum()
        loss.backward()
        return loss

    for _ in range(12):
        losses.append(own.step(closure).item())
    learned = lab.learn_kernel(torch.from_numpy(X), torch.from_numpy(Y), 3, optimizer=optimizer, **OPTIONS)
    learning.check_alike(lab, learned, losses, layer.weight.detach().numpy(), layer.bias.detach().numpy())


@pytest.mark.parametrize("optimizer", OPTIMISERS[:3], ids=NAMES[:3])
def test_goes_on_with_its_memory(optimizer, tmp_path) -> None:
    learning.check_resumed(lab, lambda: optimizer, tmp_path)


def test_one_that_runs_away() -> None:
    with pytest.raises(errors.DivergedError, match=r"optimizer: the loss went from .* Hint: give it a smaller"):
        lab.learn_kernel(
            torch.from_numpy(X),
            torch.from_numpy(Y),
            3,
            optimizer=partial(torch.optim.SGD, lr=1e3),
            **{**OPTIONS, "num_steps": 50},
        )


def test_images_that_carry_gradients_are_left_alone() -> None:
    x = torch.from_numpy(X).requires_grad_()
    learned = lab.learn_kernel(x, torch.from_numpy(Y), 3, **OPTIONS, lr=1e-4)
    assert x.grad is None
    assert not learned.kernel.requires_grad


def test_another_optimisers_checkpoint(tmp_path) -> None:
    images = torch.from_numpy(X), torch.from_numpy(Y)
    path = tmp_path / "run"
    lab.learn_kernel(*images, 3, **OPTIONS, optimizer=OPTIMISERS[0], checkpoint=path)
    with pytest.raises(errors.CheckpointError, match=r"of another problem: got optimizer .*SGD .*, expected .*Adam "):
        lab.learn_kernel(*images, 3, **OPTIONS, optimizer=OPTIMISERS[1], checkpoint=path)
    faster = partial(torch.optim.SGD, lr=2e-4, momentum=0.9, nesterov=True)
    with pytest.raises(errors.CheckpointError, match=r"'lr': 0.0001.*'lr': 0.0002"):
        lab.learn_kernel(*images, 3, **OPTIONS, optimizer=faster, checkpoint=path)


def test_what_is_no_optimiser_or_cannot_be_kept(tmp_path) -> None:
    images = torch.from_numpy(X), torch.from_numpy(Y)
    for wrong in ("adam", torch.optim.SparseAdam, torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])):
        with pytest.raises(
            errors.GeometryError, match=r"optimizer: got .*, expected what makes an optimiser of a list"
        ):
            lab.learn_kernel(*images, 3, **OPTIONS, optimizer=wrong)
    with pytest.raises(errors.CheckpointError, match="the optimizer's state has entries that aren't arrays of numbers"):
        lab.learn_kernel(*images, 3, **OPTIONS, optimizer=OPTIMISERS[3], checkpoint=tmp_path / "run")


def test_half_precision_is_kept_too(tmp_path) -> None:
    images = torch.from_numpy(X).bfloat16(), torch.from_numpy(Y).bfloat16()
    learned = lab.learn_kernel(*images, 3, **OPTIONS, optimizer=OPTIMISERS[1], checkpoint=tmp_path / "run")
    assert learned.losses[-1] < learned.losses[0]


def test_inference_mode() -> None:
    with torch.inference_mode():
        x, y = torch.from_numpy(X) + 0, torch.from_numpy(Y) + 0
        inside = lab.learn_kernel(x, y, 3, **OPTIONS, lr=1e-4)
    outside = lab.learn_kernel(x, y, 3, **OPTIONS, lr=1e-4)
    expected = lab.learn_kernel(torch.from_numpy(X), torch.from_numpy(Y), 3, **OPTIONS, lr=1e-4)
    assert inside.losses == outside.losses == expected.losses
    assert not inside.kernel.requires_grad
