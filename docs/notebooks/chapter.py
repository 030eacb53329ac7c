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
# # Convolutions for Images
#
# The chapter of that name in [*Dive into Deep
# Learning*](https://d2l.ai/chapter_convolutional-neural-networks/conv-layer.html), section by section, with its
# exercises answered. One text serves PyTorch, JAX, TensorFlow, MXNet and NumPy: change the name behind `FRAMEWORK`
# and run all cells again. Each `assert` checks the claim that stands above it.

# %%
try:
    import convlab
except ModuleNotFoundError:  # as in Colab and in JupyterLite
    # %pip install --quiet ../.. matplotlib
    import convlab

# %%
import importlib.util
import os

FRAMEWORK = os.environ.get("CONVLAB_BACKEND", "torch")  # "torch", "jax", "tensorflow", "mxnet" or "numpy"
if importlib.util.find_spec(FRAMEWORK) is None:
    print(f"{FRAMEWORK} isn't installed here, so NumPy computes.")
    FRAMEWORK = "numpy"

lab = convlab.backend(FRAMEWORK)
print(lab)

# %%
import matplotlib.pyplot as plt
import numpy as np

from convlab import chapter, filters


def show(**pictures):
    """Show arrays with their numbers: `image` in grey, others from blue (negative) over white (0) to red."""
    _, axes = plt.subplots(1, len(pictures), figsize=(3.2 * len(pictures), 2.6), layout="constrained", squeeze=False)
    for ax, (title, picture) in zip(axes[0], pictures.items(), strict=True):
        pixels = lab.to_numpy(lab.asarray(picture))
        grey, most = title == "image", np.abs(pixels).max() or 1
        colours = {"cmap": "gray", "vmin": 0} if grey else {"cmap": "RdBu_r", "vmin": -1.5 * most, "vmax": 1.5 * most}
        ax.imshow(pixels, **colours)
        for (row, column), value in np.ndenumerate(pixels):
            colour = "white" if grey and value < most / 2 else "black"
            ax.text(column, row, f"{value:.3g}", color=colour, ha="center", va="center", fontsize=8)
        ax.set(title=title.replace("_", " "), xticks=[], yticks=[])


# %% [markdown]
# ## The cross-correlation operation
#
# The kernel lies on each window of the image in turn. The products of the numbers that lie on each other are summed
# up: $Y_{ij} = \sum_{a, b} X_{i + a,\, j + b}\, K_{ab}$. An image of $n_h \times n_w$ and a kernel of $k_h \times
# k_w$ give $(n_h - k_h + 1) \times (n_w - k_w + 1)$ results.

# %%
X = lab.asarray([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0]])
K = lab.asarray([[0.0, 1.0], [2.0, 3.0]])
Y = lab.corr2d(X, K)
show(image=X, kernel=K, result=Y)
Y

# %% [markdown]
# The first number by hand: $0 \cdot 0 + 1 \cdot 1 + 3 \cdot 2 + 4 \cdot 3 = 19$. The chapter's four numbers:

# %%
assert lab.to_numpy(Y).tolist() == [[19.0, 25.0], [37.0, 43.0]]

# %% [markdown]
# ## Convolutional layers
#
# A layer has a kernel and one bias, which it adds to each result. It is a native layer of the framework, with the
# framework's own initial values; a `seed` gives the same ones in every framework.

# %%
layer = lab.Conv2D((2, 2), seed=0)
print(layer)

# %% [markdown]
# ## Object edge detection in images
#
# The image is white (1) with a black band (0) in its middle. The kernel [1, -1] takes the difference of two pixels
# that lie beside each other. It is 1 where white turns black, -1 where black turns white, and 0 elsewhere.

# %%
X = lab.asarray(chapter.edge_image())
Y = lab.corr2d(X, chapter.EDGE_KERNEL)
show(image=X, result=Y)
assert lab.to_numpy(Y).tolist() == [[0.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0]] * 6

# %% [markdown]
# The kernel finds vertical edges only. In the transposed image the edges are horizontal, and all results are zero:

# %%
transposed = lab.asarray(chapter.edge_image().T)
assert not lab.to_numpy(lab.corr2d(transposed, chapter.EDGE_KERNEL)).any()

# %% [markdown]
# ## Learning a kernel
#
# Now only the image and the result are given, and gradient descent looks for the kernel. It starts from zero and
# takes ten steps with the learning rate 0.03, as the chapter does.

# %%
learned = lab.learn_kernel(X, Y, (1, 2), init=[[0.0, 0.0]], num_steps=10, lr=3e-2, log_every=2)
kernel = lab.to_numpy(learned.kernel)
print("kernel:", kernel.round(3))

_, ax = plt.subplots(figsize=(4, 2.6), layout="constrained")
ax.semilogy(range(1, 11), learned.losses, marker="o")
ax.set(xlabel="step", ylabel="squared error", title=FRAMEWORK)
assert np.abs(kernel - [[0.988, -0.988]]).max() < 5e-4
assert np.abs(np.array(learned.losses[1::2]) - [4.915, 0.825, 0.138, 0.023, 0.004]).max() < 5e-4

# %% [markdown]
# The gradient needs no framework. The error is $\sum (Y' - Y)^2$, and each weight meets each pixel of its window
# once. So the gradient with respect to the kernel is twice the cross-correlation of the image with the residual $Y'
# - Y$. These ten steps end at the same kernel:

# %%
K = lab.asarray([[0.0, 0.0]])
for _ in range(10):
    residual = lab.corr2d(X, K) - Y
    K = K - 3e-2 * 2 * lab.corr2d(X, residual)
assert np.abs(lab.to_numpy(K) - kernel).max() < 1e-5

# %% [markdown]
# The squared error is a quadratic in the kernel, so its minimum can be had without a step:

# %%
exact = lab.to_numpy(lab.learn_kernel(X, Y, (1, 2), method="lstsq").kernel)
print(exact.round(5))
assert np.abs(exact - [[1, -1]]).max() < 1e-5

# %% [markdown]
# ## Cross-correlation and convolution
#
# Strict convolution turns the kernel by 180 degrees first. A learned kernel comes out turned as well, so it makes no
# difference to learning which of the two a layer computes.

# %%
assert np.array_equal(lab.to_numpy(lab.conv2d(X, [[-1.0, 1.0]])), lab.to_numpy(Y))

# %% [markdown]
# ## Feature map and receptive field
#
# The result of a layer is a feature map. The receptive field of one of its numbers is the set of all inputs that it
# may depend on. Of two 2x2 kernels one behind the other, one number of the second map sees 3x3 pixels:

# %%
field = convlab.receptive_field([2, 2])
print(field.size, field.inputs(0, 0))
assert field.size == (3, 3)

# %% [markdown]
# It is so: change each pixel of a 3x3 image, and the one number that two 2x2 kernels make of it changes.

# %%
ones = np.ones((2, 2), "float32")


def twice(image):
    """The image behind two kernels of ones, as a number."""
    return float(lab.to_numpy(lab.corr2d(lab.corr2d(lab.asarray(image), ones), ones))[0, 0])


dot = np.eye(9, dtype="float32").reshape(9, 3, 3)
weights = np.array([twice(each) for each in dot]).reshape(3, 3)
show(influence_of_each_pixel=weights)
assert weights.tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]

# %% [markdown]
# ## Exercises
#
# **1. An image with a diagonal edge.** What happens if the kernel [1, -1] is applied to it, if the image is
# transposed, and if the kernel is?
#
# The kernel finds the edge, since brightness changes from left to right across it. The transposed image has the edge
# with the other sign. The transposed kernel looks downwards and finds the edge, with the other sign again.

# %%
D = chapter.diagonal_image(4)
found = lab.corr2d(lab.asarray(D), chapter.EDGE_KERNEL)
of_transposed_image = lab.corr2d(lab.asarray(D.T), chapter.EDGE_KERNEL)
by_transposed_kernel = lab.corr2d(lab.asarray(D), chapter.EDGE_KERNEL.T)
show(image=D, found=found, of_transposed_image=of_transposed_image, by_transposed_kernel=by_transposed_kernel)
assert lab.to_numpy(found).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
assert lab.to_numpy(of_transposed_image).tolist() == [[0, 0, 0], [-1, 0, 0], [0, -1, 0], [0, 0, -1]]
assert np.array_equal(lab.to_numpy(by_transposed_kernel), lab.to_numpy(of_transposed_image).T)

# %% [markdown]
# **2. Kernels by hand.** *For edges orthogonal to a direction $v = (v_1, v_2)$, down and right:* the slope along $v$
# is $v_1$ times the slope downwards plus $v_2$ times the slope to the right, for $v$ of length 1. Below are both of
# them, smoothed across, and the one between them.

# %%
down, right, between = filters.edge((1, 0)), filters.edge((0, 1)), filters.edge((1, 1))
show(downwards=down, to_the_right=right, between=between)
assert np.allclose(between, (down + right) / np.sqrt(2))

# %% [markdown]
# *For the second derivative:* [1, -2, 1], which makes 2 of the squares 0, 1, 4, 9 and nothing of a straight line.
# Three elements are the least. *For the derivative of order d:* d + 1 elements. A kernel of d elements that makes
# nothing of 1, $x$, ..., $x^{d-1}$ must be zero itself, since that is a system of d independent equations.

# %%
second = filters.derivative(2)
squares = lab.asarray([[0.0, 1.0, 4.0, 9.0]])
assert second.tolist() == [[1, -2, 1]]
assert lab.to_numpy(lab.corr2d(squares, second)).tolist() == [[2.0, 2.0]]
for d in range(1, 5):
    powers = np.vander(np.arange(d), increasing=True)  # rows x = 0, 1, ..., columns 1, x, x², ...
    assert np.linalg.matrix_rank(powers) == d
    assert filters.derivative(d).shape == (1, d + 1)

# %% [markdown]
# *For blurring:* equal weights, or weights that fall off with the distance. It takes noise away, and frequencies
# that a smaller image could not hold. Noise of nine equal weights is a third of what it was:

# %%
noise = np.random.default_rng(0).standard_normal((200, 200)).astype("float32")
blurred = lab.to_numpy(lab.corr2d(lab.asarray(noise), filters.box_blur(3)))
print(f"noise {noise.std():.3f}, blurred {blurred.std():.3f}")
assert abs(blurred.std() - 1 / 3) < 0.01

# %% [markdown]
# **3. The gradient of our layer by automatic differentiation.** What error does it raise?
#
# The chapter's own `corr2d` writes into its result, which not every framework differentiates. Here there is no
# error. The bias is added to each of the 5x7 results, so the gradient of their sum with respect to it is 35:

# %%
if FRAMEWORK == "torch":
    layer(X).sum().backward()
    gradient = layer.bias.grad
elif FRAMEWORK == "jax":
    import jax

    variables = layer.init(jax.random.key(0), X)
    gradient = jax.grad(lambda each: layer.apply(each, X).sum())(variables)["params"]["bias"]
elif FRAMEWORK == "tensorflow":
    import tensorflow as tf

    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(X))
    gradient = tape.gradient(total, layer.bias)
elif FRAMEWORK == "mxnet":
    from mxnet import autograd

    layer.initialize()
    layer(X)
    with autograd.record():
        total = layer(X).sum()
    total.backward()
    gradient = layer.bias.grad()
else:  # NumPy has no automatic differentiation; this is the slope itself
    gradient = [layer(X).size]
print(gradient)
assert np.allclose(lab.to_numpy(lab.asarray(gradient)), [35.0])

# %% [markdown]
# **4. Cross-correlation as a matrix product.** Change the image: each window becomes a column, and the kernel a row.

# %%
columns = lab.to_numpy(lab.im2col(X, (1, 2)))
product = chapter.EDGE_KERNEL.reshape(1, -1) @ columns
assert np.array_equal(product.reshape(6, 7), lab.to_numpy(Y))

# %% [markdown]
# Or change the kernel: it becomes a matrix with a row for each result, and the image a column. Nearly all of the
# matrix is zero; the picture shows that of a 1x2 kernel on 3x4 pixels.

# %%
matrix = convlab.corr2d_matrix(chapter.EDGE_KERNEL, (3, 4))
show(matrix=matrix.toarray())
small = chapter.edge_image(3, 4)
assert np.array_equal(
    (matrix @ small.ravel()).reshape(3, 3), lab.to_numpy(lab.corr2d(lab.asarray(small), chapter.EDGE_KERNEL))
)
