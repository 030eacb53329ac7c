"""`convlab filter` at work: folders, patterns, kernels from files, borders, interrupts and the summary."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image
from typer.testing import CliRunner

from convlab.cli import main as cli
from convlab.errors import ConvlabError
from convlab.filters import parse
from convlab.images.photographs import read_image, write_image

rng = np.random.default_rng(5)
GREY = rng.integers(0, 256, (20, 30)).astype("uint8")
COMMAND = [sys.executable, "-c", "from convlab.cli.main import main; main()", "filter"]


def run(*arguments: object) -> str:
    """The last line of a run that succeeds."""
    result = CliRunner().invoke(cli.app, ["filter", *map(str, arguments)])
    if result.exception:
        raise result.exception
    return result.output.splitlines()[-1]


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of images with names of all kinds, another file and a hidden one."""
    folder = tmp_path / "my photos"
    (folder / "older ones").mkdir(parents=True)
    for name in ("a b.png", "größe.png", "[1].png", "x*y.png", "older ones/c.png"):
        write_image(folder / name, GREY)
    (folder / "notes.txt").write_text("notes")
    (folder / ".hidden.png").write_text("left by another program")
    return folder


def test_a_folder(tmp_path: Path, photos: Path) -> None:
    line = run(photos, "-f", "box:3", "-o", tmp_path / "new" / "out")
    assert line == f"wrote 4 of 4 images to {tmp_path / 'new' / 'out'}; 1 other file left out (.txt)"
    assert below(tmp_path / "new" / "out") == ["[1].png", "a b.png", "größe.png", "x*y.png"]
    expected = np.rint(scipy.ndimage.uniform_filter(GREY.astype(float), 3, mode="mirror"))
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "out" / "größe.png"), expected)


def test_folders_in_folders_and_what_exists(tmp_path: Path, photos: Path) -> None:
    out = photos / "out"
    run(photos, "-f", "box:3", "-o", out)
    (out / "a b.png").write_bytes(b"mine")
    line = run(photos, "-f", "box:3", "-o", out, "--recursive", "--skip-existing")
    assert line == f"wrote 1 of 5 images to {out}; 4 existed; 1 other file left out (.txt)"
    assert below(out) == ["[1].png", "a b.png", "größe.png", "older ones/c.png", "x*y.png"]
    assert (out / "a b.png").read_bytes() == b"mine"
    run(photos, "-f", "box:3", "-o", out)
    assert read_image(out / "a b.png").shape == GREY.shape


def test_a_folder_with_formats_that_arent_written(tmp_path: Path, photos: Path) -> None:
    """Icons and Targa are read by Pillow, a film and a picture that Pillow doesn't know aren't."""
    Image.fromarray(GREY).save(photos / "d.ico", sizes=[(16, 16)])
    Image.fromarray(GREY).save(photos / "e.tga")
    (photos / "clip.mpg").write_bytes(b"\0\0\1\xba")
    (photos / "IMG_1.HEIC").write_bytes(b"0")
    line = run(photos, "-f", "box:3", "-o", tmp_path / "out")
    left_out = "5 other files left out (.heic, .ico, .mpg, .tga, .txt)"
    assert line == f"wrote 4 of 4 images to {tmp_path / 'out'}; {left_out}"
    line = run(photos, "-f", "box:1", "-o", tmp_path / "tiffs", "--suffix", "tif")
    assert line.startswith(f"wrote 6 of 6 images to {tmp_path / 'tiffs'}; 3 other files left out (.heic, .mpg, .txt)")
    np.testing.assert_array_equal(read_image(tmp_path / "tiffs" / "e.tif"), GREY)


def test_the_output_of_one_image_makes_its_folder(tmp_path: Path, photos: Path) -> None:
    line = run(photos / "a b.png", "-f", "box:1", "-o", tmp_path / "new" / "er" / "o.png")
    assert line == f"wrote {tmp_path / 'new' / 'er' / 'o.png'}"
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "er" / "o.png"), GREY)


@pytest.mark.parametrize("arguments", [["", "-o", "out"], [".", "-o", ""], ["a.png", "", "-o", "out"]])
def test_an_empty_path_is_refused(tmp_path: Path, monkeypatch, arguments: list[str]) -> None:
    """The shell makes nothing of a variable that isn't set, and pathlib the current folder of nothing."""
    write_image(tmp_path / "a.png", GREY)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.app, ["filter", *arguments, "-f", "box:3"])
    assert (result.exit_code, "got an empty path" in result.output, "Hint:" in result.output) == (2, True, True)
    assert below(tmp_path) == ["a.png"]


def test_patterns(tmp_path: Path, photos: Path) -> None:
    assert run(photos / "*.png", "-f", "box:3", "-o", tmp_path / "all").startswith("wrote 4 of 4 images")
    assert run(photos / "**/c.png", "-f", "box:3", "-o", tmp_path / "deep").startswith("wrote 1 of 1 image ")
    # A file that exists is no pattern.
    run(photos / "[1].png", photos / "x*y.png", "-f", "box:3", "-o", tmp_path / "two")
    assert below(tmp_path / "two") == ["[1].png", "x*y.png"]
    run(photos / "[1].png", "-f", "box:3", "-o", f"{tmp_path / 'one'}/")
    assert below(tmp_path / "one") == ["[1].png"]
    run(photos, "-f", "edge:0", "-o", tmp_path / "floats", "--dtype", "float32", "--suffix", "tif")
    assert below(tmp_path / "floats") == ["[1].tif", "a b.tif", "größe.tif", "x*y.tif"]
    np.testing.assert_allclose(
        read_image(tmp_path / "floats" / "a b.tif"),
        scipy.ndimage.correlate(GREY.astype(float), parse("edge:0"), mode="mirror"),
        atol=1e-3,
    )


def test_what_makes_no_sense_is_refused_before_anything_is_made(tmp_path: Path, photos: Path) -> None:
    write_image(tmp_path / "a.png", GREY)
    write_image(tmp_path / "a.jpg", GREY)
    (tmp_path / "empty").mkdir()
    clip = tmp_path / "films" / "clip.mpg"
    clip.parent.mkdir()
    clip.write_bytes(b"\0\0\1\xba")
    before = below(tmp_path)
    for inputs, output, options, part in (
        ([photos], photos, [], "is an input, which would be overwritten"),
        ([tmp_path / "a.png"], tmp_path / "a.png", [], "is an input"),
        ([photos], tmp_path / "a.png", [], "is a file, expected a folder for 4 images"),
        ([tmp_path / "a.png", tmp_path / "a.jpg"], tmp_path / "o", ["--suffix", ".tif"], r"two images .*a\.png and "),
        ([tmp_path / "no*.png"], tmp_path / "o", [], "no file matches"),
        ([tmp_path / "empty"], tmp_path / "o", [], "no image in this folder"),
        ([tmp_path / "a.png"], tmp_path / "o", [], "no suffix"),
        ([photos], tmp_path / "o", ["--suffix", "xyz"], "unknown image format '.xyz'"),
        ([photos], tmp_path / "a.png" / "o", [], r"a\.png is a file, expected a folder"),
        ([tmp_path / "a.jpg"], tmp_path / "a.png" / "o.png", [], r"a\.png is a file, expected a folder"),
        ([photos / "notes.txt"], f"{tmp_path / 'o'}/", [], r"notes\.txt: not a photograph, got \.txt"),
        ([tmp_path / "a.png", clip], tmp_path / "o", [], r"clip\.mpg: not a photograph, got \.mpg"),
        ([tmp_path / "a.png", "icon.ico"], tmp_path / "o", [], r"icon\.ico: \.ico is read and not written"),
        ([clip.parent], tmp_path / "o", [], r"no image in this folder, only \.mpg"),
        ([photos], tmp_path / "o", ["--border", "reflekt"], "^--border: got 'reflekt'.* did you mean 'reflect'"),
        ([photos], tmp_path / "o", ["--border", "4"], "^--border: got 4, .* OpenCV's border 4 is 'reflect'"),
        ([photos], tmp_path / "o", ["--border-value", "9"], "^--border-value: got 9.0 with border='reflect'"),
        ([photos], tmp_path / "o", ["--dtype", "f4"], "^--dtype: got 'f4'"),
        ([photos], tmp_path / "o", ["--dtype", "float32"], r"\.png can't hold float32"),
        ([photos], tmp_path / "o", ["--scale", "nan"], "^--scale: got nan"),
    ):
        with pytest.raises(ConvlabError, match=part) as caught:
            run(*inputs, "-f", "box:3", "-o", output, *options)
        assert "Hint:" in str(caught.value)
    assert below(tmp_path) == before
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(("border", "mode"), [("reflect", "mirror"), ("replicate", "nearest"), ("circular", "wrap")])
def test_borders(tmp_path: Path, border: str, mode: str) -> None:
    write_image(tmp_path / "a.png", GREY)
    run(tmp_path / "a.png", "-f", "box:5", "--border", border, "-o", tmp_path / "b.png")
    expected = scipy.ndimage.uniform_filter(GREY.astype(float), 5, mode=mode)
    assert np.abs(read_image(tmp_path / "b.png") - expected).max() <= 0.5001


def test_a_constant_border_has_a_value(tmp_path: Path, lab) -> None:
    write_image(tmp_path / "a.png", GREY)
    options = ["--border", "constant", "--border-value", 200, "-b", lab.name]
    run(tmp_path / "a.png", "-f", "box:5", *options, "-o", tmp_path / "b.png")
    expected = scipy.ndimage.uniform_filter(GREY.astype(float), 5, mode="constant", cval=200)
    assert np.abs(read_image(tmp_path / "b.png") - expected).max() <= 0.5001


def test_a_constant_border_is_opaque(tmp_path: Path) -> None:
    """By hand: beside a transparent pixel lie two of 90 beyond the border, and two of 0 by default."""
    write_image(tmp_path / "a.png", np.array([[[9, 9, 9, 0]]], "uint8"))
    (tmp_path / "k.txt").write_text("0.25 0.5 0.25")
    for value, colour in (("90", 90), ("0", 0)):
        options = ["--border", "constant", "--border-value", value]
        run(tmp_path / "a.png", "--kernel", tmp_path / "k.txt", *options, "-o", tmp_path / "b.png")
        assert read_image(tmp_path / "b.png").tolist() == [[[colour, colour, colour, 128]]]


def test_kernels_from_files(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", GREY)
    kernel = np.array([[1.0, 2.0, 1.0], [0.0, 1.0, -1.0]]) / 4
    np.save(tmp_path / "k.npy", kernel)
    (tmp_path / "k.csv").write_text("0.25,0.5,0.25\n0,0.25,-0.25\n")
    (tmp_path / "k.txt").write_text("# a comment, of words\n0.25 0.5\t0.25\n0 0.25 -0.25  # another\n")
    (tmp_path / "spaced.csv").write_text("0.25, 0.5, 0.25\n0 ,0.25, -0.25\n")
    (tmp_path / "german.csv").write_text("0.25;0.5;0.25\n0;0.25;-0.25\n")
    expected = scipy.ndimage.correlate(GREY.astype(float), kernel, mode="mirror")
    for name in ("k.npy", "k.csv", "k.txt", "spaced.csv", "german.csv"):
        run(tmp_path / "a.png", "--kernel", tmp_path / name, "-o", tmp_path / "b.png")
        assert np.abs(read_image(tmp_path / "b.png") - np.clip(expected, 0, 255)).max() <= 0.5001
    (tmp_path / "ragged.txt").write_text("1 2\n3\n")
    (tmp_path / "empty.txt").write_text("")
    np.save(tmp_path / "nan.npy", np.array([[1.0, np.nan]]))
    np.save(tmp_path / "rank.npy", np.ones((2, 2, 2)))
    np.save(tmp_path / "complex.npy", np.ones((2, 2), complex))
    np.save(tmp_path / "row.npy", np.ones(3))
    (tmp_path / "comma.csv").write_text("0,5;0,5\n0,5;0,5\n")
    (tmp_path / "comma.txt").write_text("0,5 0,5\n")
    for name, part in (
        ("comma.csv", r"got both ';' and ',', expected one of them\. Hint: write 0\.5 with a point"),
        ("comma.txt", r"got both ',' and ' ', expected one of them\. Hint: write 0\.5 with a point"),
        ("row.npy", r"got shape \(3,\), .* Hint: kernel\[None\] is a kernel of one row"),
        (".", "a folder, expected a file with a kernel"),
        ("ragged.txt", "not a matrix of numbers"),
        ("empty.txt", r"got shape \(0, 0\)"),
        ("nan.npy", "got nan in row 0, column 1"),
        ("rank.npy", r"got shape \(2, 2, 2\)"),
        ("complex.npy", "got complex128"),
        ("absent.npy", "no such file"),
        ("a.png", "not a matrix of numbers"),
    ):
        with pytest.raises(ConvlabError, match=part) as caught:
            run(tmp_path / "a.png", "--kernel", tmp_path / name, "-o", tmp_path / "c.png")
        assert "Hint:" in str(caught.value)
    for options in ([], ["-f", "box:3", "--kernel", str(tmp_path / "k.npy")]):
        result = CliRunner().invoke(
            cli.app, ["filter", str(tmp_path / "a.png"), *options, "-o", str(tmp_path / "c.png")]
        )
        assert (result.exit_code, "expected one of them. Hint:" in result.output) == (2, True)
    assert not (tmp_path / "c.png").exists()


def test_the_summary_counts(tmp_path: Path) -> None:
    """By hand: a kernel of 2 takes 200 of each 4 numbers beyond 255."""
    write_image(tmp_path / "a.png", np.array([[0, 100, 100, 200]], "uint8"))
    Image.fromarray(GREY > 100).save(tmp_path / "b.png")
    (tmp_path / "bad.png").write_text("text")
    (tmp_path / "k.txt").write_text("2")
    names = ["a.png", "b.png", "bad.png"]
    done = subprocess.run(
        [*COMMAND, *(str(tmp_path / name) for name in names), "--kernel", str(tmp_path / "k.txt"), "-o",
         str(tmp_path / "out")], capture_output=True, text=True, check=False,
    )  # fmt: skip
    clipped = 100 * (1 + int((GREY > 100).sum())) / (4 + GREY.size)
    assert done.returncode == 2
    assert done.stdout.strip() == (
        f"wrote 2 of 3 images to {tmp_path / 'out'}; 1 failed; {clipped:.1f} % of the values clipped (see --dtype, "
        "--scale); 1 bit became 8-bit grey (1 image)"
    )
    assert done.stderr.startswith(f"convlab: {tmp_path / 'bad.png'}: not an image")
    assert below(tmp_path / "out") == ["a.png", "b.png"]
    done = subprocess.run(
        [*COMMAND, str(tmp_path / "bad.png"), "-f", "box:3", "-o", f"{tmp_path / 'nothing'}/"], capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, (tmp_path / "nothing").exists()) == (2, False)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_leaves_whole_files_and_can_go_on(tmp_path: Path, stop: signal.Signals) -> None:
    source, out = tmp_path / "photos", tmp_path / "out"
    source.mkdir()
    count = 200
    write_image(tmp_path / "large.png", scipy.ndimage.zoom(GREY, 30, order=1))
    for number in range(count):
        os.link(tmp_path / "large.png", source / f"{number:03}.png")
    arguments = [*COMMAND, str(source), "-f", "gaussian:2", "-o", str(out)]
    environment = os.environ | {"CONVLAB_NUM_THREADS": "2"}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as run:
        while not (out.is_dir() and len(list(out.glob("[0-9]*.png"))) > 3):
            assert run.poll() is None, "it ended without an image"
        run.send_signal(stop)
        output, errors = run.communicate()
    written = sorted(out.glob("[0-9]*.png"))
    assert 3 < len(written) <= count
    if run.returncode == 0:
        # A busy machine may let it end before the signal comes.
        assert len(written) == count
    elif stop == signal.SIGINT:
        assert (run.returncode, errors) == (130, "")
        assert output.startswith(f"interrupted; wrote {len(written)} of {count} images to {out}")
        assert below(out) == [path.name for path in written]
    else:
        assert all(name.startswith(".convlab-") for name in set(below(out)) - {path.name for path in written})
    contents = {path: path.read_bytes() for path in written}
    assert len({*contents.values()}) == 1
    done = subprocess.run([*arguments, "--skip-existing"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"wrote {count - len(written)} of {count} images to {out}; {len(written)} existed")
    assert {path.read_bytes() for path in out.glob("[0-9]*.png")} == {*contents.values()}
    assert len(list(out.glob("[0-9]*.png"))) == count
