"""`Ported.source()`: run and given the weights from a file, it gives the bits of the ported model."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from chains import CHAINS, conv, dense, norm
from making import built, kernel, run
from sources import check, check_text, last, net, result, run_source

from convlab import load, port, save
from convlab.errors import ModelFileError, UnsupportedError
from convlab.models.adapters import models_of, read
from convlab.models.files.neutral import write_layers
from convlab.models.layers.activations import FUNCTIONS, WITH_PARAMETER, Activation, Affine, PReLU, Softmax
from convlab.models.layers.channels import ChannelShuffle, Chunk, PixelShuffle
from convlab.models.layers.flattening import Flatten, Unflatten
from convlab.models.layers.inputs import ONE_IMAGE, inputs_in_words
from convlab.models.layers.joining import Add, Concatenate, Multiply
from convlab.models.layers.layer import Dropout
from convlab.models.layers.norms import ChannelAffine, GroupNorm, LayerNorm
from convlab.models.layers.pixels import Crop, Upsample
from convlab.models.layers.pooling import GlobalPool, Pool
from convlab.models.layers.reading import INPUT, Part
from convlab.models.layers.transposed import TransposedConvolution

RELU = Activation("relu")


def same(outputs, inputs, size=3, **options):
    return conv(outputs, inputs, (size, size), padding=size // 2, **options)


def residual(name, inputs, outputs, stride):
    """The layers of a block of He et al., arXiv:1512.03385, with their names and what they take."""
    shortcut, layers = "before", []
    if stride > 1:
        narrow = conv(outputs, inputs, (1, 1), stride=stride, bias=False)
        shortcut, layers = (
            "1",
            [("downsample.0", narrow, ["before"]), ("downsample.1", norm(outputs), ["downsample.0"])],
        )
        shortcut = "downsample.1"
    main = [
        ("conv1", same(outputs, inputs, stride=stride, bias=False), ["before"]),
        ("bn1", norm(outputs), ["conv1"]),
        ("relu", RELU, ["bn1"]),
        ("conv2", same(outputs, outputs, bias=False), ["relu"]),
        ("bn2", norm(outputs), ["conv2"]),
        *layers,
        ("add", Add(), ["bn2", shortcut]),
        ("relu_2", RELU, ["add"]),
    ]
    return [(f"{name}.{path}", layer, [f"{name}.{value}" for value in inputs]) for path, layer, inputs in main]


def resnet():
    layers = [("stem", same(4, 3, 7, stride=2, bias=False), [INPUT]), ("norm", norm(4), ["stem"])]
    layers += [("relu", RELU, ["norm"]), ("maxpool", Pool("max", (2, 2), (2, 2)), ["relu"])]
    names = {"layer1.0.before": "maxpool", "layer2.0.before": "layer1.0.relu_2", "layer2.1.before": "layer2.0.relu_2"}
    blocks = [*residual("layer1.0", 4, 4, 1), *residual("layer2.0", 4, 6, 2), *residual("layer2.1", 6, 6, 1)]
    layers += [(path, layer, [names.get(value, value) for value in inputs]) for path, layer, inputs in blocks]
    pooled = [("pool", GlobalPool("average", keepdims=False), ["layer2.1.relu_2"]), ("fc", dense(3, 6), ["pool"])]
    return [*layers, *pooled]


def unet():
    return [
        ("down.0", same(4, 3), [INPUT]),
        ("elu", Activation("elu", 1.0), ["down.0"]),
        ("down.1", conv(6, 4, padding=2, dilation=2), ["elu"]),
        ("silu", Activation("silu"), ["down.1"]),
        ("bottom", conv(6, 6, padding=((0, 2), (2, 0))), ["silu"]),
        ("tanh", Activation("tanh"), ["bottom"]),
        ("cat", Concatenate(), ["silu", "tanh"]),
        ("up.0", same(4, 12), ["cat"]),
        ("slope", Activation("leaky_relu", 0.2), ["up.0"]),
        ("cat_2", Concatenate(), ["elu", "slope"]),
        ("up.1", conv(2, 8, (1, 1)), ["cat_2"]),
        ("classes", Softmax(log=True), ["up.1"]),
    ]


def squeeze():
    """A block of MobileNetV3, arXiv:1905.02244, and numbers between the layers."""
    return [
        ("stem.0", same(6, 3, stride=2, bias=False), [INPUT]),
        ("stem.1", norm(6), ["stem.0"]),
        ("stem.2", Activation("hard_swish"), ["stem.1"]),
        ("depthwise", same(6, 6, 5, groups=6), ["stem.2"]),
        ("half", Affine(0.5, 0.25), ["depthwise"]),
        ("se.mean", GlobalPool("average", keepdims=False), ["half"]),
        ("se.pixel", Unflatten(), ["se.mean"]),
        ("se.fc1", conv(3, 6, (1, 1)), ["se.pixel"]),
        ("se.relu", Activation("relu6"), ["se.fc1"]),
        ("se.fc2", conv(6, 3, (1, 1)), ["se.relu"]),
        ("se.share", Activation("hard_sigmoid"), ["se.fc2"]),
        ("se.mul", Multiply(), ["half", "se.share"]),
        ("depth", Dropout(0.25, images=True), ["se.mul"]),
        ("drop", Dropout(0.5), ["depth"]),
        ("head", conv(2, 6, (1, 1)), ["drop"]),
    ]


NETS = {"resnet": resnet, "unet": unet, "squeeze": squeeze}
RESIDUAL = {
    "torch": """class ResidualBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels, eps=0.001)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels, eps=0.001)

    def forward(self, x):
        shortcut = x
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return F.relu(x + shortcut)
""",
    "mxnet": """class ResidualBlock(nn.HybridBlock):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2D(channels, 3, padding=1, use_bias=False, in_channels=channels)
        self.bn1 = nn.BatchNorm(epsilon=0.001, in_channels=channels)
        self.conv2 = nn.Conv2D(channels, 3, padding=1, use_bias=False, in_channels=channels)
        self.bn2 = nn.BatchNorm(epsilon=0.001, in_channels=channels)

    def hybrid_forward(self, F, x):
        shortcut = x
        x = F.Activation(self.bn1(self.conv1(x)), act_type="relu")
        x = self.bn2(self.conv2(x))
        return F.Activation(x + shortcut, act_type="relu")
""",
    "jax": """def residual_block(x, features, name, train):
    shortcut = x
    x = nn.Conv(features, (3, 3), padding=1, use_bias=False, name=f"{name}.conv1")(x)
    x = nn.BatchNorm(
        use_running_average=not train, momentum=0.9, epsilon=0.001, name=f"{name}.bn1"
    )(x)
    x = nn.relu(x)
    x = nn.Conv(features, (3, 3), padding=1, use_bias=False, name=f"{name}.conv2")(x)
    x = nn.BatchNorm(
        use_running_average=not train, momentum=0.9, epsilon=0.001, name=f"{name}.bn2"
    )(x)
    x = x + shortcut
    return nn.relu(x)
""",
    "jax.nnx": """class ResidualBlock(nnx.Module):
    def __init__(self, features, *, rngs):
        self.conv1 = nnx.Conv(features, features, (3, 3), padding=1, use_bias=False, rngs=rngs)
        self.bn1 = nnx.BatchNorm(features, momentum=0.9, epsilon=0.001, rngs=rngs)
        self.conv2 = nnx.Conv(features, features, (3, 3), padding=1, use_bias=False, rngs=rngs)
        self.bn2 = nnx.BatchNorm(features, momentum=0.9, epsilon=0.001, rngs=rngs)

    def __call__(self, x):
        shortcut = x
        x = nnx.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return nnx.relu(x + shortcut)
""",
    "tensorflow": """def residual_block(x, filters, name):
    shortcut = x
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}.conv1")(x)
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}.bn1")(x)
    x = layers.ReLU()(x)
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}.conv2")(x)
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}.bn2")(x)
    x = layers.Add()([x, shortcut])
    return layers.ReLU()(x)
""",
}


X = np.random.default_rng(3).normal(size=(2, 3, 16, 20)).astype("float32")


def test_a_source_has_the_bits_of_the_ported_model(giver, taker, tmp_path):
    check(taker, port(net(giver, squeeze()), to=taker), tmp_path, X)


@pytest.mark.parametrize("kind", ["unet", "resnet"])
def test_a_source_needs_the_framework_alone(framework, kind, tmp_path):
    text = check(framework, port(net(framework, NETS[kind]()), to=framework), tmp_path, X)
    assert "convlab" not in text


@pytest.mark.parametrize("kind", ["classifier", "uneven", "depthwise", "pooling", "dense"])
def test_a_source_of_a_chain(framework, kind, tmp_path):
    shape = {"uneven": (2, 2, 12, 14), "pooling": (2, 1, 12, 14), "dense": (2, 4)}.get(kind, (2, 3, 12, 14))
    x = np.random.default_rng(1).normal(size=shape).astype("float32")
    check(framework, port(built(framework, *CHAINS[kind]), to=framework), tmp_path, x)


def test_each_activation_has_the_bits_of_the_ported_one(framework, tmp_path):
    """Also where a model can't be ported because a framework computes one with more roundings than allowed."""
    parameters = {**dict.fromkeys(WITH_PARAMETER, 0.7), "leaky_relu": 0.2}
    activations = [Activation(name, parameters.get(name, 0.0)) for name in FUNCTIONS]
    chain = built(framework, same(4, 3), *activations, Softmax())
    graph = [("conv", same(4, 3), [INPUT])]
    for each in activations:
        graph.append((each.function, each, [graph[-1][0]]))
    branches = net(framework, [*graph, ("sum", Add(), ["conv", graph[-1][0]])])
    for model in (chain, branches):
        text = models_of(framework).source(read(model).parts, None)
        check_text(framework, text, model, tmp_path, X)


def test_convlabs_layers_are_written(framework, tmp_path):
    layers = [
        conv(4, 3, padding=((1, 2), (0, 3)), padding_mode="symmetric"),
        RELU,
        conv(2, 4, stride=2, padding="same"),
    ]
    text = check(
        framework, port(built(framework, *layers, style="convlab"), to=framework, layers="convlab"), tmp_path, X
    )
    assert "lab" in text


NUMBERS = np.linspace(0.5, 1.5, 8, dtype="float32"), np.linspace(-1, 1, 8, dtype="float32")
KINDS = [
    same(8, 3),
    GroupNorm(*NUMBERS, 4, 1e-3),
    PReLU(NUMBERS[0]),
    PReLU(NUMBERS[0][:1]),
    ChannelAffine(*NUMBERS, True),
    ChannelAffine(NUMBERS[0], None),
    TransposedConvolution(kernel((8, 8, 3, 3)), NUMBERS[1], (2, 2), ((0, 1), (0, 1))),
    LayerNorm(*NUMBERS, 1e-3),
    ChannelShuffle(4),
    Upsample((2, 1), "nearest"),
    Upsample((1, 2), "bilinear"),
    Crop(((1, 2), (0, 1))),
    Crop(((1, 0), (1, 0))),
    PixelShuffle(2),
    Chunk(1, 2),
]


def test_each_kind_of_layer_has_the_bits_of_the_ported_one(framework, tmp_path):
    layers = [layer for layer in KINDS if not isinstance(layer, TransposedConvolution)]
    if framework not in ("torch", "mxnet"):  # which have this crop as a layer of its own
        layers = KINDS
    graph = [("first", layers[0], [INPUT])]
    for index, layer in enumerate(layers[1:]):
        graph.append((f"layer{index}", layer, [graph[-1][0]]))
    branches = net(framework, [*graph, ("sum", Add(), [graph[-1][0], graph[-1][0]])])
    up = TransposedConvolution(kernel((8, 8, 3, 3)), None, (2, 2), ((0, 0), (0, 0)))
    alone = built(framework, up if framework == "tensorflow" else replace(up, crop=((1, 0), (1, 0))))
    for model, x in ((built(framework, *layers), X), (branches, X), (alone, np.repeat(X, 3, 1)[:, :8])):
        text = models_of(framework).source(read(model).parts, None)
        check_text(framework, text, model, tmp_path, x)


def test_blocks_alike_are_written_once(framework):
    model = net(framework, resnet())
    text = models_of(framework).source(read(model).parts, None)
    assert RESIDUAL[framework] in text


def test_blocks_in_stages_of_other_lengths_are_written_once(framework, tmp_path):
    graph, before = [], INPUT
    for block in ("net.layer_1.0", "net.layer_1.1", "net.layer_2.0"):
        graph.append((f"{block}.conv", same(3, 3), [before]))
        graph.append((f"{block}.relu", RELU, [f"{block}.conv"]))
        graph.append((f"{block}.add", Add(), [before, f"{block}.relu"]))
        before = f"{block}.add"
    model = net(framework, graph)
    text = models_of(framework).source(read(model).parts, None)
    check_text(framework, text, model, tmp_path, X)
    assert len(re.findall(r'\.conv"|self\.conv =', text)) == 1


def test_the_layers_of_dense_blocks_are_written_once(framework, tmp_path):
    """Each takes what all before it give, one after another (arXiv:1608.06993)."""
    graph, given = [], [INPUT]
    for layer in range(1, 4):
        block = f"features.layer{layer}"
        graph.append(
            (f"{block}.concat", Concatenate(), [*given]) if len(given) > 1 else (f"{block}.relu", RELU, [INPUT])
        )
        graph.append((f"{block}.norm", norm(3 * len(given)), [graph[-1][0]]))
        graph.append((f"{block}.conv", same(3, 3 * len(given)), [f"{block}.norm"]))
        given.append(f"{block}.conv")
    model = net(framework, [*graph, ("last", Concatenate(), [*given])])
    text = models_of(framework).source(read(model).parts, None)
    check_text(framework, text, model, tmp_path, X)
    if framework in ("tensorflow", "jax"):
        assert 'name=f"{name}.conv"' in text


def test_blocks_of_other_functions_are_other_classes(framework, tmp_path):
    graph, before = [], INPUT
    for block, function in (("a.0", "relu"), ("a.1", "silu"), ("b.0", "relu")):
        graph.append((f"{block}.0", same(3, 3), [before]))
        graph.append((f"{block}.1", Activation(function), [f"{block}.0"]))
        graph.append((f"{block}.add", Add(), [before, f"{block}.1"]))
        before = f"{block}.add"
    model = net(framework, graph)
    check_text(framework, models_of(framework).source(read(model).parts, None), model, tmp_path, X)


def test_a_dtype_is_in_the_source(framework, tmp_path):
    """The weights come from the framework's own file: Flax's statistics begin in float32, whatever the dtype is."""
    dtype = "float64" if framework == "mxnet" else "float16"
    layers = [
        conv(4, 3, padding=1, dtype=dtype),
        norm(4, dtype),
        RELU,
        GlobalPool("max", keepdims=False),
        dense(3, 4, dtype),
    ]
    ported, path = port(built(framework, *layers), to=framework), tmp_path / f"model{models_of(framework).FILES[0]}"
    save(ported, path)
    text, x = ported.source(), X.astype(dtype)
    filled = load(path, into=run_source(framework, text, x))
    assert np.array_equal(result(framework, filled, x), result(framework, ported.model, x))
    assert dtype in text


def test_a_source_trains_as_the_ported_model_does(framework, tmp_path):
    """Batch norm takes the statistics of the batch: the result doesn't depend on the running ones."""
    ported = port(built(framework, same(4, 3), norm(4), RELU, Dropout(0.0)), to=framework)
    save(ported, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors", into=run_source(framework, ported.source(), X))
    results = [in_training(framework, model, X) for model in (loaded, ported.model)]
    assert np.array_equal(*results)
    assert not np.array_equal(results[0], result(framework, ported.model, X))


def in_training(name, model, x):
    """The result in training, by the framework alone."""
    if name == "torch":
        import torch

        return model.train()(torch.from_numpy(x)).detach().numpy()
    if name == "mxnet":
        import mxnet

        with mxnet.autograd.record():
            return model(mxnet.nd.array(x)).asnumpy()
    if name == "tensorflow":
        return model(last(x), training=True).numpy()
    if name == "jax.nnx":
        model.train()
        return np.asarray(model(last(x)))
    module, variables = model.unbind()
    return np.asarray(module.apply(variables, last(x), train=True, mutable=["batch_stats"])[0])


def test_a_lone_layer_is_one_line(framework, tmp_path):
    ported = port(built(framework, same(4, 3)), to=framework)
    text = check(framework, ported, tmp_path, X)
    assert [line.partition("=")[0] for line in text.splitlines() if line and "import" not in line] == ["model "]


def test_a_lone_layer_with_many_options_is_broken_into_lines(framework, tmp_path):
    dilation = 1 if framework == "tensorflow" else (1, 2)  # Keras has no stride beside it
    layer = conv(64, 3, (3, 5), stride=(2, 1), padding=((1, 1), (2, 2)), dilation=dilation, bias=False)
    check(framework, port(built(framework, layer), to=framework), tmp_path, X)


def test_a_source_says_that_a_model_takes_rows(framework, tmp_path):
    rows = np.random.default_rng(2).normal(size=(2, 4)).astype("float32")
    ported = port(built(framework, dense(6, 4), RELU, dense(3, 6)), to=framework)
    text = check(framework, ported, tmp_path, rows)
    assert "images" not in text
    flat = [Part("flat", None, Flatten("CHW"), "", (INPUT,), "0"), Part("fc", None, dense(6, 4), "", ("0",), "1")]
    assert inputs_in_words(flat, ONE_IMAGE) == "images (N, C, H, W)"


def test_defaults_and_digits_beyond_float32_are_not_written(framework, tmp_path):
    up = TransposedConvolution(kernel((4, 4, 3, 3)), None, (1, 1), ((0, 0), (0, 0)))
    ported = port(built(framework, same(4, 3), Activation("leaky_relu", 0.1), up), to=framework)
    text = check(framework, ported, tmp_path, X)
    assert "0.1" in text
    assert not [word for word in ("0.10", "dilation", "strides=1", "stride=1", "groups") if word in text]


def test_a_layer_without_source_is_named(framework):
    unknown = Part("layers.7", built(framework, same(4, 3), RELU), None, "Mystery", (INPUT,), "0")
    with pytest.raises(UnsupportedError, match=r"layers.7: got \w*Sequential, which convlab can't write as source"):
        models_of(framework).source([unknown, replace(unknown, path="b", inputs=("0",), value="1")], None)


def test_a_file_fills_a_model_of_the_same_layers(framework, tmp_path):
    path = tmp_path / "model.safetensors"
    layers, others = [same(4, 3), RELU, last_layer()], [conv(4, 3, padding=1), RELU, last_layer(seed=5)]
    save(built(framework, *layers), path)
    before = run(framework, built(framework, *others), X)
    model = built(framework, *others)
    filled = load(path, into=model)
    assert np.array_equal(run(framework, filled, X), run(framework, built(framework, *layers), X))
    assert np.array_equal(run(framework, model, X), before)  # loading leaves the model as it was
    write_layers([replace(layer, spec=replace(layer.spec, dtype="float64")) for layer in (layers[0], layers[2])], path)
    with pytest.raises(ModelFileError, match=r"got float64 for .*, expected float32"):
        load(path, into=built(framework, layers[0], layers[2]))
    save(built(framework, *layers), path)
    for other in ([same(4, 3)], [same(4, 3), RELU, same(5, 4)], [same(4, 3, bias=False), RELU, last_layer()]):
        with pytest.raises(ModelFileError, match=r"got another model.s layers|got (kernel|bias) of shape"):
            load(path, into=built(framework, *other))


def test_a_file_of_another_geometry_is_refused(framework, tmp_path):
    """The arrays would fit, but the models don't compute the same."""
    save(built(framework, same(4, 3), RELU), path := tmp_path / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"got another layer than .*pads .*, the second nothing"):
        load(path, into=built(framework, conv(4, 3), RELU))


def last_layer(seed=9):
    return replace(same(2, 4), kernel=np.random.default_rng(seed).normal(size=(2, 4, 3, 3)).astype("float32"))
