"""The explorer in a real browser: pointer, finger and keyboard, hostile addresses and files, every width and scheme."""

from __future__ import annotations

import itertools
import struct
import zlib
from pathlib import Path

import pytest

from convlab.cli.explore import EXPLORER

from .conftest import Browser
from .explorer import address, cell, choose, click, press, text_of, wait
from .test_report import CONTRASTS

schemes = pytest.mark.parametrize("scheme", ["light", "dark"])


def give(page: Browser, path: Path) -> None:
    """Choose a file."""
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    page.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)
    page.evaluate("new Promise(done => setTimeout(done, 1500))")


def test_pointing_at_a_result_shows_its_window_and_sum(page: Browser) -> None:
    click(page, cell("result", 0, 1))
    assert text_of(page, "about") == "Result at row 1, column 2"
    assert text_of(page, "equation") == "1 × 1 + 0 × (−1) = 1"
    lit = "[...document.querySelectorAll('#image .window')].map(e => [e.dataset.row, e.dataset.column])"
    assert page.evaluate(lit) == [["0", "1"], ["0", "2"]]


def test_a_click_paints_and_shows_what_the_pixel_reaches(page: Browser) -> None:
    click(page, cell("image", 2, 3))
    assert page.evaluate(f"{cell('image', 2, 3)}.textContent") == "1"
    assert text_of(page, "equation") == "This pixel takes part in 2 of 42 results: row 3, column 3; row 3, column 4."
    assert page.evaluate(f"{cell('result', 2, 3)}.textContent") == "1"
    click(page, cell("image", 2, 3))
    assert page.evaluate(f"{cell('image', 2, 3)}.textContent") == "0"


def test_the_keyboard_moves_paints_and_walks(page: Browser) -> None:
    page.evaluate(f"{cell('image', 0, 0)}.focus()")
    for key in ("ArrowDown", "ArrowRight", "7"):
        press(page, key)
    assert page.evaluate(f"{cell('image', 1, 1)}.ariaLabel") == "row 2, column 2: 7"
    assert page.evaluate("document.querySelectorAll('#image [tabindex=\"0\"]').length") == 1
    press(page, "Enter")
    assert page.evaluate(f"{cell('image', 1, 1)}.textContent") == "1"
    page.evaluate("document.getElementById('scrub').focus()")
    press(page, "ArrowRight")


def test_a_tap_paints(page: Browser) -> None:
    box = page.evaluate(f"(r => [r.x + 5, r.y + 5])({cell('image', 3, 3)}.getBoundingClientRect())")
    page.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": box[0], "y": box[1]}])
    page.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    page.evaluate("new Promise(done => setTimeout(done, 400))")
    assert page.evaluate(f"{cell('image', 3, 3)}.textContent") == "1"


def test_the_walk(page: Browser) -> None:
    step = "document.getElementById('next')"
    click(page, step)
    assert text_of(page, "about") == "Result at row 1, column 2"
    click(page, "document.getElementById('back')")
    click(page, "document.getElementById('back')")
    assert text_of(page, "about") == "Result at row 6, column 7"
    choose(page, "scrub", "8")
    assert text_of(page, "about") == "Result at row 2, column 2"
    click(page, "document.getElementById('play')")
    page.evaluate("new Promise(done => setTimeout(done, 700))")
    click(page, "document.getElementById('play')")
    assert text_of(page, "play") == "Play"
    assert text_of(page, "about") == "Result at row 2, column 3"


def test_the_formula_follows_the_settings(page: Browser) -> None:
    for name, value in {"stride-rows": "2", "padding": "same", "mode": "reflect", "kernel-rows": "3"}.items():
        choose(page, name, value)
    assert text_of(page, "rows-formula").endswith("⌊(6 + 0 + 1 − (3 − 1) × 1 − 1) / 2⌋ + 1 = 3")
    page.evaluate("new Promise(done => setTimeout(done, 300))")
    written = page.evaluate("location.hash")
    assert written == "#kernel=3x2:1,-1,0,0,0,0&stride=2,1&padding=same&mode=reflect"
    choose(page, "kind", "transposed")
    assert text_of(page, "rows-formula").endswith(" = 12")


def test_a_wrong_number_is_said_and_not_used(page: Browser) -> None:
    choose(page, "stride-rows", "99")
    assert "an integer from 1 to 4" in text_of(page, "message")
    assert page.evaluate("document.getElementById('stride-rows').ariaInvalid") == "true"
    assert text_of(page, "rows-formula").endswith("/ 1⌋ + 1 = 6")
    choose(page, "stride-rows", "2")
    assert page.evaluate("document.getElementById('message').hidden")


def test_a_layer_without_a_result_says_why(page: Browser) -> None:
    choose(page, "kernel-rows", "7")
    assert "The kernel spans 7 rows" in text_of(page, "problem")
    choose(page, "kernel-rows", "1")
    assert page.evaluate("document.getElementById('problem').hidden")


@pytest.mark.parametrize(
    "text",
    [
        "kernel=<img src=x onerror=alert(1)>",
        "mode=javascript:alert(1)",
        "image=999x999:1",
        "__proto__=1",
        "stride=%00,1",
    ],
)
def test_a_hostile_address_is_ignored_and_said(page: Browser, text: str) -> None:
    address(page, text)
    assert "ignored" in text_of(page, "message")
    assert page.evaluate("document.querySelectorAll('img, iframe').length") == 0
    assert text_of(page, "rows-formula").endswith("= 6")
    assert not {"Page.javascriptDialogOpening", "Runtime.exceptionThrown"} & {e["method"] for e in page.events}


def test_an_address_restores_a_layer(page: Browser) -> None:
    address(page, "image=2x2:0,1,2,3&kernel=2x2:0,1,2,3&stride=2,2&transposed=1")
    numbers = "[...document.querySelectorAll('#result [role=gridcell]')].map(e => Number(e.textContent))"
    assert page.evaluate(numbers) == [0, 0, 0, 1, 0, 0, 2, 3, 0, 2, 0, 3, 4, 6, 6, 9]


def test_a_section_and_a_layer_are_both_in_the_address(page: Browser) -> None:
    click(page, cell("image", 2, 3))
    click(page, "document.querySelector('nav [href=\"#learning\"]')")
    written = page.evaluate("location.hash")
    assert written.startswith("#learning&image=6x8:1,1,0,0,0,0,1,1,1,1,0,0,0,0,1,1,1,1,0,1,")
    top = "Math.round(document.getElementById('learning').getBoundingClientRect().top) + 0"
    assert page.evaluate(top) == 0
    assert page.evaluate("document.activeElement.id") == "learning"
    page.evaluate("scrollTo(0, 0)")
    address(page, "bits")
    wait(page, "location.hash.includes('image')")
    assert page.evaluate("location.hash") == written.replace("learning", "bits")
    assert page.evaluate("scrollY") > 1000
    page.open(EXPLORER, width=1400)
    address(page, written[1:])
    assert page.evaluate(f"{cell('image', 2, 3)}.textContent") == "1"
    assert page.evaluate(top) == 0


def test_a_section_alone_is_an_address(browser: Browser) -> None:
    browser.open(EXPLORER, width=1400)
    browser.call("Page.navigate", url="about:blank")
    browser.call("Page.navigate", url=f"{EXPLORER.as_uri()}#conventions")
    wait(browser, "document.getElementById('verdict')?.textContent")
    assert browser.evaluate("Math.round(document.getElementById('conventions').getBoundingClientRect().top) + 0") == 0
    assert browser.evaluate("document.getElementById('message').hidden")
    assert text_of(browser, "rows-formula").endswith("= 6")


def png(width: int, height: int) -> bytes:
    """A grey picture, as small as a file as it may be."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + bytes([0] * (width // 2) + [255] * (width - width // 2))
    squeeze = zlib.compressobj(9)
    data = b"".join(squeeze.compress(row) for _ in range(height)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_photograph_is_scaled_down(page: Browser, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(png(480, 240))
    give(page, tmp_path / "photo.png")
    assert page.evaluate(
        "[document.getElementById('image-rows').value, document.getElementById('image-columns').value]"
    ) == [
        "12",
        "24",
    ]
    assert page.evaluate(f"[{cell('image', 0, 0)}.textContent, {cell('image', 11, 23)}.textContent]") == ["0", "9"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("evil.svg", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'),
        ("broken.png", b"\x89PNG\r\n\x1a\nnothing"),
        ("text.txt", b"no picture"),
    ],
)
def test_a_file_that_is_no_photograph_is_refused(page: Browser, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    give(page, tmp_path / name)
    assert text_of(page, "message").startswith(("The explorer reads PNG", "The browser can't read"))
    assert text_of(page, "rows-formula").endswith("= 6")


def test_a_photograph_of_100_megapixels_is_read_or_refused(page: Browser, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(png(10_000, 10_000))
    give(page, tmp_path / "large.png")
    page.evaluate("new Promise(done => setTimeout(done, 3000))")
    assert text_of(page, "message").startswith("The browser can't read") or text_of(page, "rows-formula").endswith(
        "= 24"
    )


def test_without_a_webcam_the_page_says_so(page: Browser) -> None:
    click(page, "document.getElementById('webcam')")
    wait(page, "document.getElementById('message').textContent")
    assert text_of(page, "message") == "There is no webcam, or the browser keeps it from this page."


def test_the_webcam_paints_until_its_picture_is_kept(browser_with_webcam: Browser) -> None:
    page = browser_with_webcam
    page.open(EXPLORER, width=1400)
    click(page, "document.getElementById('webcam')")
    page.evaluate("new Promise(done => setTimeout(done, 2500))")
    assert text_of(page, "webcam") == "Keep this picture"
    pixels = "[...document.querySelectorAll('#image [role=gridcell]')].map(e => e.textContent)"
    assert len(page.evaluate(pixels)) == 24 * 18
    assert len(set(page.evaluate(pixels))) > 3
    click(page, "document.getElementById('webcam')")
    kept = page.evaluate(pixels)
    page.evaluate("new Promise(done => setTimeout(done, 700))")
    assert page.evaluate(pixels) == kept


def test_the_webcam_is_asked_for_once_and_every_track_is_stopped(browser_with_webcam: Browser) -> None:
    page = browser_with_webcam
    page.open(EXPLORER, width=1400)
    page.evaluate(
        "window.streams = []; window.asked = 0; (devices => { const ask = devices.getUserMedia.bind(devices);"
        "devices.getUserMedia = async (what) => { asked += 1; await new Promise(done => setTimeout(done, 300));"
        "const stream = await ask(what); streams.push(stream); return stream } })(navigator.mediaDevices)"
    )
    for _ in range(3):
        click(page, "document.getElementById('webcam')")
    assert text_of(page, "webcam") == "Waiting for the webcam"
    wait(page, "document.getElementById('webcam').textContent === 'Keep this picture'")
    click(page, "document.getElementById('webcam')")
    assert page.evaluate("asked") == 1
    assert page.evaluate("streams.flatMap(each => each.getTracks()).map(each => each.readyState)") == ["ended"]


def test_copying_says_what_became_of_it(page: Browser) -> None:
    for name in ("copy-program", "copy-link"):
        click(page, f"document.getElementById('{name}')")
        page.evaluate("new Promise(done => setTimeout(done, 300))")
        assert "clipboard" in text_of(page, "message")


def test_an_empty_brush_only_looks(page: Browser) -> None:
    choose(page, "brush", "")
    click(page, cell("image", 2, 3))
    assert page.evaluate(f"{cell('image', 2, 3)}.textContent") == "0"
    assert text_of(page, "about") == "Image at row 3, column 4"


def test_every_framework_has_its_program(page: Browser) -> None:
    for name in ("convlab", "torch", "keras", "flax", "mxnet"):
        at = ["convlab", "torch", "keras", "flax", "mxnet"].index(name)
        click(page, f"document.querySelectorAll('#frameworks input')[{at}]")
        assert f"import {name}" in text_of(page, "program") or f"from {name}" in text_of(page, "program")


def test_four_frameworks_differ_at_stride_2_and_agree_without(page: Browser) -> None:
    click(page, "document.getElementById('example-stride')")
    assert text_of(page, "verdict").startswith("10 of 12 pixels differ.")
    assert page.evaluate("document.querySelectorAll('#result-same .differs').length") == 10
    assert "ZeroPad2d((0, 1, 0, 1))" in text_of(page, "converted")
    click(page, "document.getElementById('example-odd')")
    assert "agree" in text_of(page, "verdict")
    assert page.evaluate("document.querySelectorAll('.differs').length") == 0


def test_channels_are_in_groups(page: Browser) -> None:
    taken = "document.querySelectorAll('#taken [aria-label$=\": taken\"]').length"
    assert page.evaluate(taken) == 12
    choose(page, "groups", "1")
    assert page.evaluate(taken) == 24
    assert text_of(page, "weights-text") == (
        "The weight has 48 numbers: every output channel takes every input channel."
    )
    choose(page, "outputs", "8")
    choose(page, "groups", "4")
    assert page.evaluate("document.getElementById('weights').textContent").count(
        "DepthwiseConv2D(…, depth_multiplier=2)kernel (1, 2, 4, 2)"
    )
    wait(page, "location.hash")
    assert page.evaluate("location.hash") == "#channels=4,8,4"


def test_whole_numbers_have_the_same_bits_and_fractions_do_not(page: Browser) -> None:
    assert page.evaluate("document.querySelectorAll('#sums mark').length") > 0
    click(page, "document.getElementById('whole')")
    assert text_of(page, "bits-text").startswith("All float32 sums have the same bits")


@pytest.mark.parametrize("width", [320, 360, 800, 1400, 3840])
def test_the_page_never_scrolls_sideways(browser: Browser, width: int) -> None:
    browser.open(EXPLORER, width=width)
    for text in ("", "image=24x24:" + ",".join(["1"] * 576) + "&kernel=7x7:" + ",".join(["1"] * 49) + "&padding=full"):
        if text:
            address(browser, text)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        share = browser.evaluate("document.querySelector('main').getBoundingClientRect().width") / width
        assert share > 0.75  # of a 4K screen, too


@schemes
def test_contrast(browser: Browser, scheme: str) -> None:
    browser.open(EXPLORER, width=1400, scheme=scheme)
    click(browser, "document.getElementById('example-stride')")
    address(browser, "padding=full&mode=replicate&kernel=2x2:1,-0.5,0.2,0")
    contrasts = browser.evaluate(CONTRASTS)
    assert len(contrasts) > 200
    assert [each for each in contrasts if each[1] < 4.5] == []


@schemes
def test_nothing_is_fetched_and_nothing_goes_wrong(browser: Browser, scheme: str) -> None:
    browser.open(EXPLORER, scheme=scheme)
    browser.evaluate("new Promise(done => setTimeout(done, 100))")
    requests = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in requests if not url.startswith("data:")] == [EXPLORER.as_uri()]
    noise = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening"}
    assert not noise & {event["method"] for event in browser.events}


def test_the_outline_and_the_names_of_the_controls(page: Browser) -> None:
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(e => +e.tagName[1])")
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    unnamed = "[...document.querySelectorAll('input, select')].filter(e => !e.labels.length && !e.ariaLabel).length"
    assert page.evaluate(unnamed) == 0
    assert page.evaluate(
        "(ids => ids.length === new Set(ids).size)([...document.querySelectorAll('[id]')].map(e => e.id))"
    )
    assert page.evaluate("[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.hash))")
