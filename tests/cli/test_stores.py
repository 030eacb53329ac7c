"""`convlab filter` on Zarr stores and TIFF files that needn't fit into memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
from typer.testing import CliRunner

from convlab.cli import main as cli
from convlab.errors import ConvlabError
from convlab.filters import parse
from convlab.images import stores

rng = np.random.default_rng(0)
GREY = scipy.ndimage.gaussian_filter(rng.integers(0, 256, (140, 150)).astype(float), 2).astype("uint8")
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], -1)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch) -> None:
    monkeypatch.setattr(stores, "_SIDE", 64)


def write(path: Path, pixels: np.ndarray, **options) -> Path:
    if path.suffix == ".tif":
        import tifffile

        tifffile.imwrite(path, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack", **options)
        return path
    import zarr

    chunks = (32, 48, *pixels.shape[2:])
    zarr.create_array(store=str(path), shape=pixels.shape, dtype=pixels.dtype, chunks=chunks, **options)[:] = pixels
    return path


def filtered(source: Path, name: str, target: Path, *options: str):
    import zarr

    result = CliRunner().invoke(cli.app, ["filter", str(source), "-f", name, "-o", str(target), *options])
    if result.exception:
        raise result.exception
    return zarr.open_array(store=str(target), mode="r")


def expected(pixels: np.ndarray, name: str) -> np.ndarray:
    """What the filter should make of an image, by SciPy in float64."""
    kernel = parse(name)
    planes = np.moveaxis(np.atleast_3d(pixels), -1, 0).astype(float)
    expected_pixels = np.stack([scipy.ndimage.correlate(plane, kernel, mode="mirror") for plane in planes], -1)
    expected_pixels = np.abs(expected_pixels) if abs(kernel.sum()) < 1e-9 else expected_pixels
    if pixels.dtype.kind != "f":
        limits = np.iinfo(pixels.dtype)
        expected_pixels = np.clip(np.rint(expected_pixels), limits.min, limits.max)
    return expected_pixels.reshape(pixels.shape)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("name", ["gaussian:2", "edge:45", "sharpen:2"])
def test_stores_of_every_dtype(tmp_path, name, dtype) -> None:
    pixels = (GREY.astype(float) * 50 - (3000 if dtype[0] == "i" else 0)) / (50 if dtype == "uint8" else 1)
    store = filtered(write(tmp_path / "a.zarr", pixels.astype(dtype)), name, tmp_path / "b.zarr")
    assert (store.dtype, store.shape, store.chunks) == (dtype, (140, 150), (32, 48))
    slack = 1e-2 if dtype == "float32" else 1e-9 if dtype == "float64" else 1
    assert np.abs(store[:].astype(float) - expected(pixels.astype(dtype), name)).max() <= slack


@pytest.mark.parametrize("options", [{}, {"tile": (16, 48)}, {"compression": "zlib", "rowsperstrip": 5}])
@pytest.mark.parametrize("pixels", [GREY, COLOUR, COLOUR.astype(">u2") * 257], ids=["L8", "RGB8", "RGB16"])
def test_tiff_files(tmp_path, lab, pixels, options) -> None:
    store = filtered(write(tmp_path / "a.tif", pixels, **options), "gaussian:2", tmp_path / "b.zarr", "-b", lab.name)
    assert store.nchunks > 4
    assert np.abs(store[:].astype(int) - expected(pixels, "gaussian:2").astype(int)).max() <= 1


def test_the_same_pixels_as_a_photograph(tmp_path) -> None:
    """Alpha is blurred, signed edges are around mid-grey, and the format and the chunks are the source's."""
    from convlab.images.photographs import filter_image

    pixels = np.concatenate([COLOUR, GREY[..., None]], -1)
    source = write(tmp_path / "a.zarr", pixels, zarr_format=2)
    for number, (name, signed) in enumerate((("edge:30", True), ("edge:30", False), ("box:5", False))):
        store = filtered(source, name, tmp_path / f"{number}.zarr", *(["--signed"] if signed else []))
        assert store.metadata.zarr_format == 2
        blurred = np.rint(scipy.ndimage.uniform_filter(GREY.astype(float), 5, mode="mirror"))
        np.testing.assert_array_equal(store[..., 3], blurred if name == "box:5" else GREY)
        assert np.abs(store[:].astype(int) - filter_image(pixels, parse(name), "numpy", signed=signed)).max() <= 1


def test_a_constant_border_has_a_value(tmp_path, lab) -> None:
    source = write(tmp_path / "a.zarr", GREY)
    options = ("--border", "constant", "--border-value", "200", "-b", lab.name)
    store = filtered(source, "box:5", tmp_path / "b.zarr", *options)
    wanted = scipy.ndimage.uniform_filter(GREY.astype(float), 5, mode="constant", cval=200)
    assert np.abs(store[:] - wanted).max() <= 0.5001


def test_what_goes_wrong_is_one_line_and_leaves_nothing(tmp_path) -> None:
    import zarr

    good = write(tmp_path / "good.zarr", GREY)
    zarr.open_group(str(tmp_path / "group.zarr"), mode="w")
    damaged = write(tmp_path / "damaged.zarr", GREY)
    (damaged / "zarr.json").write_text("{")
    holes = write(tmp_path / "holes.zarr", GREY)
    next(each for each in (holes / "c").rglob("*") if each.is_file()).write_bytes(b"nonsense")
    (tmp_path / "text.tif").write_text("text")
    (tmp_path / "photo.png").write_text("text")
    out = tmp_path / "out.zarr"
    before = {each.name for each in tmp_path.iterdir()}
    for source, target, part in (
        (tmp_path / "absent.zarr", out, "no such file"),
        (tmp_path / "group.zarr", out, "can't be read"),
        (damaged, out, "can't be read"),
        (holes, out, "can't be read"),
        (tmp_path / "text.tif", out, "can't be read"),
        (tmp_path / "photo.png", out, "expected a Zarr array or a TIFF"),
        (write(tmp_path / "deep.zarr", np.zeros((3, 40, 50), "u1")), out, r"got shape \(3, 40, 50\)"),
        (write(tmp_path / "wide.zarr", np.zeros((3, 4), "i8")), out, "got dtype int64"),
        (good, tmp_path / "out.png", "expected .zarr"),
        (good, tmp_path / "holes.zarr", "exists already"),
        (good, tmp_path / "no" / "out.zarr", "there is no folder"),
        (good, good / "out.zarr", "lies inside"),
    ):
        with pytest.raises(ConvlabError, match=part) as caught:
            filtered(source, "box:3", target)
        assert "Hint:" in str(caught.value)
    assert {each.name for each in tmp_path.iterdir()} == before | {"deep.zarr", "wide.zarr"}
    result = CliRunner().invoke(cli.app, ["filter", str(good), str(good), "-f", "box:3", "-o", str(out)])
    assert result.exit_code == cli.BAD_INPUT


def test_without_the_extra_it_says_what_to_install(tmp_path) -> None:
    code = "import sys; sys.modules['zarr'] = None; from convlab.cli.main import main; main()"
    command = [sys.executable, "-c", code, "filter", str(write(tmp_path / "a.zarr", GREY)), "-f", "box:3", "-o"]
    done = subprocess.run(
        [*command, str(tmp_path / "b.zarr")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "160"},
    )
    assert done.returncode == cli.BAD_INPUT
    assert done.stderr.strip().startswith("convlab: images larger than memory need Dask, Zarr and tifffile. Hint: ")
