"""The private names of PyTorch that the adapter touches, and what it does without them."""

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

import convlab
from convlab_torch import private


def test_a_tensor_inside_vmap_is_wrapped() -> None:
    answers = []
    torch.func.vmap(lambda x: answers.append(private.is_wrapped(x)) or x)(torch.ones(2))
    assert answers == [True]
    assert not private.is_wrapped(torch.ones(2))


def test_vmap_is_a_transform() -> None:
    answers = []
    torch.func.vmap(lambda x: answers.append(private.is_transforming()) or x)(torch.ones(2))
    assert answers == [True]
    assert not private.is_transforming()


def test_a_dispatch_mode_is_noticed() -> None:
    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            return function(*args, **(kwargs or {}))

    assert not private.has_dispatch_mode()
    with Mode():
        assert private.has_dispatch_mode()


def test_forward_mode_is_noticed() -> None:
    assert not private.in_forward_mode()
    with forward_ad.dual_level():
        assert private.in_forward_mode()


def test_a_view_is_one() -> None:
    x = torch.ones(4)
    assert private.is_view(x[1:])
    assert not private.is_view(x)


def test_shapes_need_no_numbers() -> None:
    with private.shapes_alone():
        image = torch.zeros(2, 3, 10**6, 10**6)  # Its numbers would take terabytes.
        assert torch.nn.functional.avg_pool2d(image, 2).shape == (2, 3, 5 * 10**5, 5 * 10**5)


class Nameless:
    """A tensor of a PyTorch without `_is_view`."""


@pytest.fixture
def without_private_names(monkeypatch):
    for name in ("_is_wrapped", "_innermost_transform", "_count_dispatch_modes", "_fake_mode"):
        monkeypatch.setattr(private, name, None)


def test_without_the_names_the_answers_are_cautious(monkeypatch, without_private_names) -> None:
    monkeypatch.delattr(forward_ad, "_current_level")
    assert private.is_wrapped(torch.ones(2))
    assert private.is_transforming()
    assert private.has_dispatch_mode()
    assert private.in_forward_mode()
    assert private.is_view(Nameless())
    with private.shapes_alone():
        assert torch.ones(3).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("reproducible", [False, True])
def test_without_the_names_results_and_gradients_are_the_same(without_private_names, reproducible, monkeypatch) -> None:
    generator = np.random.default_rng(0)
    x, k = generator.normal(size=(2, 3, 9, 8)), generator.normal(size=(4, 3, 3, 2))

    def computed():
        image, kernel = torch.tensor(x, requires_grad=True), torch.tensor(k, requires_grad=True)
        y = convlab.corr2d(image, kernel, stride=2, padding=1, reproducible=reproducible)
        return y, *torch.autograd.grad(y.square().sum(), (image, kernel))

    cautious = computed()
    monkeypatch.undo()
    for one, other in zip(cautious, computed(), strict=True):
        np.testing.assert_allclose(one.detach(), other.detach(), rtol=1e-12, atol=1e-12)


def test_without_views_told_apart_the_result_is_copied(monkeypatch) -> None:
    monkeypatch.setattr(private, "is_view", lambda x: True)
    image, kernel = torch.ones(1, 1, 5, 5, requires_grad=True), torch.ones(1, 1, 2, 2)
    y = convlab.corr2d(image, kernel, reproducible=True)
    assert torch.equal(y, torch.full((1, 1, 4, 4), 4.0))


def test_hooks_before_a_call_are_found() -> None:
    layer = torch.nn.Linear(2, 2)
    assert private.hooks_before(layer) == []
    layer.register_forward_pre_hook(print)
    assert private.hooks_before(layer) == [print]


def test_what_fails_with_shapes_alone_isnt_logged(capfd) -> None:
    with pytest.raises(RuntimeError, match="reduction dim"), private.shapes_alone():
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    assert capfd.readouterr() == ("", "")
