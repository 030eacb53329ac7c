"""`.npz` files from strangers: refused with a reason, before memory is taken."""

from __future__ import annotations

import io
import resource
import zipfile

import numpy as np
import pytest

from convlab.errors import CaseFileError
from convlab.parity.archive import LARGEST, read_arrays, read_case

X, K = np.arange(12.0).reshape(3, 4), np.array([[1.0, -1.0]])


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def header(shape: str, dtype: str = "<f8", length: int | None = None) -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + (length or len(text)).to_bytes(2, "little") + text


def zipped(path, **members: bytes):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def test_a_case_with_options(tmp_path) -> None:
    path = save(tmp_path / "a.npz", X=X, K=K, stride=(1, 2), padding=[[0, 0], [1, 0]], padding_mode="reflect", groups=1)
    case = read_case(path)
    np.testing.assert_array_equal(case.X, X)
    assert case.options == {
        "stride": (1, 2), "padding": ((0, 0), (1, 0)), "padding_mode": "reflect", "groups": 1,
    }  # fmt: skip
    assert read_case(save(tmp_path / "b.npz", X=X, K=K, padding="same")).options == {"padding": "same"}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i2", "?", "<f2"])
def test_arrays_come_back_as_they_were(dtype, order) -> None:
    array, out = np.asarray(np.arange(24).reshape(2, 3, 4), dtype, order), io.BytesIO()
    np.savez_compressed(out, a=array, empty=np.zeros((0, 3)), scalar=np.float32(2))
    out.seek(0)
    arrays = read_arrays(out, "it")
    np.testing.assert_array_equal(arrays["a"], array)
    assert arrays["a"].dtype == array.dtype
    assert arrays["empty"].shape == (0, 3)
    assert arrays["scalar"] == 2


def test_objects_are_refused(tmp_path) -> None:
    path = save(tmp_path / "a.npz", X=np.array([{"a": print}], object), K=K)
    with pytest.raises(CaseFileError, match="object arrays are pickles: refused"):
        read_case(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header("(100000, 100000, 100000)"), "8000000000000000 bytes, expected at most"),
        (header("(-1, 4)"), "shape \\(-1, 4\\)|not a readable"),
        (header("(2, 2)"), "got 0 bytes of data, expected 32"),
        (header("(2,)", length=60_000), "header of 60000 bytes"),
        (header("(2,)", dtype="|O"), "refused"),
        (header("nonsense"), "not a readable .npz"),
        (header("__import__('os').getcwd()"), "not a readable .npz"),
        (header("(1,)", dtype="<U1") + b"\xff" * 4, "no Unicode characters"),
        (header("(1,)", dtype=">U1") + b"\x00\x11\x00\x00", "no Unicode characters"),
        (b"hello", "not an array"),
        (b"", "not an array"),
        (b"\x93NUMPY\x09\x00\x10\x00" + b" " * 20, "not an array"),
    ],
)
def test_damaged_and_lying_arrays(tmp_path, content, message) -> None:
    with pytest.raises(CaseFileError, match=message):
        read_case(zipped(tmp_path / "a.npz", X=content, K=header("(1, 1)") + bytes(8)))


def test_a_zip_bomb_takes_no_memory(tmp_path) -> None:
    """1 GiB of zeros in 1 MB: refused by its header; without an honest one, by what is read at most."""
    zeros = bytes(2**20)
    for shape in ("(134217728,)", "(2,)"):
        path = tmp_path / "bomb.npz"
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("X.npy", "w", force_zip64=True) as member,
        ):
            member.write(header(shape))
            for _ in range(1024):
                member.write(zeros)
        assert path.stat().st_size < 2**21
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(CaseFileError):
            read_case(path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # ru_maxrss is in KiB.


def test_many_members_many_products_and_strangers(tmp_path) -> None:
    with pytest.raises(CaseFileError, match="got 40 arrays"):
        read_case(save(tmp_path / "a.npz", **{f"a{i}": X for i in range(40)}))
    with pytest.raises(CaseFileError, match="some 8e"):
        read_case(save(tmp_path / "b.npz", X=X, K=K, padding=10**6))
    with pytest.raises(CaseFileError, match="got the arrays K, Q"):
        read_case(save(tmp_path / "c.npz", K=K, Q=X))
    with pytest.raises(CaseFileError, match="X has dtype <U5"):
        read_case(save(tmp_path / "d.npz", X=np.array(["hello"]), K=K))
    with pytest.raises(CaseFileError, match="bytes in float64"):
        read_case(save(tmp_path / "d.npz", X=np.ones((1, 1)), K=np.ones((1, 1)), padding=45_000))
    with pytest.raises(CaseFileError, match="bytes in float64"):
        read_case(save(tmp_path / "d.npz", X=np.zeros((16384, 8192), "uint8"), K=np.ones((1, 1), "uint8")))
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("X.npy", header("(1, 1)") + bytes(8))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("X.npy", header("(1, 1)") + bytes(8))
    with pytest.raises(CaseFileError, match=r"got X\.npy twice"):
        read_case(tmp_path / "d.npz")
    (tmp_path / "e.npz").write_bytes(b"no zip at all")
    with pytest.raises(CaseFileError, match="not a readable"):
        read_case(tmp_path / "e.npz")
    whole = save(tmp_path / "f.npz", X=X, K=K).read_bytes()
    for size in range(0, len(whole), 37):
        (tmp_path / "g.npz").write_bytes(whole[:size])
        with pytest.raises(CaseFileError):
            read_case(tmp_path / "g.npz")
    assert LARGEST == 2**28
