"""Our own backends are held to what others' are."""

from __future__ import annotations

import pytest

import convlab
from convlab.contract.adapter import Adapter
from convlab.errors import DuplicateBackendError
from convlab.registry import adapter, register
from convlab.testing.conformance import Conformance


class TestNumpy(Conformance, backend="numpy"):
    pass


class TestTorch(Conformance, backend="torch"):
    pass


class TestMxnet(Conformance, backend="mxnet"):
    pass


class TestJax(Conformance, backend="jax"):
    examples = 5  # XLA compiles each new shape


class TestTensorflow(Conformance, backend="tensorflow"):
    examples = 10


class TestDask(Conformance, backend="dask"):
    @pytest.fixture(autouse=True)
    def small_chunks(self):
        """Images of the suite are small: in chunks of a few pixels, most windows meet several."""
        import dask

        with dask.config.set({"array.chunk-size": "64B", "scheduler": "sync"}):
            yield


def test_an_adapter_or_a_backend_as_an_object() -> None:
    class TestObject(Conformance, backend=adapter("numpy")):
        pass

    class TestBackend(Conformance, backend=convlab.backend("numpy")):
        pass

    assert TestObject.adapter is TestBackend.adapter is adapter("numpy")
    other = Adapter("numpy", "another", ("numpy",), lambda x: False, "1.0", ())
    with pytest.raises(DuplicateBackendError, match="second adapter"):
        register(other)
