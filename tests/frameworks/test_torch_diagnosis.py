"""What `compare` says of PyTorch models with the mistakes that people make."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
import torch.nn.functional as F
from making import words
from torch import nn

from convlab import compare
from convlab.models.compare.report import as_dict, comparison_page


class Net(nn.Module):
    """A residual block with channels one after another behind it; the options are mistakes."""

    def __init__(self, activation=F.relu, shortcut=True, joined=(0, 1), training=False, image=lambda x: x):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.inner, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3), nn.Conv2d(8, 5, 1)
        self.norm, self.activation, self.shortcut = nn.BatchNorm2d(4), activation, shortcut
        self.joined, self.image = joined, image
        for array in (self.norm.running_mean, self.norm.running_var):
            array.uniform_(0.5, 1.5)
        if training:
            self.norm.register_forward_hook(
                lambda norm, inputs, y: F.batch_norm(inputs[0], None, None, norm.weight, norm.bias, True)
            )
        self.eval()

    def forward(self, x):
        x = F.relu(self.norm(self.stem(self.image(x))))
        y = self.activation(self.inner(F.pad(x, (1, 1, 1, 1))))
        y = y + x if self.shortcut else y
        return self.head(torch.cat([(x, y)[i] for i in self.joined], 1))


@pytest.mark.parametrize(
    ("mistake", "path", "sentence"),
    [
        ({"activation": nn.Identity()}, "relu", "The second model has no relu: the first has 'relu' behind 'inner'."),
        ({"activation": F.gelu}, "relu", "Function is relu in the first, gelu in the second."),
        ({"shortcut": False}, "add", "The second model has no add: the first has 'add' behind 'relu' and 'relu'."),
        (
            {"joined": (1, 0)},
            "cat",
            "Swapped inputs: the first takes the results of 'relu', 'add', the second those of",
        ),
        ({"training": True}, "norm", "training mode: it normalises by the mean and variance of the batch"),
        (
            {"image": lambda x: x / 255},
            "",
            "Normalised inputs: the first model has no affine (x * 0.003922): the second has 'truediv' on the image.",
        ),
    ],
)
def test_a_mistake_is_named_where_it_is(mistake, path, sentence):
    comparison = compare(Net(), Net(**mistake))
    assert comparison.same is False
    assert comparison.first.a == path
    assert [row for row in comparison.rows if row.diverges] == [comparison.first]
    assert sentence in words(comparison)
    turned = compare(Net(**mistake), Net())
    assert turned.same is False
    assert len([row for row in turned.rows if row.diverges]) == 1


class Gated(nn.Module):
    """One half of the channels gates the other."""

    def __init__(self, order):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.order = nn.Conv2d(3, 8, 3), order

    def forward(self, x):
        parts = self.conv(x).chunk(2, 1)
        first, second = (parts[i] for i in self.order)
        return first * torch.sigmoid(second)


def test_kernels_are_tried_on_images_larger_than_their_dilation():
    """Otherwise only the middle of such a kernel counts, as in an atrous pyramid behind strides."""
    models = [nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 2, 3, 1, 6, 6)).eval() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    assert compare(*models).same
    with torch.no_grad():
        models[1][2].weight.copy_(models[0][2].weight.flip(2, 3))
    comparison = compare(*models)
    assert comparison.same is False
    assert "flipped" in words(comparison)


class OfTheBatch(nn.BatchNorm2d):
    """It normalises by the batch in inference, too."""

    def forward(self, x):
        return F.batch_norm(x, None, None, self.weight, self.bias, True, self.momentum, self.eps)


def test_the_layer_that_is_not_known_is_named_where_one_is_missing():
    models = [nn.Sequential(nn.Conv2d(3, 4, 3), norm(4), nn.ReLU()).eval() for norm in (nn.BatchNorm2d, OfTheBatch)]
    models[1][0].load_state_dict(models[0][0].state_dict())
    said = words(compare(*models))
    assert "no layer of the second model belongs to '1' (batch_norm)" in said
    assert "not known of the second are '1' (OfTheBatch: " in said
    assert "it normalises by the statistics of the batch, in inference, too" in said


@pytest.mark.parametrize("pool", [nn.MaxPool2d, functools.partial(nn.AvgPool2d, count_include_pad=False)])
@pytest.mark.parametrize("stride", [1, 2])
def test_pools_behind_strides_are_tried_on_images_larger_than_their_windows(pool, stride):
    def net(size):
        torch.manual_seed(0)
        convolutions = [nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)]
        return nn.Sequential(*convolutions, pool(size, stride, size // 2)).eval()

    comparison = compare(net(5), net(3))
    assert comparison.same is False
    assert "Size is (5, 5) in the first, (3, 3) in the second" in words(comparison)
    assert compare(net(5), net(5)).same


def test_the_parts_of_a_split_are_told_apart():
    said = words(compare(Gated((0, 1)).eval(), Gated((1, 0)).eval()))
    assert "takes the results of 'getitem' (part 2 of 2), the second those of 'getitem' (part 1 of 2)." in said


def test_what_only_one_model_has_is_shown():
    comparison = compare(Net(), Net(activation=nn.Identity()))
    assert "only in the first" in str(comparison)
    assert [row["only_in"] for row in as_dict(comparison)["layers"]].count("first") == 1
    page = comparison_page(comparison, "a", "b", "convlab compare a b")
    assert "relu · –" in page


def test_both_of_two_mistakes_are_named():
    wrong = Net(activation=nn.Identity())
    wrong.head.weight.data = wrong.head.weight.data.flip(1)
    wrong.norm.eps = 1e-3
    said = words(compare(Net(), wrong))
    assert "The outputs diverge at layer 'norm' (torch) and layer 'norm' (torch). Epsilon is 1e-05 in the first" in said
    assert "The second model has no relu: the first has 'relu' behind 'inner'." in said
    assert "Layer 'head' and layer 'head' diverge, too: kernel differs by up to" in said
    assert "input channels reversed: the input channels stand in reverse" in said


@pytest.mark.parametrize(
    ("layer", "change", "sentence"),
    [
        (nn.Conv2d(3, 9, 1), lambda a: a[[4, 3, 0, 1, 2, 8, 5, 6, 7]], "in the order 4, 3, 0, 1, 2, 8, 5, 6, …"),
        (nn.Conv2d(5, 3, 3), lambda a: a[:, [4, 0, 1, 2, 3]], "second's input channels are those of the first in the "),
        (nn.Conv2d(5, 3, 3), lambda a: a / 255, "times the first's, as for images of 0 to 255 against those of 0 to 1"),
        (nn.Linear(6, 4), lambda a: -a, "Negated weights: the second's kernel is the first's, negated."),
        (nn.Linear(5, 5), lambda a: a.T, "Kernel transposed: the second's kernel is the first's, transposed."),
        (nn.Linear(12, 2), lambda a: a.reshape(2, 3, 4).mT.reshape(2, 12), "Flattened in another order: the first's"),
        (nn.Linear(6, 4), lambda a: a.index_add(0, torch.tensor([2]), a[:1]), "output channels 2 differ, those of the"),
    ],
)
def test_weights_that_were_copied_wrongly(layer, change, sentence):
    wrong = copy.deepcopy(layer)
    wrong.weight.data = change(layer.weight.data).contiguous()
    assert sentence in words(compare(layer, wrong))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda norm: (norm.running_var, norm.running_mean), "Mean and variance swapped: "),
        (
            lambda norm: (0.1 * norm.running_mean, 1 + 0.1 * (norm.running_var - 1)),
            "have gone 0.1 times as far from 0 and",
        ),
        (lambda norm: (norm.running_mean, norm.running_var * 32 / 31), "is 1.03226 times the first's, as n / (n - 1)"),
        (lambda norm: (0 * norm.running_mean, 1 + 0 * norm.running_var), "Statistics not loaded: "),
    ],
    ids=["swapped", "momentum", "unbiased", "new"],
)
def test_statistics_that_were_copied_wrongly(change, sentence):
    norm = nn.BatchNorm2d(4)
    norm.running_mean.uniform_(0.5, 2)
    norm.running_var.uniform_(0.5, 2)
    wrong = copy.deepcopy(norm)
    for array, value in zip((wrong.running_mean, wrong.running_var), change(norm), strict=True):
        array.copy_(value)
    assert sentence in words(compare(norm.eval(), wrong.eval()))


def test_a_layer_whose_class_says_another_function():
    wrong = nn.ReLU()
    wrong.register_forward_hook(lambda module, inputs, y: F.silu(inputs[0]))
    conv = nn.Conv2d(3, 2, 1)
    said = words(compare(nn.Sequential(conv, nn.ReLU()), nn.Sequential(conv, wrong)))
    assert "another activation: it computes silu instead of relu. To mend it: use relu." in said


def test_a_norm_that_is_part_of_the_weights_is_no_difference_of_results():
    """A batch norm may be folded into the convolution before it."""
    conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).eval()
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    folded = torch.nn.utils.fuse_conv_bn_eval(conv.eval(), norm)
    comparison = compare(nn.Sequential(conv, norm, nn.ReLU()).eval(), nn.Sequential(folded, nn.ReLU()).eval())
    assert comparison.same is None
    assert "the results agree on images of" in words(comparison)


def test_the_corners_of_an_upsampling():
    """The commonest difference between frameworks' decoders."""
    conv = nn.Conv2d(3, 4, 3)
    a, b = (nn.Sequential(conv, nn.Upsample(scale_factor=2, mode="bilinear", align_corners=c)) for c in (False, True))
    comparison = compare(a, b)
    assert comparison.first.a == "1"
    assert "another upsampling: it takes bilinear interpolation of aligned corners" in comparison.first.diagnosis
    nearest = nn.Sequential(conv, nn.Upsample(scale_factor=2))
    assert "it takes the nearest pixel instead of bilinear" in compare(a, nearest).first.diagnosis


def test_images_that_one_model_normalises():
    class Normalising(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1))
            self.conv = conv

        def forward(self, x):
            return self.conv(x - self.mean)

    conv = nn.Conv2d(3, 4, 3)
    assert "Normalised inputs: the second model has no channel_affine" in words(
        compare(Normalising(), nn.Sequential(conv))
    )
