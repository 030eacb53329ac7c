"""Detectors as people write them in each framework, of small integers, which no framework rounds.

`ssd` (arXiv:1512.02325) says of the boxes of two levels, behind each other, what they are, in rows (N, boxes, numbers),
and of the first level's where they are. `retina` (arXiv:1708.02002) gives each level's boxes by themselves, in nested
containers. In gluon `ssd` is written as gluoncv does, with rows of all numbers in between; one result is such a row.
"""

from __future__ import annotations

from typing import Any

CLASSES, COORDINATES = 3, 4
# How many boxes there are at each pixel of the two levels.
BOXES = 3, 2


def torch_models() -> dict[str, Any]:
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.down = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)
            self.classes = nn.ModuleList([nn.Conv2d(4, count * CLASSES, 1) for count in BOXES])
            self.places = nn.Conv2d(4, BOXES[0] * COORDINATES, 1)

        def levels(self, x):
            low = F.relu(self.stem(x))
            return low, F.relu(self.down(low))

        def boxes(self, heads, levels, numbers):
            maps = [head(level) for head, level in zip(heads, levels, strict=True)]
            return [each.permute(0, 2, 3, 1).reshape(each.shape[0], -1, numbers) for each in maps]

    class Ssd(Detector):
        def forward(self, x):
            levels = self.levels(x)
            scores = torch.cat(self.boxes(self.classes, levels, CLASSES), dim=1)
            return {"scores": scores.clamp(min=0), "boxes": self.boxes([self.places], levels[:1], COORDINATES)[0]}

    class Retina(Detector):
        def of_level(self, x):
            n, _, rows, columns = x.shape
            apart = x.view(n, -1, CLASSES, rows, columns).permute(0, 3, 4, 1, 2)
            return apart.reshape(n, -1, CLASSES)

        def forward(self, x):
            levels = self.levels(x)
            scores = [self.of_level(head(level)) for head, level in zip(self.classes, levels, strict=True)]
            boxes = self.boxes([self.places], levels[:1], COORDINATES)
            return {"scores": scores, "boxes": boxes[0], "deep": {"map": levels[1]}}

    return {"ssd": Ssd().eval(), "retina": Retina().eval()}


def tensorflow_models() -> dict[str, Any]:
    import keras
    from keras import layers as kl

    def levels():
        image = keras.Input((None, None, 3))
        low = kl.Conv2D(4, 3, 2, "valid", activation="relu", name="stem")(kl.ZeroPadding2D()(image))
        return image, low, kl.Conv2D(4, 3, 2, "valid", activation="relu", name="down")(kl.ZeroPadding2D()(low))

    def boxes(maps, name, numbers):
        heads = [kl.Conv2D(n * numbers, 1, name=f"{name}{n}")(x) for n, x in zip(BOXES, maps, strict=False)]
        return [kl.Reshape((-1, numbers))(head) for head in heads]

    image, *maps = levels()
    scores = kl.ReLU()(keras.ops.concatenate(boxes(maps, "classes", CLASSES), axis=1))
    ssd = keras.Model(image, {"scores": scores, "boxes": boxes(maps[:1], "places", COORDINATES)[0]})
    image, *maps = levels()
    results = {"scores": boxes(maps, "classes", CLASSES), "boxes": boxes(maps[:1], "places", COORDINATES)[0]}
    return {"ssd": ssd, "retina": keras.Model(image, {**results, "deep": {"map": maps[1]}})}


def jax_models(x: Any) -> dict[str, Any]:
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    class Detector(nn.Module):
        joined: bool

        @nn.compact
        def __call__(self, x):
            low = nn.relu(nn.Conv(4, (3, 3), 2, 1, name="stem")(x))
            levels = low, nn.relu(nn.Conv(4, (3, 3), 2, 1, name="down")(low))

            def boxes(name, numbers, levels):
                heads = [
                    nn.Conv(n * numbers, (1, 1), name=f"{name}{n}")(x) for n, x in zip(BOXES, levels, strict=False)
                ]
                return [head.reshape(x.shape[0], -1, numbers) for head in heads]

            scores, (places,) = boxes("classes", CLASSES, levels), boxes("places", COORDINATES, levels[:1])
            if self.joined:
                return {"scores": nn.relu(jnp.concatenate(scores, axis=1)), "boxes": places}
            return {"scores": scores, "boxes": places, "deep": {"map": levels[1]}}

    models = {"ssd": Detector(True), "retina": Detector(False)}
    return {name: each.bind(each.init(jax.random.key(0), x)) for name, each in models.items()}


def nnx_models() -> dict[str, Any]:
    import jax.numpy as jnp
    from flax import nnx

    rngs = nnx.Rngs(0)

    class Detector(nnx.Module):
        def __init__(self, joined):
            self.joined = joined
            self.stem, self.down = (nnx.Conv(n, 4, (3, 3), strides=2, padding=1, rngs=rngs) for n in (3, 4))
            self.classes = nnx.List([nnx.Conv(4, n * CLASSES, (1, 1), rngs=rngs) for n in BOXES])
            self.places = nnx.Conv(4, BOXES[0] * COORDINATES, (1, 1), rngs=rngs)

        def __call__(self, x):
            low = nnx.relu(self.stem(x))
            levels = low, nnx.relu(self.down(low))

            def boxes(head, x, numbers):
                return head(x).reshape(x.shape[0], -1, numbers)

            scores = [boxes(head, each, CLASSES) for head, each in zip(self.classes, levels, strict=True)]
            places = boxes(self.places, low, COORDINATES)
            if self.joined:
                return {"scores": nnx.relu(jnp.concatenate(scores, axis=1)), "boxes": places}
            return {"scores": scores, "boxes": places, "deep": {"map": levels[1]}}

    return {"ssd": Detector(True), "retina": Detector(False)}


def mxnet_models() -> dict[str, Any]:
    from convlab_mxnet.ops import mx

    nn = mx.gluon.nn

    class Detector(nn.HybridBlock):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2D(4, 3, 2, 1, in_channels=3, activation="relu")
            self.down = nn.Conv2D(4, 3, 2, 1, in_channels=4, activation="relu")
            self.places = nn.Conv2D(BOXES[0] * COORDINATES, 1, in_channels=4)
            for number, count in enumerate(BOXES):
                setattr(self, f"classes{number}", nn.Conv2D(count * CLASSES, 1, in_channels=4))

    class Ssd(Detector):
        def hybrid_forward(self, F, x):
            low = self.stem(x)
            high = self.down(low)

            def rows(*maps):
                return F.concat(*[F.flatten(F.transpose(each, axes=(0, 2, 3, 1))) for each in maps], dim=1)

            scores = F.reshape(rows(self.classes0(low), self.classes1(high)), shape=(0, -1, CLASSES))
            return rows(self.places(low)), F.relu(scores)

    class Retina(Detector):
        def hybrid_forward(self, F, x):
            low = self.stem(x)
            high = self.down(low)

            def boxes(x, numbers):
                return F.reshape(F.transpose(x, axes=(0, 2, 3, 1)), shape=(0, -1, numbers))

            return (
                boxes(self.places(low), COORDINATES),
                (high,),
                [boxes(self.classes0(low), CLASSES), boxes(self.classes1(high), CLASSES)],
            )

    models = {"ssd": Ssd(), "retina": Retina()}
    for model in models.values():
        model.initialize()
    return models
