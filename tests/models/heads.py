"""Models with several results as people write them in each framework, of small integers, which no framework rounds.

`pyramid` gives a tuple, the levels of a feature pyramid (arXiv:1612.03144): the upper one is a result and goes on into
the lower one. `detector` gives a dictionary, rows of numbers and images, but in gluon a tuple. Frameworks are imported
where they are needed.
"""

from __future__ import annotations

from typing import Any

import detectors
import numpy as np

from convlab.models.adapters import models_of

X = np.random.default_rng(0).integers(-4, 5, (2, 3, 16, 16)).astype("float32")


def torch_models() -> dict[str, Any]:
    import torch.nn.functional as F
    from torch import nn

    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.down = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)
            self.lateral = nn.ModuleList([nn.Conv2d(4, 5, 1), nn.Conv2d(6, 5, 1)])
            self.smooth = nn.Conv2d(5, 5, 3, padding=1)

        def forward(self, x):
            features = [F.relu(self.stem(x))]
            features.append(F.relu(self.down(features[0])))
            upper = self.lateral[1](features[1])
            lower = self.lateral[0](features[0]) + F.interpolate(upper, size=features[0].shape[-2:])
            return [self.smooth(lower), upper, F.max_pool2d(upper, 2)]

    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.scores, self.boxes = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(4, 7), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            x = F.relu(self.stem(x))
            return {"scores": self.scores(x.mean((2, 3))), "boxes": self.boxes(x)}

    class Siamese(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3)

        def forward(self, left, right):
            return self.stem(left) - self.stem(right)

    models = {"pyramid": Pyramid().eval(), "detector": Detector().eval(), "siamese": Siamese().eval()}
    return {**models, **detectors.torch_models()}


def tensorflow_models() -> dict[str, Any]:
    import keras
    from keras import layers as kl

    image = keras.Input((None, None, 3))
    low = kl.Conv2D(4, 3, 2, "valid", activation="relu", name="stem")(kl.ZeroPadding2D()(image))
    high = kl.Conv2D(6, 3, 2, "valid", activation="relu", name="down")(kl.ZeroPadding2D()(low))
    backbone = keras.Model(image, [low, high], name="backbone")
    again = keras.Input((None, None, 3))
    low, high = backbone(again)
    upper = kl.Conv2D(5, 1, name="lateral1")(high)
    lower = kl.Add()([kl.Conv2D(5, 1, name="lateral0")(low), kl.UpSampling2D()(upper)])
    smooth = kl.Conv2D(5, 3, padding="same", name="smooth")(lower)
    pyramid = keras.Model(again, [smooth, upper, kl.MaxPooling2D()(upper)])
    image = keras.Input((None, None, 3))
    x = kl.Conv2D(4, 3, 2, "valid", activation="relu", name="stem")(kl.ZeroPadding2D()(image))
    scores = kl.Dense(7, name="scores")(kl.GlobalAveragePooling2D()(x))
    detector = keras.Model(image, {"scores": scores, "boxes": kl.Conv2D(2, 1, name="boxes")(x)})
    left, right, stem = keras.Input((None, None, 3)), keras.Input((None, None, 3)), kl.Conv2D(4, 3, name="stem")
    siamese = keras.Model([left, right], kl.Subtract()([stem(left), stem(right)]))
    models = {"pyramid": pyramid, "detector": detector, "siamese": siamese}
    return {**models, **detectors.tensorflow_models()}


def jax_models() -> dict[str, Any]:
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    class Pyramid(nn.Module):
        @nn.compact
        def __call__(self, x):
            low = nn.relu(nn.Conv(4, (3, 3), 2, 1, name="stem")(x))
            high = nn.relu(nn.Conv(6, (3, 3), 2, 1, name="down")(low))
            upper = nn.Conv(5, (1, 1), name="lateral1")(high)
            n, rows, columns, channels = upper.shape
            larger = jax.image.resize(upper, (n, 2 * rows, 2 * columns, channels), "nearest")
            lower = nn.Conv(5, (1, 1), name="lateral0")(low) + larger
            return nn.Conv(5, (3, 3), name="smooth")(lower), upper, nn.max_pool(upper, (2, 2), (2, 2))

    class Detector(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(4, (3, 3), 2, 1, name="stem")(x))
            scores = nn.Dense(7, name="scores")(jnp.mean(x, axis=(1, 2)))
            return {"scores": scores, "boxes": nn.Conv(2, (1, 1), name="boxes")(x)}

    class Siamese(nn.Module):
        @nn.compact
        def __call__(self, left, right):
            stem = nn.Conv(4, (3, 3), name="stem")
            return stem(left) - stem(right)

    x = X.transpose(0, 2, 3, 1)
    images = {"pyramid": (Pyramid(), x), "detector": (Detector(), x), "siamese": (Siamese(), x, x)}
    models = {name: each.bind(each.init(jax.random.key(0), *takes)) for name, (each, *takes) in images.items()}
    return {**models, **detectors.jax_models(x)}


def nnx_models() -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    from flax import nnx

    rngs = nnx.Rngs(0)

    def conv(inputs, outputs, size, **options):
        return nnx.Conv(inputs, outputs, (size, size), **options, rngs=rngs)

    class Pyramid(nnx.Module):
        def __init__(self):
            self.stem, self.down = (conv(*each, 3, strides=2, padding=1) for each in ((3, 4), (4, 6)))
            self.lateral = nnx.List([conv(4, 5, 1), conv(6, 5, 1)])
            self.smooth = conv(5, 5, 3)

        def __call__(self, x):
            low = nnx.relu(self.stem(x))
            upper = self.lateral[1](nnx.relu(self.down(low)))
            n, rows, columns, channels = upper.shape
            larger = jax.image.resize(upper, (n, 2 * rows, 2 * columns, channels), "nearest")
            lower = self.lateral[0](low) + larger
            return self.smooth(lower), upper, nnx.max_pool(upper, (2, 2), (2, 2))

    class Detector(nnx.Module):
        def __init__(self):
            self.stem, self.boxes = conv(3, 4, 3, strides=2, padding=1), conv(4, 2, 1)
            self.scores = nnx.Linear(4, 7, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.stem(x))
            return {"scores": self.scores(jnp.mean(x, axis=(1, 2))), "boxes": self.boxes(x)}

    class Siamese(nnx.Module):
        def __init__(self):
            self.stem = conv(3, 4, 3)

        def __call__(self, left, right):
            return self.stem(left) - self.stem(right)

    return {"pyramid": Pyramid(), "detector": Detector(), "siamese": Siamese(), **detectors.nnx_models()}


def mxnet_models() -> dict[str, Any]:
    from convlab_mxnet.ops import mx

    nn = mx.gluon.nn

    class Pyramid(nn.HybridBlock):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2D(4, 3, 2, 1, in_channels=3, activation="relu")
            self.down = nn.Conv2D(6, 3, 2, 1, in_channels=4, activation="relu")
            self.lateral0, self.lateral1 = nn.Conv2D(5, 1, in_channels=4), nn.Conv2D(5, 1, in_channels=6)
            self.larger = nn.Conv2DTranspose(5, 2, 2, in_channels=5)
            self.smooth = nn.Conv2D(5, 3, padding=1, in_channels=5)

        def hybrid_forward(self, F, x):
            low = self.stem(x)
            upper = self.lateral1(self.down(low))
            lower = self.lateral0(low) + self.larger(upper)
            smaller = F.Pooling(upper, kernel=(2, 2), stride=(2, 2), pool_type="max")
            return [self.smooth(lower), upper, smaller]

    class Detector(nn.HybridBlock):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2D(4, 3, 2, 1, in_channels=3, activation="relu")
            self.scores, self.boxes = nn.Dense(7, in_units=4), nn.Conv2D(2, 1, in_channels=4)

        def hybrid_forward(self, F, x):
            x = self.stem(x)
            pooled = F.Pooling(x, global_pool=True, pool_type="avg")
            return self.boxes(x), self.scores(pooled)

    class Siamese(nn.HybridBlock):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2D(4, 3, in_channels=3)

        def hybrid_forward(self, F, left, right):
            return self.stem(left) - self.stem(right)

    models = {"pyramid": Pyramid(), "detector": Detector(), "siamese": Siamese()}
    for model in models.values():
        model.initialize()
    return {**models, **detectors.mxnet_models()}


MODELS = {
    "torch": torch_models,
    "tensorflow": tensorflow_models,
    "jax": jax_models,
    "jax.nnx": nnx_models,
    "mxnet": mxnet_models,
}


def model(framework: str, name: str, seed: int = 1) -> Any:
    """A model with small integers for weights."""
    return with_integers(framework, MODELS[framework]()[name], seed)


def with_integers(framework: str, native: Any, seed: int = 1) -> Any:
    """A model with small integers in place of its weights."""
    models, rng = models_of(framework), np.random.default_rng(seed)
    integers = _integers(models.weights(native), rng)
    if framework != "mxnet":
        return models.with_weights(native, integers)
    for parameter, array in zip(native.collect_params().values(), integers.values(), strict=True):
        parameter.set_data(array)  # MXNet's copies have no gradients.
    return native


def _integers(weights: Any, rng: np.random.Generator) -> Any:
    if isinstance(weights, dict):
        return {name: _integers(each, rng) for name, each in weights.items()}
    numbers = rng.integers(-2, 3, weights.shape).astype("float32")
    kind = type(weights).__module__.partition(".")[0]
    if kind == "torch":
        import torch

        return torch.from_numpy(numbers)
    if kind == "mxnet":
        from convlab_mxnet.ops import mx

        return mx.nd.array(numbers)
    return numbers


def results(framework: str, model: Any, *inputs: np.ndarray) -> Any:
    """What a model gives in inference, called by the framework alone, with arrays NCHW in its own container."""
    images = inputs or (X,)
    if framework == "torch":
        import torch

        with torch.no_grad():
            given = model.eval()(*map(torch.from_numpy, images))
    elif framework == "mxnet":
        from convlab_mxnet.ops import mx

        given = model(*map(mx.nd.array, images))
    else:
        last = [np.moveaxis(x, 1, -1) if x.ndim > 2 else x for x in images]
        of_keras = framework == "tensorflow"
        given = model(last if len(last) > 1 else last[0], training=False) if of_keras else model(*last)

    def array(each):
        plain = each.asnumpy() if framework == "mxnet" else np.asarray(each)
        return (
            plain.transpose(0, 3, 1, 2) if plain.ndim == 4 and framework in ("tensorflow", "jax", "jax.nnx") else plain
        )

    def arrays(given):
        if isinstance(given, dict):
            return {name: arrays(each) for name, each in given.items()}
        return tuple(map(arrays, given)) if isinstance(given, (tuple, list)) else array(given)

    return arrays(given)


def in_order(results: Any) -> list[np.ndarray]:
    """All results: those in a tuple as they are, those in a dictionary in the order of their names."""
    if not isinstance(results, (dict, tuple, list)):
        return [results]
    inside = [results[name] for name in sorted(results)] if isinstance(results, dict) else results
    return [array for each in inside for array in in_order(each)]


def nesting(results: Any) -> Any:
    """The containers of results, with the shape of each."""
    if isinstance(results, dict):
        return {name: nesting(each) for name, each in results.items()}
    return tuple(map(nesting, results)) if isinstance(results, (tuple, list)) else results.shape


def trained(framework: str, model: Any) -> Any:
    """A model after a step of gradient descent of 1 / 4, from the sum of all numbers in its results."""
    last = X.transpose(0, 2, 3, 1)
    if framework == "torch":
        import torch

        sum(each.sum() for each in model(torch.from_numpy(X)).values()).backward()
        torch.optim.SGD(model.parameters(), 0.25).step()
    elif framework == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = sum(map(tf.reduce_sum, model(last, training=True).values()))
        gradients = tape.gradient(loss, model.trainable_variables)
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
            variable.assign(variable - gradient / 4)
    elif framework == "mxnet":
        from convlab_mxnet.ops import mx

        with mx.autograd.record():
            loss = sum(each.sum() for each in model(mx.nd.array(X)))
        loss.backward()
        for parameter in model.collect_params().values():
            parameter.set_data(parameter.data() - parameter.grad() / 4)
    elif framework == "jax":
        import jax

        module, variables = model.unbind()
        slopes = jax.grad(lambda each: sum(result.sum() for result in module.apply(each, last).values()))(variables)
        return module.bind(jax.tree.map(lambda value, slope: value - slope / 4, variables, slopes))
    else:
        import jax
        from flax import nnx

        slopes = nnx.grad(lambda each: sum(result.sum() for result in each(last).values()))(model)
        state = nnx.state(model, nnx.Param)
        nnx.update(model, jax.tree.map(lambda value, slope: value - slope / 4, state, slopes))
    return model
