"""Vision transformers as Flax's users write them, in linen and in nnx: tokens by reshapes, attention, and back."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convlab import port, port_weights
from convlab.errors import PartialPortWarning

IMAGES = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype("float32")


class Block(nn.Module):
    """A block of arXiv:2010.11929."""

    attention: type[nn.Module] = nn.MultiHeadDotProductAttention
    options: tuple[tuple[str, object], ...] = ()

    @nn.compact
    def __call__(self, x, train=False):
        y, attention = nn.LayerNorm()(x), self.attention(num_heads=2, dropout_rate=0.1, **dict(self.options))
        given = (y,) if self.attention is nn.SelfAttention else (y, y)
        x = x + attention(*given, deterministic=not train)
        y = nn.gelu(nn.Dense(12)(nn.LayerNorm()(x)))
        return x + nn.Dropout(0.1)(nn.Dense(8)(y), deterministic=not train)


class Linen(nn.Module):
    """Patches, a class token, positions, a block and a head."""

    attention: type[nn.Module] = nn.MultiHeadDotProductAttention
    options: tuple[tuple[str, object], ...] = ()
    row: str = "first"

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(8, (2, 2), strides=(2, 2), padding="VALID", name="embedding")(x)
        n, h, w, c = x.shape
        x = x.reshape(n, h * w, c)
        token = self.param("cls", nn.initializers.normal(1.0), (1, 1, c))
        x = jnp.concatenate([jnp.tile(token, [n, 1, 1]), x], axis=1)
        x = x + self.param("pos", nn.initializers.normal(1.0), (1, h * w + 1, c))
        x = nn.LayerNorm(name="norm")(Block(self.attention, self.options)(x, train))
        return nn.Dense(5, name="head")(ROWS[self.row](x))


class Embedded(nn.Module):
    """Positions by an embedding of their numbers, added without a class token."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (2, 2), strides=(2, 2), padding="VALID")(x).reshape(x.shape[0], -1, 8)
        x = x + nn.Embed(16, 8)(jnp.arange(16))
        return nn.Dense(5)(Block()(x).reshape(x.shape[0], -1))


class Hybrid(nn.Module):
    """Attention of tokens between convolutions of images of any size."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3))(x))
        y = Block(options=(("qkv_features", 12), ("use_bias", False)))(x.reshape(x.shape[0], -1, 8))
        return nn.Conv(4, (3, 3))(jnp.concatenate([x, y.reshape(x.shape)], axis=-1))


class Nnx(nnx.Module):
    """A transformer of nnx's."""

    def __init__(self, rngs, **options):
        self.patches = nnx.Conv(3, 8, (2, 2), strides=(2, 2), padding="VALID", rngs=rngs)
        self.cls = nnx.Param(jax.random.normal(rngs.params(), (1, 1, 8)))
        self.positions = nnx.Param(jax.random.normal(rngs.params(), (1, 17, 8)))
        self.norm, self.head = nnx.LayerNorm(8, rngs=rngs), nnx.Linear(8, 5, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs, **options)

    def __call__(self, x):
        x = self.patches(x)
        x = x.reshape(x.shape[0], -1, 8)
        x = jnp.concatenate([jnp.broadcast_to(self.cls[...], (x.shape[0], 1, 8)), x], axis=1) + self.positions[...]
        x = x + self.attention(self.norm(x))
        return self.head(nnx.gelu(x)[:, 0])


class Causal(Nnx):
    """Attention of each token to those before it."""

    def __call__(self, x):
        x = self.patches(x).reshape(x.shape[0], -1, 8)
        return self.head(self.attention(self.norm(x), is_causal=True)[:, 0])


ROWS = {
    "first": lambda x: x[:, 0],
    "mean": lambda x: x.mean(axis=1),
}


def linen(module):
    """A module bound to random variables."""
    variables = module.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    leaves, tree = jax.tree.flatten(variables)
    rng = np.random.default_rng(1)
    return module.bind(tree.unflatten([jnp.asarray(rng.normal(size=each.shape), "float32") for each in leaves]))


def result(model):
    """A model's result for images NCHW."""
    y = np.asarray(model(jnp.asarray(IMAGES.transpose(0, 2, 3, 1))))
    return y.transpose(0, 3, 1, 2) if y.ndim == 4 else y


MODELS = {
    **{f"linen, {row}": lambda row=row: linen(Linen(row=row)) for row in ROWS},
    "SelfAttention": lambda: linen(Linen(nn.SelfAttention)),
    "MultiHeadAttention": lambda: linen(Linen(nn.MultiHeadAttention, (("qkv_features", 16),))),
    "embedded": lambda: linen(Embedded()),
    "hybrid": lambda: linen(Hybrid()),
    "nnx": lambda: Nnx(nnx.Rngs(0)),
    "nnx, wide": lambda: Nnx(nnx.Rngs(0), qkv_features=12, use_bias=False),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:SelfAttention will be deprecated")
def test_a_transformer_is_ported_and_comes_back(name) -> None:
    import torch

    model = MODELS[name]()
    expected, ported = result(model), port(model, to="torch", input_size=(8, 8))
    assert ported.evidence.same
    assert not ported.untouched
    with torch.no_grad():
        there = ported.model(torch.from_numpy(IMAGES)).numpy()
    np.testing.assert_allclose(there, expected, atol=1e-4 * np.abs(expected).max())
    back = port(ported.model, to="jax.nnx" if isinstance(model, nnx.Module) else "jax", input_size=(8, 8))
    arrays = [np.sort(np.concatenate([np.ravel(each) for each in _arrays(each)])) for each in (model, back.model)]
    np.testing.assert_array_equal(*arrays)
    np.testing.assert_allclose(result(back.model), expected, atol=1e-4 * np.abs(expected).max())


def _arrays(model):
    if isinstance(model, nnx.Module):
        return [np.asarray(each) for each in jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, nnx.Param)))]
    return [np.asarray(each) for each in jax.tree.leaves(model.variables)]


@pytest.mark.parametrize("name", ["linen, first", "nnx"])
def test_weights_come_into_a_users_transformer(name) -> None:
    source = MODELS[name]()
    if isinstance(source, nnx.Module):
        target = Nnx(nnx.Rngs(1))
    else:
        module, variables = source.unbind()
        target = module.bind(jax.tree.map(jnp.cos, variables))
    new = port_weights(None, port(source, to="torch", input_size=(8, 8)).model, target, inputs=IMAGES)
    if isinstance(source, nnx.Module):
        state = nnx.state(target, nnx.Param)
        nnx.replace_by_pure_dict(state, new)
        nnx.update(target, state)
    else:
        target = target.unbind()[0].bind(new)
    np.testing.assert_allclose(result(target), result(source), atol=1e-5)


class Odd(nn.Module):
    """Tokens of which something is made that isn't read."""

    name_of: str = "causal"

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (2, 2), strides=(2, 2))(x).reshape(x.shape[0], 16, 8)
        x = CHANGES[self.name_of][0](x, nn.MultiHeadDotProductAttention(num_heads=2, deterministic=True))
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


CHANGES = {
    "mask": (lambda x, attention: attention(x, mask=nn.make_causal_mask(x[..., 0])), "more than one array"),
    "known mask": (lambda x, attention: attention(x, mask=np.tril(np.ones((1, 1, 16, 16)))), "more than one array"),
    "across": (lambda x, attention: attention(x, nn.relu(x)), "more than one array"),
    "image": (lambda x, attention: attention(x.reshape(-1, 4, 4, 8)), "of which it knows the last but one alone"),
    "mixed": (lambda x, attention: nn.Dense(16)(attention(x).transpose(0, 2, 1)), "transpose"),
    "rows": (lambda x, attention: nn.Conv(8, (3,))(attention(x)), "Conv_1, called with"),
    "second": (lambda x, attention: attention(x)[:, 1:], "slice"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_isnt_read_is_refused_by_name(name) -> None:
    model = linen(Odd(name))
    with pytest.warns(PartialPortWarning, match="parts of the model"):
        ported = port(model, to="torch", inputs=IMAGES)
    assert CHANGES[name][1] in " ".join(ported.untouched.values())


def test_attention_that_computes_something_else_is_refused() -> None:
    with pytest.warns(PartialPortWarning, match="normalize_qk=True"):
        port(Nnx(nnx.Rngs(0), normalize_qk=True), to="torch", inputs=IMAGES)
    with pytest.warns(PartialPortWarning, match="is_causal"):
        port(Causal(nnx.Rngs(0)), to="torch", inputs=IMAGES)


def test_attention_alone_takes_no_images() -> None:
    model = nn.MultiHeadDotProductAttention(num_heads=2)
    variables = model.init(jax.random.key(0), jnp.ones((1, 4, 8)))
    with pytest.warns(PartialPortWarning, match="knows the last but one alone"):
        port((model, variables), to="torch", inputs=np.ones((1, 8, 4, 4), "float32"))
