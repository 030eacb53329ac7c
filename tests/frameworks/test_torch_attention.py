"""Vision transformers as PyTorch's users write them: tokens, attention, windows, and channels that come last."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convlab import port, port_weights
from convlab.errors import ModelError, PartialPortWarning
from convlab.models.adapters import read
from convlab.models.layers.windows import WindowAttention

IMAGES = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 16, 8)))


class Block(nn.Module):
    """One block of arXiv:2010.11929."""

    def __init__(self, channels: int, **options: object) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, 2, **{"batch_first": True, **options})
        self.mlp = nn.Sequential(nn.Linear(channels, 12), nn.GELU(), nn.Dropout(0.1), nn.Linear(12, channels))

    def forward(self, x):
        y = self.ln_1(x)
        y, _ = self.attention(y, y, y, need_weights=False)
        x = x + y
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """Patches, a class token, positions, blocks and a head."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.class_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.positions = nn.Parameter(torch.zeros(1, 9, 8))
        self.blocks = nn.Sequential(Block(8, **options), Block(8, **options))
        self.ln, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

    def tokens(self, x):
        n = x.shape[0]
        return self.patches(x).reshape(n, 8, -1).permute(0, 2, 1)

    def forward(self, x):
        x = self.tokens(x)
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        return self.head(self.ln(self.blocks(x + self.positions))[:, 0])


class Flattened(Transformer):
    """The same, with other words for the axes."""

    def tokens(self, x):
        return self.patches(x).flatten(2).transpose(1, 2)


class Averaged(Transformer):
    """The mean of all tokens, without one of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(1, 8, 8))
        del self.class_token

    def forward(self, x):
        return self.head(self.ln(self.blocks(self.tokens(x) + self.positions)).mean(dim=1))


class Encoded(Transformer):
    """The blocks by PyTorch's own encoder."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, activation="gelu", batch_first=True, norm_first=norm_first)
        self.blocks = nn.TransformerEncoder(layer, 2, nn.LayerNorm(8), enable_nested_tensor=False)


class Pooled(nn.Module):
    """Images with their channels last: slices, borders, joined channels and a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.reduce, self.head = nn.Conv2d(3, 6, 3), nn.Linear(24, 4, bias=False), nn.Linear(4, 5)

    def forward(self, x):
        x = self.stem(x).permute(0, 2, 3, 1)
        x = F.pad(x, (0, 0, 1, 1, 2, 0))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2, :], x[..., 0::2, 1::2, :], x[:, 1::2, 1::2]], -1)
        return self.head(self.reduce(x).mean((1, 2)))


def shaken(model: nn.Module) -> nn.Module:
    """The model with random numbers, in inference."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def check(model: nn.Module, **options: object) -> None:
    """A port computes what the model computes in float64."""
    ported = port(model, to="torch", **options)
    assert ported.evidence.same
    assert not ported.untouched
    with torch.no_grad():
        expected, result = model.double()(IMAGES), ported.model.double()(IMAGES)
    assert result.shape == expected.shape
    assert float((result - expected).abs().max()) < 1e-12


@pytest.mark.parametrize("kind", [Transformer, Flattened, Averaged])
def test_a_transformer_is_ported(kind) -> None:
    check(shaken(kind()), input_size=(16, 8))


@pytest.mark.parametrize("norm_first", [False, True])
def test_pytorchs_own_encoder_is_ported(norm_first) -> None:
    check(shaken(Encoded(norm_first)), input_size=(16, 8))


def test_images_with_channels_last() -> None:
    check(shaken(Pooled()))


def test_a_port_trains_as_the_transformer_does() -> None:
    model = shaken(Transformer())
    ported = port(model, to="torch", input_size=(16, 8)).model
    names = dict(ported.named_parameters())
    images, grads = IMAGES.float(), {}
    for each in (model, ported):
        each(images).square().sum().backward()
        grads[each] = {name: parameter.grad for name, parameter in each.named_parameters()}
    alike = {"blocks.0.attention.in_proj_weight", "blocks.1.attention.out_proj.bias", "head.weight"}
    for name in alike & set(names):
        torch.testing.assert_close(grads[ported][name], grads[model][name], rtol=1e-4, atol=1e-4)
    assert alike <= set(names)
    token = grads[ported]["class_token.token"]
    torch.testing.assert_close(token, grads[model]["class_token"].reshape(-1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options", [{"batch_first": False}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": 8, "vdim": 4}]
)
def test_other_attention_is_refused(options) -> None:
    with pytest.warns(PartialPortWarning, match="attention"):
        port(shaken(Transformer(**options)), to="torch", input_size=(16, 8))


class Attention(nn.Module):
    """As timm, DeiT and DINO write it."""

    def __init__(self, channels: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.num_heads, self.fused = heads, fused
        self.qkv, self.proj = nn.Linear(channels, 3 * channels, bias=False), nn.Linear(channels, channels)
        self.attn_drop, self.proj_drop, self.q_norm = nn.Dropout(0.1), nn.Dropout(0.2), nn.Identity()

    def forward(self, x):
        n, tokens, channels = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, self.num_heads, channels // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.fused:
            x = F.scaled_dot_product_attention(self.q_norm(q), k, v)
        else:
            x = self.attn_drop((q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1)) @ v
        return self.proj_drop(self.proj(x.transpose(1, 2).reshape(n, tokens, channels)))


class Named(Transformer):
    """A transformer of such blocks."""

    def __init__(self, fused: bool = True, kind: type[nn.Module] = Attention) -> None:
        super().__init__()
        self.attention = kind(8, 4, fused)
        del self.blocks

    def blocks(self, x):
        return x + self.attention(x)


@pytest.mark.parametrize("fused", [True, False])
def test_attention_of_anyones_is_known_by_what_it_computes(fused) -> None:
    check(shaken(Named(fused)), input_size=(16, 8))


def test_what_only_looks_like_attention_is_refused() -> None:
    class Causal(Attention):
        def forward(self, x):
            n, tokens, channels = x.shape
            q, k, v = self.qkv(x).reshape(n, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
            x = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.proj(x.transpose(1, 2).reshape(n, tokens, channels))

    with pytest.warns(PartialPortWarning, match="scaled_dot_product_attention|unpack|iterated|traced"):
        port(shaken(Named(kind=Causal)), to="torch", input_size=(16, 8))


def shifted_window_attention(x, module):
    """Swin's attention, with a loop over the windows: images (N, H, W, C) whose sides are multiples of the window."""
    n, rows, columns, channels = x.shape
    (h, w), (down, across) = module.window_size, module.shift_size
    x = torch.roll(x, (-down, -across), (1, 2))
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).reshape(rows, columns, 2)
    bias = module.biases()[module.relative_position_index].reshape(h * w, h * w, -1)
    weight, shift = module.qkv.weight, module.qkv.bias.clone()
    if hasattr(module, "logit_scale"):
        shift[channels : 2 * channels] = 0
    result = torch.zeros_like(x)
    for top in range(0, rows, h):
        for left in range(0, columns, w):
            window = x[:, top : top + h, left : left + w].reshape(n, h * w, channels)
            where = places[top : top + h, left : left + w].reshape(-1, 2)
            wrapped = torch.stack([where[:, 0] >= rows - down, where[:, 1] >= columns - across], 1)
            mask = -100.0 * (wrapped[:, None] != wrapped).any(-1)
            parts = F.linear(window, weight, shift).reshape(n, h * w, 3, module.num_heads, -1)
            q, k, v = parts.permute(2, 0, 3, 1, 4)
            if hasattr(module, "logit_scale"):
                scores = F.cosine_similarity(q[:, :, :, None], k[:, :, None], dim=-1)
                scores = scores * module.logit_scale.clamp(max=np.log(100)).exp()
            else:
                scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
            means = (scores + bias.permute(2, 0, 1) + mask).softmax(-1) @ v
            means = means.transpose(1, 2).reshape(n, h * w, channels)
            result[:, top : top + h, left : left + w] = module.proj(means).reshape(n, h, w, channels)
    return torch.roll(result, (down, across), (1, 2))


@pytest.fixture(params=["ShiftedWindowAttention", "ShiftedWindowAttentionV2"])
def torchvision_attention(request, monkeypatch) -> type[nn.Module]:
    """Classes of the names and with the attributes of torchvision's, which isn't installed here."""

    class ShiftedWindowAttention(nn.Module):
        def __init__(self, dim: int, window_size: list[int], shift_size: list[int], num_heads: int) -> None:
            super().__init__()
            self.window_size, self.shift_size, self.num_heads = window_size, shift_size, num_heads
            self.attention_dropout = 0.0
            self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
            h, w = window_size
            self.table()
            rows, columns = torch.cartesian_prod(torch.arange(h), torch.arange(w)).T
            index = (rows[:, None] - rows + h - 1) * (2 * w - 1) + columns[:, None] - columns + w - 1
            self.register_buffer("relative_position_index", index.flatten())

        def table(self):
            h, w = self.window_size
            shape = (2 * h - 1) * (2 * w - 1), self.num_heads
            self.relative_position_bias_table = nn.Parameter(torch.zeros(shape))

        def biases(self):
            return self.relative_position_bias_table

        def forward(self, x):
            return shifted_window_attention(x, self)

    class ShiftedWindowAttentionV2(ShiftedWindowAttention):
        def table(self):
            h, w = self.window_size
            far = torch.cartesian_prod(torch.linspace(-8, 8, 2 * h - 1), torch.linspace(-8, 8, 2 * w - 1))
            far = far.sign() * torch.log2(far.abs() + 1) / 3
            self.register_buffer("relative_coords_table", far.reshape(1, 2 * h - 1, 2 * w - 1, 2))
            self.cpb_mlp = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, self.num_heads, bias=False))
            self.logit_scale = nn.Parameter(torch.linspace(1, 6, self.num_heads).reshape(-1, 1, 1))

        def biases(self):
            return 16 * torch.sigmoid(self.cpb_mlp(self.relative_coords_table).view(-1, self.num_heads))

    kind = {each.__name__: each for each in (ShiftedWindowAttention, ShiftedWindowAttentionV2)}[request.param]
    name = "torchvision.models.swin_transformer"
    kind.__module__, kind.__qualname__ = name, request.param
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    return kind


def test_torchvisions_windows(torchvision_attention) -> None:
    class Swin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 2, stride=2)
            self.first = torchvision_attention(8, [4, 2], [0, 0], 2)
            self.second = torchvision_attention(8, [4, 2], [1, 1], 4)

        def forward(self, x):
            x = self.first(self.stem(x).permute(0, 2, 3, 1))
            return (x + self.second(x)).permute(0, 3, 1, 2)

    model = shaken(Swin()).double()
    shifts = [part.layer.shift for part in read(model).parts if isinstance(part.layer, WindowAttention)]
    assert shifts == [(0, 0), (1, 1)]
    check(model, inputs=IMAGES.numpy())
    ported = port(model, to="torch", inputs=IMAGES.numpy()).model
    if "V2" not in torchvision_attention.__name__:
        model.load_state_dict(ported.state_dict())
        return
    with pytest.raises(ModelError, match="it computes its position biases by two dense layers, got a table"):
        port_weights(None, ported, model, inputs=IMAGES.numpy())
