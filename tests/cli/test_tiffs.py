"""TIFFs of every dtype through `convlab filter`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from convlab.cli import main as cli


def run(*arguments: object) -> tuple[int, str]:
    """The exit code and the output of `convlab filter`."""
    result = CliRunner().invoke(cli.app, ["filter", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "f2", "f4", "f8"])
@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7), (5, 7, 3)], ids=["grey", "stack", "colour"])
@pytest.mark.parametrize("order", "<>")
def test_tiffs_of_every_dtype(tmp_path: Path, dtype: str, shape: tuple[int, ...], order: str) -> None:
    """Numbers from the whole range of each dtype pass unchanged through reading, an identity and writing."""
    limits = np.iinfo(dtype) if dtype[0] in "iu" else np.finfo(dtype)
    pixels = np.linspace(float(limits.min) / 2, float(limits.max) / 2, np.prod(shape)).astype(dtype).reshape(shape)
    colour = "rgb" if shape[-1] == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=colour, byteorder=order)
    (tmp_path / "k.txt").write_text("1")
    run(tmp_path / "a.tif", "--kernel", tmp_path / "k.txt", "-o", tmp_path / "b.tif")
    result = tifffile.imread(tmp_path / "b.tif")
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, pixels)


def test_a_page_of_another_dtype_is_named(tmp_path: Path) -> None:
    for first, second in (("u1", "i1"), ("i1", "u1"), ("f8", "f4"), ("u2", "u4")):
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            for dtype in (first, second):
                file.write(np.ones((4, 5), dtype), photometric="minisblack")
        code, output = run(tmp_path / "a.tif", "-f", "box:3", "-o", tmp_path / "b.tif")
        assert (code, "page 2" in output, "page 1" in output) == (2, True, True), output
    assert not (tmp_path / "b.tif").exists()
