"""The private name of JAX that the adapter uses, and what it does without it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlab.compiled import kernels
from convlab_jax import private
from convlab_jax.ops import ops


def aligned(shape, dtype="float32"):
    array = kernels.aligned(shape, dtype)
    array[...] = np.random.default_rng(0).normal(size=shape)
    return array


def test_an_array_is_over_numpys_memory() -> None:
    array = aligned((3, 5))
    x = private.from_dlpack(array, jax.devices("cpu")[0])
    assert isinstance(x, jax.Array)
    assert x.unsafe_buffer_pointer() == array.ctypes.data
    np.testing.assert_array_equal(np.asarray(x), array)


def test_without_the_name_there_is_no_array(monkeypatch) -> None:
    monkeypatch.setattr(private, "_import", None)
    assert private.from_dlpack(aligned((3, 5)), jax.devices("cpu")[0]) is None


@pytest.mark.parametrize("there", [True, False])
def test_the_adapter_has_the_same_array_with_and_without_it(monkeypatch, there) -> None:
    if not there:
        monkeypatch.setattr(private, "_import", None)
    array = aligned((2, 4))
    x = ops.from_host(array, jnp.ones(1))
    assert isinstance(x, jax.Array)
    np.testing.assert_array_equal(np.asarray(x), array)
