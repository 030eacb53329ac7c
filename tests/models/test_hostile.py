"""Files that lie: a typed error or a right model, and nothing else, whatever is in them."""

from __future__ import annotations

import json
import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chains import classifier, conv, dense, norm

from convlab.errors import ModelFileError
from convlab.models.adapters import models_of
from convlab.models.files import neutral
from convlab.models.files.mxnet.params import check_params_file
from convlab.models.files.save_load import load, save
from convlab.models.layers.activations import Activation
from convlab.models.layers.flattening import Flatten
from convlab.models.layers.layer import Layer
from convlab.models.layers.pooling import GlobalPool, Pool
from convlab.models.layers.reading import parts_of


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.safetensors"
    neutral.write_layers(classifier(), path)
    return path


def attempt(path: Path, data: bytes) -> list[Layer] | None:
    """The layers in a file with these bytes; None if it is refused properly and left as it is."""
    path.write_bytes(data)
    try:
        return neutral.read_layers(path)
    except ModelFileError as error:
        message = str(error)
        assert str(path) in message
        assert "got" in message and "expected" in message and "Hint:" in message, message  # noqa: PT018
        assert len(message) < 1500
        assert path.read_bytes() == data
        return None


def test_cut_off_anywhere(path):
    neutral.write_layers([conv(2, 1, (1, 2)), Flatten(), dense(1, 2)], path)
    data = path.read_bytes()
    for length in range(len(data)):
        assert attempt(path, data[:length]) is None
    assert attempt(path, data + b"\0") is None
    assert attempt(path, data)


@pytest.mark.parametrize("seed", range(4))
def test_bytes_flipped(path, seed):
    data, rng = path.read_bytes(), np.random.default_rng(seed)
    header = 8 + int.from_bytes(data[:8], "little")
    for _ in range(500):
        broken = bytearray(data)
        for where in rng.integers(0, rng.choice([8, header, len(data)]), rng.integers(1, 4)):
            broken[where] = rng.integers(0, 256)
        attempt(path, bytes(broken))


def _parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def _joined(header: Any, rest: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + rest


def with_about(data: bytes, about: Any) -> bytes:
    header, rest = _parts(data)
    header["__metadata__"]["convlab"] = about if isinstance(about, str) else json.dumps(about)
    return _joined(header, rest)


NASTY: list[Any] = [
    None, True, False, -1, 0, 2, 7, 2**16 + 1, 10**400, 0.5, -0.5, 1e308, float("nan"), float("inf"), "", "x", "same",
    "full", "conv2d", "\ud800", "a" * 10_000, [], [1], [1, 1], [[0, 0], [0, 0]], [[1, 2], [3, -1]], [[1, 2], 3], {},
    {"a": 1}, [None, None], [True, True], [1.0, 1.0], [2**63, 1],
]  # fmt: skip


def test_every_value_replaced(path):
    data = path.read_bytes()
    about = json.loads(_parts(data)[0]["__metadata__"]["convlab"])
    places: list[tuple[Any, Any]] = [(about, key) for key in about]
    places += [(about["layers"], number) for number in range(len(about["layers"]))]
    places += [(record, key) for record in about["layers"] for key in record]
    for holder, key in places:
        old = holder[key]
        for value in NASTY:
            if type(value) is type(old) and value == old:
                continue
            holder[key] = value
            layers = attempt(path, with_about(data, about))
            if layers is not None:  # The layers must be what the file says.
                assert isinstance(key, str)
                said = neutral.packed(parts_of(layers))[0][about["layers"].index(holder)]
                assert key == "path" or said[key] == value or (key, value) == ("padding", "same")
        holder[key] = old
    assert attempt(path, with_about(data, about))


def test_keys_too_many_and_too_few(path):
    data = path.read_bytes()
    about = json.loads(_parts(data)[0]["__metadata__"]["convlab"])
    for holder in (about, *about["layers"]):
        holder["extra"] = 1
        assert attempt(path, with_about(data, about)) is None
        del holder["extra"]
        for key in [*holder]:
            old = holder.pop(key)
            assert attempt(path, with_about(data, about)) is None
            holder[key] = old
    header, rest = _parts(data)
    for name in [*header]:
        other = {key: each for key, each in header.items() if key != name}
        assert attempt(path, _joined(other, rest)) is None
        assert attempt(path, _joined({**other, f"{name}2": header[name]}, rest)) is None


def test_a_tensor_of_another_size_or_dtype(path):
    header, rest = _parts(path.read_bytes())
    for name in [*header]:
        if name == "__metadata__":
            continue
        old = header[name]
        sizes, (start, end) = old["shape"], old["data_offsets"]
        for shape, dtype in (([*sizes, 1], "F32"), (sizes[::-1], "I32"), (sizes, "I32"), ([1, *sizes[:-1]], "F32")):
            header[name] = {**old, "shape": shape, "dtype": dtype}
            if header[name] != old:
                assert attempt(path, _joined(header, rest)) is None
        for offsets in ([start, end + 4], [start + 4, end], [0, 2**63], [end, start], [2**64, 2**64]):
            header[name] = {**old, "data_offsets": offsets}
            assert attempt(path, _joined(header, rest)) is None
        header[name] = {**old, "shape": [2**40, 2**40]}
        assert attempt(path, _joined(header, rest)) is None
        header[name] = old


@pytest.mark.parametrize(
    "text", ["", "[", "[" * 100_000, '{"a":1,"a":2}', "NaN", "9" * 5000, "\0", "null", '"x"', "[]"]
)
def test_what_is_no_json(path, text):
    data = path.read_bytes()
    assert attempt(path, with_about(data, text)) is None
    assert attempt(path, _joined(text.encode(), b"")) is None


def test_a_newer_version_is_named(path):
    data = path.read_bytes()
    about = json.loads(_parts(data)[0]["__metadata__"]["convlab"])
    path.write_bytes(with_about(data, {**about, "version": 5, "novel": True}))
    with pytest.raises(ModelFileError, match=r"got version 5, expected 1 to 4\. Hint: a newer convlab"):
        neutral.read_layers(path)


def test_too_many_layers(path):
    data = path.read_bytes()
    record = {"path": "0", "kind": "flatten", "order": "CHW"}
    about = {"format": "convlab.model", "version": 1, "layers": [record] * 10_001}
    assert attempt(path, with_about(data, about)) is None


@pytest.mark.parametrize(
    "layers",
    [
        [conv(4, 2), conv(2, 3)],
        [conv(4, 2), Activation("relu"), norm(3)],
        [conv(4, 2), dense(2, 4)],
        [conv(4, 2), GlobalPool("max", keepdims=False), Pool("max", (2, 2), (2, 2))],
        [dense(3, 4), dense(2, 4)],
        [Flatten(), conv(2, 1)],
    ],
)
def test_layers_that_dont_follow_one_another(layers, tmp_path):
    with pytest.raises(ModelFileError, match=r"layers\[\d\]: got .*(images|rows|channels)"):
        neutral.write_layers(layers, tmp_path / "model.safetensors")


def test_no_file_at_all(path, tmp_path):
    for other in (tmp_path / "none.safetensors", tmp_path / "folder.safetensors", tmp_path / "pipe.safetensors"):
        if other.stem == "folder":
            other.mkdir()
        if other.stem == "pipe":
            os.mkfifo(other)
        with pytest.raises(ModelFileError, match="no such file" if other.stem == "none" else "can't be read"):
            neutral.read_layers(other)


class Trap:
    """Pickled code that would leave a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def test_a_pickle_is_not_run(path, tmp_path, framework):
    model, trace = load(path, backend=framework), tmp_path / "trace"
    assert attempt(path, pickle.dumps(Trap(trace))) is None
    for suffix in models_of(framework).FILES:
        own = tmp_path / f"model{suffix}"
        own.write_bytes(pickle.dumps(Trap(trace)))
        with pytest.raises(ModelFileError):
            load(own, into=model)
    assert not trace.exists()


def test_lies_about_sizes_cost_no_memory(path):
    lies = [
        (2**62).to_bytes(8, "little") + b"{",
        _joined({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}, b""),
        struct.pack("<QQQ", 0x112, 0, 2**61),
        struct.pack("<QQQIii4qiii", 0x112, 0, 1, 0xF993FAC9, 0, 4, *[2**15] * 4, 1, 0, 0),
    ]
    tracemalloc.start()
    for lie in lies:
        assert attempt(path, lie) is None
        with pytest.raises(ModelFileError):
            check_params_file(path)
    with open(path, "wb") as file:  # The file has 16 GiB of zeros.
        file.truncate(2**34)
    with pytest.raises(ModelFileError):
        neutral.read_layers(path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_own_files_cut_off(path, tmp_path, framework):
    model = load(path, backend=framework)
    for suffix in models_of(framework).FILES:
        own = tmp_path / f"model{suffix}"
        save(model, own)
        if own.is_dir():  # A model in Orbax's format is several files.
            continue
        data = own.read_bytes()
        for length in [0, 1, 7, 8, 30, *np.linspace(31, len(data) - 1, 12).astype(int)]:
            own.write_bytes(data[:length])
            with pytest.raises(ModelFileError, match="cut off"):
                load(own, into=model)
        own.write_bytes(data)
        assert load(own, into=model) is not None
        own.unlink()
        with pytest.raises(ModelFileError, match="no file"):
            load(own, into=model)
        own.mkdir()
        with pytest.raises(ModelFileError):
            load(own, into=model)


def _array(values: np.ndarray, magic: int) -> bytes:
    head = struct.pack(f"<Iii{values.ndim}qiii", magic, 0, values.ndim, *values.shape, 1, 0, 0)
    return head + values.astype("<f4").tobytes()


def _params(magic: int) -> bytes:
    arrays = [np.ones((2, 3)), np.ones(1)]
    names = b"".join(len(name).to_bytes(8, "little") + name for name in (b"weight", b"bias"))
    body = b"".join(_array(each, magic) for each in arrays)
    return struct.pack("<QQQ", 0x112, 0, 2) + body + struct.pack("<Q", 2) + names


@pytest.mark.parametrize("magic", [0xF993FAC9, 0xF993FACA])
def test_mxnets_lengths(tmp_path, magic):
    path = tmp_path / "model.params"
    data = _params(magic)
    path.write_bytes(data)
    check_params_file(path)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ModelFileError):
            check_params_file(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(ModelFileError):
        check_params_file(path)
    for where in range(64):  # These bytes are the heads of the file and of its first array.
        for value in (0x7F, 0x80, 0xFF):
            path.write_bytes(data[:where] + bytes([value]) + data[where + 1 :])
            if 56 <= where < 60:  # The number of the device is no length.
                continue
            with pytest.raises(ModelFileError):
                check_params_file(path)
