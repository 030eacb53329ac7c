"""Models with names, and sources of models: run by the framework alone and filled, they must have the same bits."""

from __future__ import annotations

import numpy as np

from convlab import load, save
from convlab.models.adapters import Node, models_of
from convlab.models.layers.inputs import ONE_IMAGE


def net(name, graph, inputs=ONE_IMAGE):
    """A model of a framework that is a graph of layers with names; several inputs have shapes (C, H, W)."""
    models, nodes = models_of(name), []
    for path, layer, taken in graph:
        natives = models.build(layer, "builtin")
        for index, native in enumerate(natives, 1):
            value = path if native is natives[-1] else f"{path}_{index}"
            nodes.append(Node(value, native, tuple(taken), value))
            taken = (value,)
    return models.assemble(nodes, inputs)


def run_source(name, text, *images):
    """The model that a source makes, with weights of its own, by the framework alone; images are (N, C, H, W)."""
    lasts = [*map(last, images)]
    namespace: dict = {"__name__": "source"}
    exec(compile(text, "source.py", "exec"), namespace)
    model = namespace.get("model")
    if name == "tensorflow":
        model = model or namespace["build"]()
        model(lasts if len(lasts) > 1 else lasts[0])
    elif name == "jax.nnx":
        from flax import nnx

        if isinstance(model, type) or "Model" in namespace:
            model = namespace["Model"](rngs=nnx.Rngs(7))
    elif name == "jax":
        import jax

        model = namespace["Model"]() if model is None else model
        model = model.bind(model.init(jax.random.key(7), *lasts))
    else:
        model = namespace["Model"]() if model is None else model
    if name == "mxnet":
        model.initialize()
    return model


def last(x):
    return np.moveaxis(x, 1, -1) if x.ndim > 2 else x


def result(name, model, x):
    """The result in inference, by the framework alone."""
    if name == "torch":
        import torch

        with torch.no_grad():
            return model.eval()(torch.from_numpy(x)).numpy()
    if name == "mxnet":
        import mxnet

        return model(mxnet.nd.array(x, dtype=x.dtype)).asnumpy()
    if name == "tensorflow":
        return model(last(x), training=False).numpy()
    if name == "jax.nnx":
        model.eval()
    return np.asarray(model(last(x)))


def check(name, ported, folder, x):
    text = ported.source()
    assert text == ported.source()
    check_text(name, text, ported.model, folder, x)
    return text


def check_text(name, text, original, folder, x):
    assert max(map(len, text.splitlines())) <= 100
    save(original, folder / "model.safetensors")
    model = run_source(name, text, x)
    loaded = load(folder / "model.safetensors", into=model)
    assert np.array_equal(result(name, loaded, x), result(name, original, x))
