# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Why do these two models differ?
#
# A small PyTorch network is written again in Keras, by hand. Every shape is right, the weights are copied with the
# right transposes, and the results differ. `convlab.compare` says where and why. The last section lets
# `convlab.port` do the work.
#
# This notebook needs PyTorch and TensorFlow, which Colab has. JupyterLite has neither.

# %%
try:
    import convlab
except ModuleNotFoundError:  # as in Colab
    # %pip install --quiet ../.. matplotlib
    import convlab

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import torch

# %% [markdown]
# ## The model that was trained
#
# Two convolutions of stride 2, each with a batch norm. Training leaves running statistics behind that aren't 0 and
# 1, and some channels hardly vary. Random numbers stand for it here.

# %%
torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Conv2d(3, 4, 3, stride=2, padding=1),
    torch.nn.BatchNorm2d(4),
    torch.nn.ReLU(),
    torch.nn.Conv2d(4, 8, 3, stride=2, padding=1),
    torch.nn.BatchNorm2d(8),
    torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool2d(1),
    torch.nn.Flatten(),
    torch.nn.Linear(8, 10),
)
with torch.no_grad():
    for norm in (model[1], model[4]):
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.001, 0.1)
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(0, 0.1)
model.eval()


# %% [markdown]
# ## The copy, as one writes it
#
# `padding="same"` seems to be the word for a padding that halves 32 pixels to 16, and a batch norm seems to need no
# arguments. The layers have the names that PyTorch gives them.


# %%
def by_hand():
    """The same network in Keras, or so it seems."""
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(4, 3, strides=2, padding="same", name="conv0"),
            keras.layers.BatchNormalization(name="norm1"),
            keras.layers.ReLU(name="relu2"),
            keras.layers.Conv2D(8, 3, strides=2, padding="same", name="conv3"),
            keras.layers.BatchNormalization(name="norm4"),
            keras.layers.ReLU(name="relu5"),
            keras.layers.GlobalAveragePooling2D(name="mean6"),
            keras.layers.Dense(10, name="dense8"),
        ]
    )


def copy_weights(source, target):
    """Kernels go from OIHW to HWIO, matrices are transposed, and batch norms have four rows of numbers."""
    for layer in target.layers:
        number = int("".join(filter(str.isdigit, layer.name)))
        arrays = {name: array.detach().numpy() for name, array in source[number].state_dict().items()}
        if isinstance(layer, keras.layers.Conv2D):
            layer.set_weights([arrays["weight"].transpose(2, 3, 1, 0), arrays["bias"]])
        elif isinstance(layer, keras.layers.Dense):
            layer.set_weights([arrays["weight"].T, arrays["bias"]])
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([arrays[name] for name in ("weight", "bias", "running_mean", "running_var")])


copy = by_hand()
copy_weights(model, copy)

# %% [markdown]
# Both take the same four images, PyTorch as NCHW and Keras as NHWC:

# %%
images = np.random.default_rng(0).random((4, 3, 32, 32), dtype="float32")


def results(keras_model):
    """What both models make of the images: PyTorch's, and Keras's."""
    with torch.no_grad():
        expected = model(torch.from_numpy(images)).numpy()
    return expected, keras_model(images.transpose(0, 2, 3, 1), training=False).numpy()


def scatter(expected, actual, title):
    """One point for each number; equal ones lie on the line."""
    _, ax = plt.subplots(figsize=(3.4, 3.4), layout="constrained")
    ax.axline((0, 0), slope=1, color="0.7")
    ax.scatter(expected, actual, s=12)
    ax.set(xlabel="PyTorch", ylabel="Keras", title=title)


expected, actual = results(copy)
scatter(expected, actual, "written by hand")
print("largest difference:", np.abs(actual - expected).max())
assert actual.shape == expected.shape
assert np.abs(actual - expected).max() > 0.01

# %% [markdown]
# ## Where and why
#
# `compare` pairs the layers, runs each pair on the same images, and holds the results against what rounding allows.
# Two kinds of layers diverge, the convolutions and the batch norms. Each verdict says what is computed instead, and
# what mends it.

# %%
found = convlab.compare(model, copy)
print(found)

# %%
reasons = " ".join(str(found).split())
assert found.same is False
assert "the second 0 before and 1 after (SAME, on 32x32 pixels)" in reasons
assert "epsilon is 1e-05 in the first, 0.001 in the second" in reasons
assert {row.kind for row in found.rows if row.same is False} == {"conv2d", "batch_norm"}

# %% [markdown]
# **The padding.** A kernel of 3 at stride 2 on 32 pixels needs one row of zeros, not two. Keras puts it below and
# right; PyTorch's `padding=1` puts a row on each side, of which the last is never reached. Both give 16 pixels, and
# every window of one lies one pixel beside that of the other:

# %%
row = np.arange(1.0, 9.0)[None]
pick = np.array([[0.0, 1.0, 0.0]])  # shows the middle of each window
print("PyTorch:", convlab.corr2d(row, pick, stride=(1, 2), padding=((0, 0), (1, 1)), backend="numpy"))
print("Keras:  ", convlab.corr2d(row, pick, stride=(1, 2), padding="same", backend="numpy"))

# %% [markdown]
# **The epsilon.** A batch norm divides by $\sqrt{\sigma^2 + \epsilon}$. The default $\epsilon$ is 0.00001 in PyTorch
# and 0.001 in Keras. For a variance of 0.001 that is a factor of 1.4:

# %%
factor = np.sqrt((0.001 + 1e-3) / (0.001 + 1e-5))
print(f"{factor:.3f}")
assert model[1].eps == 1e-5
assert copy.get_layer("norm1").epsilon == 1e-3

# %% [markdown]
# ## Mended
#
# The border gets a layer of its own, and the batch norms their epsilon.


# %%
def mended():
    """The network in Keras, with PyTorch's padding and epsilon."""
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.ZeroPadding2D(1, name="border0"),
            keras.layers.Conv2D(4, 3, strides=2, name="conv0"),
            keras.layers.BatchNormalization(epsilon=1e-5, name="norm1"),
            keras.layers.ReLU(name="relu2"),
            keras.layers.ZeroPadding2D(1, name="border3"),
            keras.layers.Conv2D(8, 3, strides=2, name="conv3"),
            keras.layers.BatchNormalization(epsilon=1e-5, name="norm4"),
            keras.layers.ReLU(name="relu5"),
            keras.layers.GlobalAveragePooling2D(name="mean6"),
            keras.layers.Dense(10, name="dense8"),
        ]
    )


right = mended()
copy_weights(model, right)
expected, actual = results(right)
scatter(expected, actual, "mended")
assert np.abs(actual - expected).max() < 1e-5

# %% [markdown]
# That four images agree proves little. `compare` holds all layers, and the whole model, to the bound of rounding, on
# images of its own:

# %%
proof = convlab.compare(model, right)
print(proof)
assert proof.same is True

# %% [markdown]
# ## Or at once
#
# `port` reads the model, makes the layers of the other framework, borders and epsilons with them, and proves the
# result in the same way. `to="jax"`, `"jax.nnx"` or `"mxnet"` would do as well.

# %%
ported = convlab.port(model, to="tensorflow")
print(ported)
expected, actual = results(ported.model)
assert ported.evidence.same is True
assert np.abs(actual - expected).max() < 1e-5

# %% [markdown]
# The new model as a program that doesn't need convlab:

# %%
print(ported.source())
