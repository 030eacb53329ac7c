"""The ways to choose a backend, `from convlab import torch as lab`, `backend`, `use_backend`; the layer `Conv2D`."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack

from .contract.framework import Framework
from .contract.layer import LayerArguments
from .correlation.arguments import asarray
from .correlation.corr2d import conv2d, corr2d
from .correlation.matrix import im2col
from .correlation.transposed import conv_transpose2d
from .registry import chosen, constant_for_dynamo, default_backend, framework

if TYPE_CHECKING:
    from .learning.learn_kernel import learn_kernel

P = ParamSpec("P")
R = TypeVar("R")

_BACKENDS: dict[str, Backend] = {}


class _Bound(Generic[P, R]):
    """A function of convlab as a method that computes on this backend."""

    def __init__(self, function: Callable[P, R]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: Backend | None, owner: type[Backend] | None = None) -> Callable[P, R]:
        if instance is None:
            return self.function
        return partial(self.function, backend=instance.name)  # type: ignore[arg-type]


class Backend(Framework):
    """convlab on one framework: the same functions, bound to it.

    >>> from convlab import numpy as lab
    >>> lab.corr2d([[1.0, 2.0, 4.0]], [[-1.0, 1.0]])
    array([[1., 2.]], dtype=float32)

    Attributes:
        name: "torch", "jax", …
        adapter: what the backend can do (`convlab.contract.Adapter`).
        ops: the framework's array operations (`convlab.contract.Operations`).
    """

    corr2d = _Bound(corr2d)
    conv2d = _Bound(conv2d)
    conv_transpose2d = _Bound(conv_transpose2d)
    im2col = _Bound(im2col)
    if TYPE_CHECKING:
        learn_kernel = _Bound(learn_kernel)
    else:
        # Deferred until it is used: importing it takes a while.
        @property
        def learn_kernel(self):
            """`convlab.learn_kernel` on this backend."""
            module = importlib.import_module(".learning.learn_kernel", __package__)
            return partial(module.learn_kernel, backend=self.name)

    def asarray(self, array: Any, dtype: Any = None) -> Any:
        """A tensor of this framework from an array, a list, or a tensor of this framework.

        >>> from convlab import numpy as lab
        >>> lab.asarray([[1, 2]], dtype="float16")
        array([[1., 2.]], dtype=float16)
        """
        return asarray(self, array, dtype)

    def __reduce__(self) -> Any:
        return backend, (self.name,)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name in self.adapter.extras:
            return self.module(name)
        raise AttributeError(f"backend {self.name!r} has no {name!r}")

    def __repr__(self) -> str:
        return f"<convlab backend {self.name!r} on {self.adapter.frameworks[0]} {self.version}>"


def backend(name: str) -> Backend:
    """The backend of that name, its framework loaded; `from convlab import jax` gives the same object.

    "pytorch", "keras", "tf", "flax", "gluon" and the like are aliases (`Adapter.aliases`).

    >>> backend("numpy").name
    'numpy'

    Raises:
        UnknownBackendError: no adapter has that name.
        BackendNotInstalled: its framework isn't installed; the hint is the command that installs it.
        BackendBroken: its framework is installed and fails to import; `__cause__` says why.
    """
    _ensure(name)
    return _BACKENDS[name]


@constant_for_dynamo
def _ensure(name: str) -> None:
    """Put a backend in `_BACKENDS` unless it is there already."""
    if not isinstance(name, str) or name not in _BACKENDS:
        loaded = framework(name)
        bound = _BACKENDS.setdefault(loaded.name, Backend(loaded.adapter, loaded.ops))
        _BACKENDS[name] = bound


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[Backend]:
    """Within the block, arrays that belong to no framework go to this backend.

    Safe across threads and async tasks: the choice is a context variable.

    >>> with use_backend("numpy") as lab:
    ...     lab.name
    'numpy'
    """
    used = backend(name)
    token = chosen.set(used.name)
    try:
        yield used
    finally:
        chosen.reset(token)


def Conv2D(*sizes: Any, backend: str | None = None, **arguments: Unpack[LayerArguments]) -> Any:
    """A convolutional layer of the chosen framework: `corr2d(X, weight, bias=bias)` with parameters.

    It is a native object (`torch.nn.Module`, gluon `HybridBlock`, `flax.linen.Module`, `keras.layers.Layer`; for NumPy
    a small class of its own) with parameters `weight` and `bias`, trained by that framework's own means.

    Without `out_channels` it is the chapter's layer: a weight of shape `kernel_size` and a bias of shape (1,), applied
    to each image of (..., H, W). With `out_channels` it is a full layer on (N, C, H, W), weight OIHW, or on
    (N, H, W, C), weight HWIO, with data_format="NHWC"; the bias has shape (O,).

    >>> import numpy as np
    >>> layer = Conv2D((1, 2), seed=0, backend="numpy")
    >>> layer(np.ones((6, 8), dtype="float32")).shape
    (6, 7)

    What users of the framework's own layer write is taken too, `Conv2D(8, 3, activation="relu")` on Keras: see
    docs/reference/layers.md.

    Args:
        *sizes: kernel_size; or several, in the order of the framework's own layer.
        kernel_size: the kernel's rows and columns, an int or a pair.
        in_channels: inferred from the first input if not given (`flax.nnx` needs it).
        out_channels: None for the chapter's layer.
        stride, padding, padding_mode, dilation, groups, data_format: as in `corr2d`.
        use_bias: whether there is a bias.
        dtype: of weight and bias; float32 if not given (Keras: its policy's).
        seed: the same initial weight on every backend (see `LayerSpec.seeded`) and a zero bias. Without it, the
            framework's customary initial values.
        reproducible: as in `corr2d`; with a seed, training is the same everywhere if the rest of the model is.
        backend: the framework; the default backend if not given.

    Raises:
        OptionError: an argument that neither convlab nor the framework's own layer has.
        GeometryError, ShapeError, DTypeError: an option that makes no sense.

    Warns:
        LayoutWarning: `data_format` isn't given, and the first image looks like (H, W, C).
    """
    return framework(default_backend() if backend is None else backend).Conv2D(*sizes, **arguments)
