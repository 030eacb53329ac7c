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
# # Learn the blur of your camera
#
# A camera that shakes, or is out of focus, replaces each point of the scene by a small blot. The picture that it
# takes is the sharp one, cross-correlated with a kernel. Given a sharp and a blurred picture of the same scene, the
# kernel can be learned; given the kernel, the blur of other pictures can be undone.
#
# First with a picture of which we know everything, then how to do it with two photographs of your own. The text runs
# on PyTorch, JAX, TensorFlow, MXNet and NumPy, and in the browser (JupyterLite) on NumPy.

# %%
try:
    import convlab
except ModuleNotFoundError:  # as in Colab and in JupyterLite
    # %pip install --quiet ../.. matplotlib scikit-image
    import convlab

# %%
import importlib.util
import os

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

from convlab import filters

FRAMEWORK = os.environ.get("CONVLAB_BACKEND", "torch")  # "torch", "jax", "tensorflow", "mxnet" or "numpy"
if importlib.util.find_spec(FRAMEWORK) is None:
    print(f"{FRAMEWORK} isn't installed here, so NumPy computes.")
    FRAMEWORK = "numpy"

lab = convlab.backend(FRAMEWORK)
print(lab)


def show(black=None, white=None, **pictures):
    """Show grey images beside each other, each from its darkest to its brightest pixel, or from `black` to `white`."""
    _, axes = plt.subplots(1, len(pictures), figsize=(3.2 * len(pictures), 3.4), layout="constrained", squeeze=False)
    for ax, (title, picture) in zip(axes[0], pictures.items(), strict=True):
        ax.imshow(lab.to_numpy(lab.asarray(picture)), cmap="gray", vmin=black, vmax=white)
        ax.set(title=title.replace("_", " "), xticks=[], yticks=[])


# %% [markdown]
# ## A blur that nobody told us
#
# The photograph is one that scikit-image brings along, with pixels from 0 to 1. The camera moved nine pixels upwards
# to the right while it exposed, and its sensor added noise of 0.005 to each pixel.

# %%
sharp = lab.asarray(data.camera()[60:316, 100:356].astype("float32") / 255)
secret = filters.motion_blur(9, angle=35)
noise = 0.005
grain = np.random.default_rng(0).normal(0, noise, (256, 256)).astype("float32")
blurred = lab.corr2d(sharp, secret, padding="same", padding_mode="symmetric") + lab.asarray(grain)
show(0, 1, sharp=sharp, blurred=blurred)

# %% [markdown]
# ## Learn it
#
# From here on, `secret` isn't used but to check. We don't know the kernel's size either and take 13x13, which is
# larger than the blot. `padding="valid"` is the default, so that what lies beyond the image's border has no part in
# it: the six outermost rows and columns of the blurred image are left out.

# %%
SIZE = 13
REACH = SIZE // 2
inner = blurred[REACH:-REACH, REACH:-REACH]
learned = lab.learn_kernel(sharp, inner, SIZE, method="lstsq")
kernel = lab.to_numpy(learned.kernel)

truth = np.zeros((SIZE, SIZE))
rows, columns = secret.shape
truth[(SIZE - rows) // 2 : (SIZE + rows) // 2, (SIZE - columns) // 2 : (SIZE + columns) // 2] = secret
show(secret=truth, learned=kernel, difference=kernel - truth)
print(f"largest weight {truth.max():.3f}, largest error {np.abs(kernel - truth).max():.4f}, sum {kernel.sum():.4f}")
assert np.abs(kernel - truth).max() < 0.004
assert abs(kernel.sum() - 1) < 0.001

# %% [markdown]
# `method="lstsq"` finds the kernel of least squared error. What it leaves over is the noise, and tells how strong it
# is:

# %%
pixels = (256 - 2 * REACH) ** 2
left_over = np.sqrt(learned.losses[0] / pixels)
print(f"noise {noise}, left over {left_over:.5f}")
assert abs(left_over / noise - 1) < 0.02

# %% [markdown]
# How far may the kernel be trusted? Least squares knows that, too. The standard error of each weight is the noise
# times the root of the diagonal of $(A^T A)^{-1}$, where the rows of $A$ are the windows of the sharp image.
# Measured in standard errors, the errors are about 1:

# %%
windows = lab.to_numpy(lab.im2col(sharp, SIZE)).astype("float64")
standard_error = left_over * np.sqrt(np.diag(np.linalg.inv(windows @ windows.T))).reshape(SIZE, SIZE)
errors = (kernel - truth) / standard_error
print(f"standard error of a weight: {standard_error.mean():.5f}")
print(f"root mean square of the errors, in standard errors: {errors.std():.2f}")
assert 0.8 < errors.std() < 1.2

# %% [markdown]
# Gradient descent gets there as well, but slowly. Neighbouring pixels of a photograph are nearly equal, so that
# moving weight from one element of the kernel to the next hardly changes the error. `method="gram"` sums up the
# images once, and takes a thousand steps in a moment:

# %%
flat = np.full((SIZE, SIZE), 1 / SIZE**2)
descent = lab.learn_kernel(sharp, inner, SIZE, method="gram", lr="auto", num_steps=1000, init=flat)
show(after_1000_steps=descent.kernel, least_squares=kernel)
ratio = descent.losses[-1] / learned.losses[0]
print(f"squared error after 1000 steps: {ratio:.1f} times the least")
assert 1 < ratio < descent.losses[0] / learned.losses[0]

# %% [markdown]
# ## Undo it
#
# Dividing by the kernel's spectrum would do, were it not for the noise: where the kernel lets little through, it
# would be blown up. `filters.wiener` asks for smoothness there, and its `noise` says how much.
# `filters.richardson_lucy` takes steps towards the likeliest image of positive pixels. Both get the image with a
# margin of its reflection, since they know nothing beyond its border.

# %%
MARGIN = 32
inside = (slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
wider = lab.asarray(np.pad(lab.to_numpy(blurred), MARGIN, mode="symmetric").clip(0))
positive = kernel.clip(0) / kernel.clip(0).sum()
by_wiener = filters.wiener(wider, kernel, noise=0.01)[inside]
by_richardson_lucy = filters.richardson_lucy(wider, positive, num_steps=40)[inside]
show(0, 1, blurred=blurred, by_wiener=by_wiener, by_richardson_lucy=by_richardson_lucy, sharp=sharp)


def decibels(image):
    """The peak signal-to-noise ratio against the sharp image, without a border of 16 pixels."""
    error = (lab.to_numpy(image) - lab.to_numpy(sharp))[16:-16, 16:-16]
    return -10 * np.log10((error.astype("float64") ** 2).mean())


before, wiener, richardson_lucy = map(decibels, (blurred, by_wiener, by_richardson_lucy))
print(f"blurred {before:.1f} dB, Wiener {wiener:.1f} dB, Richardson-Lucy {richardson_lucy:.1f} dB")
assert wiener > before + 4
assert richardson_lucy > before + 5

# %% [markdown]
# ## With two photographs of your own
#
# 1. Put the camera on a tripod, before something flat and full of detail: a bookshelf, gravel, a printed page of
#    noise. Nothing may move but what blurs.
# 2. Take one sharp photograph, and one with the blur: out of focus, or while you push the camera. Use the same
#    exposure and the lowest ISO, and switch off the camera's sharpening and noise reduction.
# 3. Cut the same part out of both, where the lens blurs alike: some hundred pixels in the middle.
#
# Three things differ from the simulation above, and the function below takes care of them. The files are in sRGB,
# whose numbers aren't proportional to the light, so its curve is undone first. One photograph may be a little
# brighter than the other: the kernel's sum is their ratio, and `use_bias=True` learns an offset. And the blurred one
# may be shifted by a few pixels: then the kernel lies aside of its middle, as long as `size` leaves room for it.


# %%
def light(path):
    """The light in a photograph: its pixels as (H, W), proportional to what fell on the sensor, white being 1."""
    pixels = plt.imread(path)
    pixels = pixels / 255 if pixels.dtype == np.uint8 else pixels
    grey = pixels[..., :3].mean(axis=-1) if pixels.ndim == 3 else pixels
    return np.where(grey <= 0.04045, grey / 12.92, ((grey + 0.055) / 1.055) ** 2.4).astype("float32")


def blur_of(sharp_path, blurred_path, size=25):
    """The kernel that makes the second photograph of the first, and the offset of its brightness."""
    first, second = lab.asarray(light(sharp_path)), lab.asarray(light(blurred_path))
    reach = size // 2
    found = lab.learn_kernel(first, second[reach:-reach, reach:-reach], size, method="lstsq", use_bias=True)
    return lab.to_numpy(found.kernel), float(lab.to_numpy(found.bias).item())


# %% [markdown]
# To see that it works, we make two such files: 8 bits in sRGB, the second a fifth darker, lighter by a reflection of
# 0.03, and shifted by two rows and a column.

# %%
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp())


def save(name, image):
    """Write light as a file of 8 bits in sRGB."""
    curved = np.where(image <= 0.0031308, image * 12.92, 1.055 * image.clip(0) ** (1 / 2.4) - 0.055)
    plt.imsave(folder / name, np.repeat((curved.clip(0, 1) * 255).round().astype("uint8")[..., None], 3, axis=-1))


scene = lab.to_numpy(sharp)
moved = np.roll(lab.to_numpy(lab.corr2d(scene, secret, padding="same", padding_mode="circular")), (2, 1), axis=(0, 1))
save("sharp.png", scene)
save("blurred.png", 0.8 * moved + 0.03)

kernel, offset = blur_of(folder / "sharp.png", folder / "blurred.png", size=SIZE)
show(learned=kernel, secret=truth)
print(f"sum {kernel.sum():.3f}, offset {offset:.3f}")
shifted = np.roll(truth, (-2, -1), axis=(0, 1))
assert np.abs(kernel - 0.8 * shifted).max() < 0.003
assert abs(kernel.sum() - 0.8) < 0.003
assert abs(offset - 0.03) < 0.003

# %% [markdown]
# Then `filters.wiener(lab.asarray(light("another.jpg")), kernel / kernel.sum(), noise=0.01)` sharpens another
# photograph that was taken with the same blur. Try a few values of `noise`: with too little of it, grain and ripples
# appear.
