"""The private names of MXNet and gluon that the adapter touches."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from convlab import mxnet as lab
from convlab_mxnet import private

import mxnet as mx  # isort: skip (an ordinary import, after convlab's)
from mxnet.gluon import nn  # isort: skip


@pytest.fixture
def net():
    chain = nn.HybridSequential()
    chain.add(nn.Dense(2, activation="relu", in_units=3, use_bias=False), nn.Dense(1, in_units=2))
    chain.initialize()
    return chain


def test_the_library_has_dlpack_and_openmp() -> None:
    assert private.library().MXNDArrayGetData
    assert private.library().omp_get_max_threads() >= 1


def test_dtype_and_device_as_numbers() -> None:
    """Those that MXNet's C header lists, and a context shows."""
    codes = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6}
    for dtype, code in codes.items():
        array = mx.np.zeros((2, 3), dtype=dtype)
        assert private.kind(array) == (code, array.ctx.device_typeid, array.ctx.device_id) == (code, 1, 0)
    assert private.kind(mx.nd.zeros((1,), ctx=mx.cpu(1))) == (0, 1, 1)


def foreign() -> list[bool]:
    """What a thread that Python hasn't started says."""
    import _thread

    answers: list[bool] = []
    ended = _thread.allocate_lock()
    ended.acquire()
    _thread.start_new_thread(lambda: (answers.append(private.in_foreign_thread()), ended.release()), ())
    ended.acquire()
    return answers


@pytest.mark.parametrize("there", [True, False])
def test_threads_that_python_has_not_started(monkeypatch, there) -> None:
    if not there:
        monkeypatch.setattr(private, "threading", type("Threading", (), {"current_thread": threading.current_thread}))
    with ThreadPoolExecutor(1) as pool:
        assert not pool.submit(private.in_foreign_thread).result()
    assert not private.in_foreign_thread()
    assert foreign() == [True]


def test_children_by_name(net) -> None:
    assert dict(private.children(net)) == {"0": net[0], "1": net[1]}


def test_own_parameters_and_those_of_all_inside(net) -> None:
    assert not private.parameters(net)
    assert set(private.parameters(net[1])) == {"weight", "bias"}
    assert set(private.all_parameters(net)) == {"0.weight", "1.weight", "1.bias"}


def test_options_of_a_layer() -> None:
    assert private.option(nn.LeakyReLU(0.3), "alpha") == 0.3
    assert private.operator_options(nn.Conv2D(1, 3, padding=1))["pad"] == (1, 1)
    assert private.operator_options(nn.Flatten()) == {}


def test_a_name_that_is_gone_is_named() -> None:
    with pytest.raises(AttributeError, match="_children"):
        private.children(object())


def test_without_its_activation_a_layer_has_the_same_parameters(net) -> None:
    alone = private.without_activation(net[0])
    assert alone.act is None
    assert net[0].act is not None
    assert alone.weight is net[0].weight
    x = mx.nd.array([[1.0, -2.0, 3.0]])
    np.testing.assert_array_equal(np.maximum(alone(x).asnumpy(), 0), net[0](x).asnumpy())


def test_what_hybridizing_compiled_is_put_away_and_back(net) -> None:
    net.hybridize()
    net(mx.nd.ones((1, 3)))
    compiled = net._cached_op
    assert compiled is not None
    with private.not_compiled(net):
        assert net._cached_op is None
    assert net._cached_op is compiled


def test_a_trainer_that_has_stepped_and_one_that_has_only_started(net) -> None:
    trainers = [mx.gluon.Trainer(net.collect_params(), "adam") for _ in range(2)]
    private.start(trainers[1])
    with mx.autograd.record():
        loss = net(mx.nd.ones((1, 3))).sum()
    loss.backward()
    trainers[0].step(1)
    assert private.update_counts(trainers[0].optimizer) == dict.fromkeys(range(3), 1)
    assert set(private.updater(trainers[0]).states) == {0, 1, 2}
    assert private.update_counts(trainers[1].optimizer) == {}
    assert private.updater(trainers[1]).states == {}


def test_the_layers_initial_values_are_drawn_by_the_initialiser_that_it_is_given() -> None:
    layer = lab.Conv2D(3, in_channels=1, out_channels=2)
    layer.initialize(mx.init.Constant(0.25))
    np.testing.assert_array_equal(layer.weight.data().asnumpy(), np.full((2, 1, 3, 3), 0.25))
