"""Files of every kind through `convlab filter`: what is kept, what is said, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import tifffile
from PIL import Image, ImageCms
from typer.testing import CliRunner

from convlab.cli import main as cli
from convlab.filters import parse
from convlab.images.photographs import ImageError, filter_image, read_image, read_photograph, write_image

rng = np.random.default_rng(3)
GREY = scipy.ndimage.gaussian_filter(rng.integers(0, 256, (30, 40)).astype(float), 2).astype("uint8")
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], -1)
STACK = np.stack([np.roll(COLOUR, 5 * index, 0) for index in range(3)])
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def run(*arguments: object) -> tuple[int, str]:
    """The exit code and the output of `convlab filter`."""
    result = CliRunner().invoke(cli.app, ["filter", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def blurred(pixels: np.ndarray) -> np.ndarray:
    """What box:3 should make of pixels, by SciPy, each channel by itself."""
    planes = np.moveaxis(np.atleast_3d(pixels), -1, 0).astype(float)
    filtered = np.stack([scipy.ndimage.uniform_filter(plane, 3, mode="mirror") for plane in planes], -1)
    return np.rint(filtered).reshape(pixels.shape)


def test_hidden_colours_have_no_weight(tmp_path: Path) -> None:
    """By hand: opaque blue beside red that is fully transparent. Blue fades, and no red appears."""
    pixels = np.zeros((5, 6, 4), "uint8")
    pixels[:, :3] = 255, 0, 0, 0
    pixels[:, 3:] = 0, 0, 255, 255
    write_image(tmp_path / "a.png", pixels)
    assert run(tmp_path / "a.png", "-f", "box:3", "-o", tmp_path / "b.png")[0] == 0
    assert read_image(tmp_path / "b.png")[2].tolist() == [
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 255, 85],
        [0, 0, 255, 170],
        [0, 0, 255, 255],
        [0, 0, 255, 255],
    ]


def test_partly_transparent_colours_are_weighted() -> None:
    """By hand: (200 * 51/255 + 100 * 204/255) / ((51 + 204)/255) = 120, of an opacity of (51 + 204)/2 = 127.5."""
    pixels = np.array([[[200, 0, 0, 51], [100, 0, 0, 204]]], "uint8")
    result = filter_image(pixels, np.array([[0.5, 0.5]]), "numpy", dtype="float32")
    np.testing.assert_allclose(result[0, 0], [120, 0, 0, 127.5], rtol=1e-5)


@pytest.mark.parametrize("name", ["box:3", "gaussian:1", "sharpen:2", "edge:30"])
@pytest.mark.parametrize("border", ["reflect", "zeros"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_an_opaque_image_is_filtered_as_one_without_alpha(lab, name, border, dtype) -> None:
    full = np.iinfo(dtype).max
    pixels = COLOUR.astype(dtype) * (full // 255)
    opaque = np.dstack([pixels, np.full(GREY.shape, full, dtype)])
    result = filter_image(opaque, parse(name), lab.name, border=border)
    # What is added is a channel, on which the rounding of a framework's sums may depend.
    slack = 0 if lab.name == "numpy" else 1
    assert np.abs(result[..., :3].astype(int) - filter_image(pixels, parse(name), lab.name, border=border)).max() <= (
        slack if dtype == "uint8" else 2
    )
    assert (result[..., 3] == full).all()


def test_edges_leave_opacity_as_it_is() -> None:
    """By hand: the premultiplied row 0, 100 * 51/255 = 20, 100; its central differences are (20, 100, 80)/2."""
    row = np.array([[[9, 9, 9, 0], [100, 100, 100, 51], [100, 100, 100, 255]]], "uint8")
    result = filter_image(row, np.array([[-0.5, 0, 0.5]]), "numpy")
    assert result[0, 1].tolist() == [50, 50, 50, 51]
    assert result[..., 3].tolist() == [[0, 51, 255]]


def test_grey_with_alpha_stays_that(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.dstack([GREY, np.full_like(GREY, 255)]))
    run(tmp_path / "a.png", "-f", "box:3", "-o", tmp_path / "b.tif")
    with Image.open(tmp_path / "b.tif") as image:
        assert image.mode == "LA"
        np.testing.assert_array_equal(np.asarray(image)[..., 0], blurred(GREY))


@pytest.mark.parametrize("deep", [False, True])
def test_all_pages_of_a_stack(tmp_path: Path, deep: bool) -> None:
    stack = STACK.astype("uint16") * 257 if deep else STACK
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="rgb", iccprofile=PROFILE, resolution=(300, 200),
                     resolutionunit="inch")  # fmt: skip
    assert run(tmp_path / "a.tif", "-f", "box:3", "-o", tmp_path / "b.tif")[0] == 0
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert len(file.pages) == 3
        for page, source in zip(file.pages, stack, strict=True):
            np.testing.assert_allclose(page.asarray(), blurred(source), atol=deep)
            assert (page.iccprofile, page.resolution) == (PROFILE, (300, 200))
    for target in ("c.png", "c.jpg"):
        code, output = run(tmp_path / "a.tif", "-f", "box:3", "-o", tmp_path / target)
        assert (code, "can't hold 3 pages" in output) == (2, True)
        assert not (tmp_path / target).exists()


def test_a_page_of_another_size_is_named(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in (COLOUR, COLOUR[:20]):
            file.write(page, photometric="rgb")
    code, output = run(tmp_path / "a.tif", "-f", "box:3", "-o", tmp_path / "b.tif")
    assert (code, "page 2 of 2 is 40 x 20 RGB, expected 40 x 30 RGB like page 1" in output) == (2, True)
    assert not (tmp_path / "b.tif").exists()


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
@pytest.mark.parametrize("other", ["webp", "png"])
def test_animations_keep_frames_and_durations(tmp_path: Path, kind: str, other: str) -> None:
    frames, path = [Image.fromarray(page) for page in STACK], tmp_path / f"a.{kind}"
    lossless = {"lossless": True} if kind == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100, 200, 300], loop=2, **lossless)
    assert run(path, "-f", "box:3", "-o", tmp_path / f"b.{other}")[0] == 0
    with Image.open(path) as before, Image.open(tmp_path / f"b.{other}") as after:
        assert (after.n_frames, after.info["loop"]) == (3, 2)
        for index in range(3):
            before.seek(index)
            after.seek(index)
            np.testing.assert_array_equal(after.convert("RGB"), blurred(np.asarray(before.convert("RGB"))))
            assert after.info["duration"] == 100 * (index + 1)
    code, output = run(path, "-f", "box:3", "-o", tmp_path / "c.gif")
    assert (code, "can't hold 3 frames" in output) == (2, True)
    assert "durations left out of .tif" in run(path, "-f", "box:3", "-o", tmp_path / "d.tif")[1]
    with Image.open(tmp_path / "d.tif") as pages:
        assert pages.n_frames == 3


def photographed(path: Path) -> None:
    """Write a photograph that lies on its side, with a profile, a resolution and EXIF data."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    exif.get_ifd(0x8769)[0x829A] = 0.01
    Image.fromarray(COLOUR).save(path, icc_profile=PROFILE, dpi=(300, 200), exif=exif)


@pytest.mark.parametrize("kind", ["jpg", "png"])
@pytest.mark.parametrize("other", ["jpg", "png", "tif"])
def test_profile_resolution_and_exif_are_kept(tmp_path: Path, kind: str, other: str) -> None:
    photographed(tmp_path / f"a.{kind}")
    code, output = run(tmp_path / f"a.{kind}", "-f", "box:3", "-o", tmp_path / f"b.{other}")
    assert (code, "left out" in output) == (0, False)
    with Image.open(tmp_path / f"b.{other}") as image:
        # The file lay on its side, so that its resolutions change places.
        assert image.size == (30, 40)
        assert [round(float(dpi)) for dpi in image.info["dpi"]] == [200, 300]
        assert image.info["icc_profile"] == PROFILE
        exif = image.getexif()
        assert (exif[0x010F], exif[0x0112], exif.get_ifd(0x8769)[0x829A]) == ("Maker", 1, 0.01)


def test_no_resolution_is_invented(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    Image.fromarray(COLOUR).save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(GREY).save(tmp_path / "b.tif")
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "c.tif")
    for source, target in (("a.jpg", "a.png"), ("b.tif", "b.png"), ("c.tif", "d.tif"), ("b.tif", "e.tif")):
        run(tmp_path / source, "-f", "box:3", "-o", tmp_path / target)
        if target.endswith(".tif"):
            with tifffile.TiffFile(tmp_path / target) as file:
                # The tags of the two resolutions and of their unit.
                assert {282, 283, 296}.isdisjoint(tag.code for tag in file.pages[0].tags)
        else:
            with Image.open(tmp_path / target) as image:
                assert "dpi" not in image.info


def test_sixteen_bit_colour_keeps_its_profile(tmp_path: Path) -> None:
    deep = COLOUR.astype("uint16") * 257
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", iccprofile=PROFILE, resolution=(300, 300),
                     resolutionunit="inch", description="a note")  # fmt: skip
    run(tmp_path / "a.tif", "-f", "box:3", "-o", tmp_path / "b.png")
    assert "left out" not in run(tmp_path / "b.png", "-f", "box:1", "-o", tmp_path / "c.tif")[1]
    with Image.open(tmp_path / "b.png") as image:
        assert (image.info["icc_profile"], np.round(image.info["dpi"]).tolist()) == (PROFILE, [300, 300])
    with tifffile.TiffFile(tmp_path / "c.tif") as file:
        page = file.pages[0]
        assert (page.iccprofile, page.description) == (PROFILE, "a note")
        np.testing.assert_allclose(page.asarray(), blurred(deep), atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_deep_tiff_is_turned_upright_once(tmp_path: Path, orientation: int) -> None:
    """Pillow turns the same picture of 8 bits."""
    for name, pixels in (("deep", COLOUR.astype("uint16") * 257), ("flat", COLOUR)):
        tags = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric="rgb", extratags=tags)
    with Image.open(tmp_path / "flat.tif") as image:
        image.load()
        upright = np.asarray(image)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.tif") // 257, upright)


def test_what_a_format_cant_hold_is_said(tmp_path: Path) -> None:
    photographed(tmp_path / "a.jpg")
    for target, part in (("b.bmp", "ICC profile, EXIF data left out of .bmp"), ("b.webp", "resolution left out")):
        assert part in run(tmp_path / "a.jpg", "-f", "box:3", "-o", tmp_path / target)[1]
    write_image(tmp_path / "deep.png", COLOUR.astype("uint16") * 257)
    assert "16 bits became 8 in .jpg" in run(tmp_path / "deep.png", "-f", "box:1", "-o", tmp_path / "d.jpg")[1]
    write_image(tmp_path / "alpha.png", np.dstack([COLOUR, GREY]))
    assert "transparency was left out" in run(tmp_path / "alpha.png", "-f", "box:1", "-o", tmp_path / "e.jpg")[1]
    # Sixteen bits are rounded: 128 / 257 is nearer to 0 than to 1, and 129 / 257 to 1.
    write_image(tmp_path / "f.bmp", np.array([[128, 129, 65535]], "uint16"))
    assert read_image(tmp_path / "f.bmp").tolist() == [[0, 1, 255]]


KINDS: dict[str, tuple[Callable[[], Image.Image], str, str]] = {
    "bilevel.png": (lambda: Image.fromarray(GREY > 128), "L", "1 bit became 8-bit grey"),
    "palette.png": (lambda: Image.fromarray(COLOUR).quantize(16), "RGB", "a palette became RGB"),
    "inks.tif": (lambda: Image.fromarray(COLOUR).convert("CMYK"), "CMYK", ""),
    "luma.tif": (lambda: Image.fromarray(COLOUR).convert("YCbCr"), "RGB", "YCbCr became RGB"),
}


@pytest.mark.parametrize("name", KINDS)
def test_other_modes_are_right_and_said(tmp_path: Path, name: str) -> None:
    make, mode, note = KINDS[name]
    make().save(tmp_path / name)
    code, output = run(tmp_path / name, "-f", "box:3", "-o", tmp_path / "out.tif")
    assert (code, note in output) == (0, True)
    with Image.open(tmp_path / "out.tif") as result, Image.open(tmp_path / name) as source:
        assert result.mode == mode
        np.testing.assert_array_equal(result, blurred(np.asarray(source.convert(mode))))


def test_a_transparent_colour_becomes_alpha(tmp_path: Path) -> None:
    """By hand: black is transparent, so that white stays white and fades."""
    Image.fromarray(np.repeat(np.array([[0, 0, 255, 255]], "uint8"), 3, 0)).save(tmp_path / "a.png", transparency=0)
    assert "became an alpha channel" in run(tmp_path / "a.png", "-f", "box:3", "-o", tmp_path / "b.png")[1]
    assert read_image(tmp_path / "b.png")[1].tolist() == [[0, 0], [255, 85], [255, 170], [255, 255]]


def test_what_would_be_changed_is_refused(tmp_path: Path) -> None:
    Image.new("LAB", (9, 9)).save(tmp_path / "lab.tif")
    five = np.zeros((6, 7, 5), "uint8")
    tifffile.imwrite(tmp_path / "five.tif", five, photometric="rgb", planarconfig="contig",
                     extrasamples=["unspecified"] * 2)  # fmt: skip
    tifffile.imwrite(tmp_path / "inks.tif", np.zeros((6, 7, 4), "uint16"), photometric="separated",
                     planarconfig="contig")  # fmt: skip
    tifffile.imwrite(tmp_path / "long.tif", np.zeros((6, 7), "int64"), photometric="minisblack")
    tifffile.imwrite(tmp_path / "white.tif", GREY.astype("uint16"), photometric="miniswhite")
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(COLOUR).save(tmp_path / "rgb.png")
    for source, target, part in (
        ("lab.tif", "b.tif", "has the mode LAB"),
        ("five.tif", "b.tif", "has 5 channels, of which only 3 would be read"),
        ("inks.tif", "b.tif", "SEPARATED with 4 channels of uint16 isn't known"),
        ("white.tif", "b.tif", "0 is white"),
        ("long.tif", "b.npy", "got dtype int64, expected integers of up to 32 bits or floats"),
        ("cmyk.jpg", "b.png", "can't hold CMYK"),
        ("rgb.png", "b.gif", "only 256 colours"),
    ):
        code, output = run(tmp_path / source, "-f", "box:3", "-o", tmp_path / target)
        assert (code, part in output, "Hint:" in output) == (2, True, True), output
        assert len(output.strip().splitlines()) == 1
        assert not (tmp_path / target).exists()


def test_signed_results(tmp_path: Path) -> None:
    """By hand: the second difference of a step from 10 to 250 is (240, -240)."""
    step = np.repeat(np.array([[10, 10, 10, 250, 250, 250]], "uint8"), 3, 0)
    write_image(tmp_path / "a.png", step)
    row = [0, 240, -240, 0]
    for options, target, expected, clipped in (
        (["--dtype", "float32"], "b.tif", row, False),
        (["--dtype", "int16"], "c.tif", row, False),
        (["--dtype", "int16", "--scale", "100"], "c2.tif", [0, 24000, -24000, 0], False),
        (["--dtype", "float64"], "d.npy", row, False),
        (["--scale", "0.25", "--offset", "128"], "e.png", [128, 188, 68, 128], False),
        (["--scale", "1"], "f.png", [0, 240, 0, 0], True),
        ([], "g.png", [0, 240, 240, 0], False),
    ):
        code, output = run(tmp_path / "a.png", "-f", "derivative:2", *options, "-o", tmp_path / target)
        assert (code, "% of the values clipped" in output) == (0, clipped), output
        pixels = read_image(tmp_path / target)
        assert pixels[1, 1:5].tolist() == expected
        assert pixels.dtype == (options[1] if "--dtype" in options else "uint8")
    with pytest.raises(ImageError, match=r"\.png can't hold float32\. Hint: .* or use --dtype uint8"):
        run(tmp_path / "a.png", "-f", "edge:0", "--dtype", "float32", "-o", tmp_path / "h.png")


def test_arrays_and_colour_tiffs_of_floats(tmp_path: Path) -> None:
    pixels = rng.standard_normal((20, 30, 3)).astype("float32")
    np.save(tmp_path / "a.npy", pixels)
    for source, target in (("a.npy", "b.tif"), ("b.tif", "c.npy")):
        assert run(tmp_path / source, "-f", "box:1", "-o", tmp_path / target)[0] == 0
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), pixels)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), pixels)
    # No channel of an array is opacity.
    np.save(tmp_path / "four.npy", np.dstack([COLOUR, GREY]))
    run(tmp_path / "four.npy", "-f", "box:3", "-o", tmp_path / "d.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "d.npy"), blurred(np.dstack([COLOUR, GREY])))
    for name, array, part in (
        ("complex", np.ones((3, 3), complex), "got dtype complex128"),
        ("long", np.ones((3, 3), "int64"), "got dtype int64"),
        ("rank", np.ones((2, 3, 3, 3)), "got shape (2, 3, 3, 3)"),
        ("nan", np.array([[1, np.nan]]), "got a response of NaN"),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        options = ["--dtype", "uint8"] if name == "nan" else []
        code, output = run(tmp_path / f"{name}.npy", "-f", "box:1", *options, "-o", tmp_path / "z.npy")
        assert (code, part in output) == (2, True), output
    assert not (tmp_path / "z.npy").exists()


@pytest.mark.parametrize("kind", ["jpg", "png", "deep.png", "tif", "stack.tif", "gif", "webp", "npy"])
def test_a_truncated_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"whole.{kind}"
    if kind == "npy":
        np.save(path, COLOUR)
    elif kind == "deep.png":
        write_image(path, COLOUR.astype("uint16") * 257)
    elif kind in ("stack.tif", "gif", "webp"):
        frames = [Image.fromarray(page) for page in STACK]
        frames[0].save(path, save_all=True, append_images=frames[1:])
    else:
        write_image(path, COLOUR)
    data, cut = path.read_bytes(), tmp_path / f"cut.{kind}"
    for share in (0.3, 0.6, 0.95):
        cut.write_bytes(data[: int(share * len(data))])
        target = tmp_path / f"out.{kind.split('.')[-1].replace('gif', 'png')}"
        code, output = run(cut, "-f", "box:3", "-o", target)
        assert (code, str(cut) in output, "Hint:" in output) == (2, True, True), output
        assert len(output.strip().splitlines()) == 1
        assert not target.exists()


def test_lying_suffixes_and_bombs(tmp_path: Path, monkeypatch) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "really.jpg", format="PNG")
    np.testing.assert_array_equal(read_image(tmp_path / "really.jpg"), COLOUR)
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "text.npy").write_text("not an array")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    for name, part in (("text.png", "not an image"), ("text.npy", "damaged"), ("really.jpg", "too large")):
        code, output = run(tmp_path / name, "-f", "box:3", "-o", tmp_path / "b.png")
        assert (code, part in output) == (2, True), output
    assert not (tmp_path / "b.png").exists()
    with pytest.raises(ImageError, match="too large"):
        read_image(tmp_path / "really.jpg")


def test_strips_are_seamless(lab, monkeypatch) -> None:
    """An image in strips of a few rows is what SciPy makes of the whole."""
    from convlab.images import filtering

    monkeypatch.setattr(filtering, "_STRIP", 1)
    tall = rng.integers(0, 256, (203, 21)).astype("uint8")
    modes = {"reflect": "mirror", "symmetric": "reflect", "edge": "nearest", "zeros": "constant", "wrap": "wrap"}
    for border, mode in modes.items():
        for shape in ((3, 3), (1, 5), (7, 2), (40, 3)):
            kernel = rng.integers(-3, 4, shape).astype(float)
            expected = scipy.ndimage.correlate(tall.astype(float), kernel, mode=mode)
            result = filter_image(tall, kernel, lab.name, border=border, dtype="float32", scale=1.0)
            np.testing.assert_allclose(result, expected, atol=0.05, err_msg=f"{border} {shape}")


def test_a_jpeg_keeps_its_subsampling(tmp_path: Path) -> None:
    for subsampling in (0, 1, 2):
        Image.fromarray(COLOUR).save(tmp_path / "a.jpg", subsampling=subsampling)
        run(tmp_path / "a.jpg", "-f", "box:3", "-o", tmp_path / "b.jpg")
        assert read_photograph(tmp_path / "b.jpg").subsampling == subsampling


def test_without_tifffile_it_says_so(tmp_path: Path, monkeypatch) -> None:
    write_image(tmp_path / "a.png", COLOUR)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    code, output = run(tmp_path / "a.png", "-f", "edge:0", "--dtype", "float32", "-o", tmp_path / "b.tif")
    assert (code, "needs tifffile. Hint: " in output, "install tifffile" in output) == (2, True, True), output
    assert not (tmp_path / "b.tif").exists()
