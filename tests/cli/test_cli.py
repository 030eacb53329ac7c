"""The command line as a user runs it, on photographs of every kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image, PngImagePlugin
from typer.testing import CliRunner

import convlab
from convlab import errors, filters
from convlab.cli import main as cli
from convlab.cli.demo import draw_picture
from convlab.images.photographs import ImageError, read_image, write_image

rng = np.random.default_rng(0)
GREY = scipy.ndimage.gaussian_filter(rng.integers(0, 256, (40, 50)).astype(float), 2).astype("uint8")
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], -1)
DEEP = COLOUR.astype("uint16") * 257 + rng.integers(0, 257, COLOUR.shape).astype("uint16")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The installed command, in a process of its own."""
    command = [sys.executable, "-c", "from convlab.cli.main import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "160"})


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def expected(pixels: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """What the filter should make of an image, by SciPy."""
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    filtered = np.stack(
        [scipy.ndimage.correlate(plane.astype(float), kernel, mode="mirror") for plane in np.moveaxis(planes, -1, 0)],
        -1,
    )
    filtered = np.abs(filtered) if abs(kernel.sum()) < 1e-9 else filtered
    filtered = np.clip(np.rint(filtered), 0, np.iinfo(pixels.dtype).max)
    return filtered[..., 0] if pixels.ndim == 2 else filtered


@pytest.mark.parametrize(
    "pixels", [GREY, COLOUR, GREY.astype("uint16") * 257, DEEP], ids=["L8", "RGB8", "L16", "RGB16"]
)
@pytest.mark.parametrize(("suffix", "name"), [(".png", "edge:45"), (".tif", "gaussian:1.5"), (".png", "sharpen:2")])
def test_filter_every_kind_of_photograph(tmp_path, lab, pixels, suffix, name) -> None:
    write_image(tmp_path / f"in{suffix}", pixels)
    np.testing.assert_array_equal(read_image(tmp_path / f"in{suffix}"), pixels)
    invoke("filter", tmp_path / f"in{suffix}", "-f", name, "-b", lab.name, "-o", tmp_path / f"out{suffix}")
    result = read_image(tmp_path / f"out{suffix}")
    assert result.dtype == pixels.dtype
    # A value near .5 may be rounded the other way in float32.
    assert np.abs(result.astype(int) - expected(pixels, filters.parse(name))).max() <= 1


def test_sixteen_bit_colour_is_what_opencv_reads(tmp_path) -> None:
    write_image(tmp_path / "a.png", DEEP)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)[..., ::-1], DEEP)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "deep png"])
def test_exif_orientation_is_applied(tmp_path, orientation, kind) -> None:
    """Files of each of the eight orientations, in which a viewer shows the same picture."""
    upright = np.repeat(np.repeat(np.arange(6, dtype="uint8").reshape(2, 3) * 50, 16, 0), 16, 1)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{kind.split()[-1]}"
    if kind == "deep png":
        deep = np.stack([stored] * 3, -1).astype("uint16") * 257
        cv2.imwrite(str(path), deep)
        _insert_exif_chunk(path, exif.tobytes())
        assert np.array_equal(read_image(path)[..., 0] // 257, upright)
        return
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **({"quality": 100} if kind == "jpeg" else {}))
    assert np.abs(read_image(path).astype(int) - upright).max() <= 2


def _insert_exif_chunk(path: Path, exif: bytes) -> None:
    data, chunk = path.read_bytes(), bytearray()
    PngImagePlugin.putchunk(
        type("file", (), {"write": staticmethod(chunk.extend)}), b"eXIf", exif.removeprefix(b"Exif\0\0")
    )
    end = 8 + 25  # The signature and IHDR come first.
    path.write_bytes(data[:end] + bytes(chunk) + data[end:])


def test_sixteen_bits_with_alpha(tmp_path) -> None:
    alpha = np.dstack([DEEP, GREY.astype("uint16") * 257])
    write_image(tmp_path / "alpha.png", alpha)
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), alpha)
    np.testing.assert_array_equal(
        cv2.imread(str(tmp_path / "alpha.png"), cv2.IMREAD_UNCHANGED)[..., [2, 1, 0, 3]], alpha
    )
    invoke("filter", tmp_path / "alpha.png", "-f", "box:3", "-o", tmp_path / "out.png")
    blurred = scipy.ndimage.uniform_filter(alpha[..., 3].astype(float), 3, mode="mirror")
    np.testing.assert_array_equal(read_image(tmp_path / "out.png")[..., 3], np.rint(blurred))


def test_sixteen_bit_colour_without_opencv_says_so(tmp_path, monkeypatch) -> None:
    write_image(tmp_path / "a.png", DEEP)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(
        errors.ConvlabError, match=r"16-bit colour needs OpenCV\. Hint: .* install opencv-python-headless$"
    ):
        read_image(tmp_path / "a.png")


def test_integers_of_more_than_sixteen_bits(tmp_path) -> None:
    Image.fromarray(np.array([[0, 70000]], "int32")).save(tmp_path / "a.tif")
    pixels = read_image(tmp_path / "a.tif")
    assert (pixels.dtype, pixels.tolist()) == ("int32", [[0, 70000]])


def test_floats(tmp_path) -> None:
    Image.fromarray(GREY.astype("float32") / 7).save(tmp_path / "a.tif")
    invoke("filter", tmp_path / "a.tif", "-f", "box:3", "-o", tmp_path / "b.tif")
    expected = scipy.ndimage.uniform_filter(GREY.astype(float) / 7, 3, mode="mirror")
    np.testing.assert_allclose(read_image(tmp_path / "b.tif"), expected, rtol=1e-5)
    done = run("filter", tmp_path / "a.tif", "-f", "box:3", "-o", tmp_path / "b.png")
    assert (done.returncode, "can't hold float32" in done.stderr) == (2, True)


def test_alpha_palettes_and_bilevel(tmp_path) -> None:
    alpha = np.dstack([COLOUR, GREY])
    write_image(tmp_path / "alpha.png", alpha)
    invoke("filter", tmp_path / "alpha.png", "-f", "box:3", "-o", tmp_path / "out.png")
    blurred = scipy.ndimage.uniform_filter(GREY.astype(float), 3, mode="mirror")
    np.testing.assert_array_equal(read_image(tmp_path / "out.png")[..., 3], np.rint(blurred))
    invoke("filter", tmp_path / "alpha.png", "-f", "box:3", "-o", tmp_path / "out.jpg")
    assert read_image(tmp_path / "out.jpg").shape == COLOUR.shape
    Image.fromarray(COLOUR).quantize(16).save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png").shape == COLOUR.shape
    Image.fromarray(GREY > 128).save(tmp_path / "bilevel.png")
    np.testing.assert_array_equal(read_image(tmp_path / "bilevel.png"), (GREY > 128) * 255)
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "cmyk.jpg")
    assert read_image(tmp_path / "cmyk.jpg").shape == COLOUR.shape


def test_signed_edges_are_around_mid_grey(tmp_path) -> None:
    step = np.zeros((5, 8), "uint8")
    step[:, 2:5] = 200
    write_image(tmp_path / "a.png", step)
    invoke("filter", tmp_path / "a.png", "-f", "derivative:1", "--signed", "-o", tmp_path / "b.png")
    row = read_image(tmp_path / "b.png")[2].tolist()
    assert row == [128, 128, 228, 128, 128, 28, 128, 128]


def test_a_real_photograph(tmp_path, lab) -> None:
    """Matplotlib ships one: a colour JPEG of 512 x 600."""
    from matplotlib import get_data_path

    photo = Path(get_data_path()) / "sample_data" / "grace_hopper.jpg"
    invoke("filter", photo, "-f", "edge:0", "-b", lab.name, "-o", tmp_path / "edges.png")
    edges, pixels = read_image(tmp_path / "edges.png"), read_image(photo)
    assert np.abs(edges.astype(int) - expected(pixels, filters.edge(0))).max() <= 1


def test_several_images_into_a_folder(tmp_path) -> None:
    for number in range(3):
        write_image(tmp_path / f"{number}.png", GREY)
    (tmp_path / "out").mkdir()
    names = [tmp_path / f"{number}.png" for number in range(3)]
    done = run("filter", *names, tmp_path / "missing.png", "-f", "box:3", "-o", tmp_path / "out")
    assert done.returncode == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png", "2.png"]
    assert "missing.png: no such file" in done.stderr
    done = run("filter", names[0], tmp_path / "out" / "0.png", "-f", "box:3", "-o", tmp_path / "out")
    assert "two images would be written to one file" in done.stderr


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    (folder / "text.png").write_text("not a picture")
    (folder / "empty.jpg").write_bytes(b"")
    write_image(folder / "whole.png", COLOUR)
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:-200])
    write_image(folder / "deep.png", DEEP)
    (folder / "cutdeep.png").write_bytes((folder / "deep.png").read_bytes()[:-900])
    huge = bytearray((folder / "whole.png").read_bytes())
    huge[16:24] = (60000).to_bytes(4, "big") * 2  # The header promises 3.6 gigapixels.

    huge[29:33] = zlib.crc32(bytes(huge[12:29])).to_bytes(4, "big")
    (folder / "huge.png").write_bytes(huge)
    return {
        "absent": (folder / "absent.png", "no such file"),
        "folder": (folder, "a folder"),
        "text": (folder / "text.png", "not an image"),
        "empty": (folder / "empty.jpg", "not an image"),
        "cut": (folder / "cut.png", "damaged"),
        "cut deep": (folder / "cutdeep.png", "damaged"),
        "huge": (folder / "huge.png", "too large"),
    }


def test_a_tiff_whose_offsets_are_fractions(tmp_path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(GREY).save(path)
    data = path.read_bytes()
    at = data.index((273).to_bytes(2, "little"))  # The type of StripOffsets becomes RATIONAL.
    path.write_bytes(data[: at + 2] + (5).to_bytes(2, "little") + data[at + 4 :])
    with pytest.raises(ImageError, match="damaged"):
        read_image(path)


def test_an_image_that_memory_doesnt_hold(tmp_path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(GREY).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = (13_000).to_bytes(4, "big") * 2  # The header promises 169 megapixels, and Pillow believes it.
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    path.write_bytes(data)
    # The allocator of this process may hold enough memory from other tests, so another process is used.
    code = f"""
        import resource
        from convlab.images.photographs import ImageError, read_image
        read_image({str(tmp_path / "small.png")!r})
        taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + 2**26, -1))
        try:
            read_image({str(path)!r})
        except ImageError as error:
            print(error)
    """
    Image.fromarray(GREY).save(tmp_path / "small.png")
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert "too large" in done.stdout


def test_a_picture_that_cant_be_drawn_leaves_the_one_that_was_there(tmp_path, monkeypatch) -> None:
    from matplotlib.figure import Figure

    def half(figure: Figure, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    path = tmp_path / "demo.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", half)
    X, lab = np.eye(4, dtype=np.float32), convlab.backend("numpy")
    learned = lab.learn_kernel(X, X[:, 1:], (1, 2), seed=0, lr=1e-3, num_steps=10)
    with pytest.raises(KeyboardInterrupt):
        draw_picture(path, {"numpy": learned}, X)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("demo.png", b"old")]


def test_bad_files_are_one_line_and_leave_nothing(tmp_path) -> None:
    (tmp_path / "bad").mkdir()
    for name, (path, part) in bad_files(tmp_path / "bad").items():
        with pytest.raises(errors.ConvlabError, match=part):
            read_image(path)
        if name in ("absent", "cut", "huge"):
            done = run("filter", path, "-f", "edge:45", "-o", tmp_path / "out.png")
            assert (done.returncode, done.stdout) == (2, ""), name
            assert len(done.stderr.strip().splitlines()) == 1, done.stderr
            assert part in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad"]


def test_bad_arguments_are_one_line(tmp_path) -> None:
    write_image(tmp_path / "a.png", GREY)
    for options, part in (
        (("-f", "edgy:45", "-o", tmp_path / "b.png"), "filter: got 'edgy:45', expected one of edge:<angle"),
        (("-f", "edge:x", "-o", tmp_path / "b.png"), "filter: got 'edge:x'"),
        (
            ("-f", "box:100000", "-o", tmp_path / "b.png"),
            "size: got a kernel of size 100000, expected at most 4096",
        ),
        (
            ("-f", "gaussian:1e9", "-o", tmp_path / "b.png"),
            "size: got a kernel of size 8000000001, expected at most 4096",
        ),
        (
            ("-f", "derivative:2000", "-o", tmp_path / "b.png"),
            "order: got a kernel of order 2000, expected at most 1000",
        ),
        (("-f", "edge:1", "-o", "/proc/b.png"), "/proc/b.png: can't be written (No such file or directory)."),
        (("-f", "edge:1", "-b", "theano", "-o", tmp_path / "b.png"), "backend: got 'theano', expected one of"),
        (("-f", "edge:1", "-o", tmp_path / "b.xyz"), "unknown image format '.xyz'"),
        (("-f", "edge:1", "-o", tmp_path / "a.png" / "b.png"), "a.png is a file, expected a folder"),
    ):
        done = run("filter", tmp_path / "a.png", *options)
        assert done.returncode == 2
        assert part in done.stderr, done.stderr
        assert "Hint:" in done.stderr
        assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_an_output_that_fails_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    write_image(tmp_path / "a.png", GREY)
    before = (tmp_path / "a.png").read_bytes()
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(errors.ConvlabError, match="disk full"):
        write_image(tmp_path / "a.png", COLOUR)
    assert (tmp_path / "a.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_backends_command(backends) -> None:
    done = run("backends")
    assert done.returncode == 0
    for name in backends:
        assert f"{name} " in done.stdout
        assert convlab.backend(name).version in done.stdout


def test_backends_command_mends_what_is_missing(tmp_path) -> None:
    (tmp_path / "torch.py").write_text("raise RuntimeError('no driver')")
    code = (
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'jax' else find(name, *rest)\n"
        "from convlab.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "backends"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "COLUMNS": "160"},
    )
    assert "jax: backend 'jax': jax isn't installed." in done.stdout
    assert f"{sys.executable} -m pip install 'flax>=" in done.stdout
    assert "torch: backend 'torch': torch is installed and fails to import (RuntimeError: no driver)." in done.stdout
    assert f"{sys.executable} -m pip install --upgrade --force-reinstall 'torch>=" in done.stdout


def test_demo(tmp_path, backends) -> None:
    done = run("demo", "--backends", ",".join(backends), "--plot", tmp_path / "demo.png")
    assert done.returncode == 0, done.stderr
    for part in ("19 25", "37 43", "0 1 0 0 0 -1 0", "loss 2", "0.004", "identical", "agree"):
        assert part in done.stdout
    assert "differ" not in done.stdout
    assert all(name in done.stdout for name in backends)
    assert read_image(tmp_path / "demo.png").shape[1] > 600
    assert run("demo", "--backends", "theano").returncode == 2
    for bad in (tmp_path / "no" / "demo.png", tmp_path / "demo.zzz"):
        done = run("demo", "--plot", bad)
        assert (done.returncode, done.stdout) == (2, "")
        assert "can't be drawn there. Hint: an existing folder, and one of" in done.stderr


def test_demo_tells_a_wrong_backend(monkeypatch) -> None:
    """A backend that computes wrongly makes the demo end with exit code 1."""
    lab = convlab.backend("numpy")
    conv = lab.ops.conv
    monkeypatch.setattr(lab.ops, "conv", lambda x, k, g: conv(x, k, g) * (1 + 1e-5))
    result = CliRunner().invoke(cli.app, ["demo", "--backends", "numpy"])
    assert result.exit_code == cli.DISAGREEMENT


def test_version_and_help() -> None:
    assert f"convlab {convlab.__version__}" in invoke("--version")
    for command in ("backends", "demo", "filter"):
        assert command in invoke("--help")
        assert "Usage" in invoke(command, "--help")


def test_tune_measures_this_machine_and_shows_who_wins(tmp_path, monkeypatch) -> None:
    home, cache = tmp_path / "home", tmp_path / "cache"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    done = run("tune", "--backends", "numpy")
    assert done.returncode == 0, done.stderr
    assert not [*home.rglob("*")]
    written = json.loads(next(cache.rglob("wisdom.json")).read_text())
    constants = written["backends"]["numpy"][np.__version__]
    assert {"native y single", "host y single", "host k single", "fft@host y single"} <= set(constants)
    assert "wrote" in done.stdout
    shown = run("tune", "--show", "--backends", "numpy")
    assert shown.stdout.splitlines()[1:] == done.stdout.splitlines()[2:]
    assert "1024²" in shown.stdout
    assert run("tune", "--backends", "nothing").returncode == 2
