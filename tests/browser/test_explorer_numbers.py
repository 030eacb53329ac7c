"""The explorer in a real browser: learning a kernel, and the numbers that are written and shown."""

from __future__ import annotations

import pytest

from convlab.cli.explore import EXPLORER

from .conftest import Browser
from .explorer import address, cell, choose, click, press, text_of, wait


def test_learning_converges_below_the_largest_rate_and_diverges_above(page: Browser) -> None:
    choose(page, "step", "40")
    assert text_of(page, "learned") == "1−1"
    assert "≈ 2 / 60 ≈ 0.03333" in text_of(page, "rate-text")
    choose(page, "rate", "0.035")
    assert "diverges" in text_of(page, "rate-text")
    choose(page, "lesson", "own")
    choose(page, "kernel-rows", "3")
    assert page.evaluate("document.getElementById('bowl-figure').hidden")
    assert page.evaluate("document.querySelectorAll('#learned span').length") == 6


def test_a_painted_target_is_learned_as_well_as_it_can_be(page: Browser) -> None:
    choose(page, "lesson", "painted")
    assert "The kernel of the least loss is 1, −1." in text_of(page, "step-text")
    for row in range(6):  # The second edge goes from -1 to 0.
        click(page, f"document.querySelectorAll('#target [role=row]')[{row}].children[5]")
    assert page.evaluate("document.querySelectorAll('#target [role=gridcell]')[5].textContent") == "0"
    choose(page, "step", "40")
    learned = [
        float(each.replace("−", "-"))
        for each in page.evaluate("[...document.querySelectorAll('#learned span')].map((each) => each.textContent)")
    ]
    # Each row has windows (1,1), (1,0), (0,0) three times, (0,1), (1,1) and targets 0, 1, 0, 0, 0, 0, 0:
    # the normal equations [[3, 2], [2, 3]] K = [1, 0] give K = [0.6, -0.4].
    assert learned == pytest.approx([0.6, -0.4], abs=0.01)


def write(page: Browser, field: str, text: str) -> None:
    """Type a text in place of a field's own, and leave the field."""
    page.evaluate(f"{field}.scrollIntoView({{block: 'center'}}), {field}.focus(), {field}.select()")
    page.call("Input.insertText", text=text)
    press(page, "Tab")


def invalid(page: Browser, field: str) -> bool:
    return page.evaluate(f"{field}.ariaInvalid") == "true"


def test_an_address_opens_a_lesson_that_diverges(browser: Browser) -> None:
    browser.open(EXPLORER, width=1400)
    address(browser, "learning&rate=0.05")
    assert "At 0.05, each step overshoots further" in text_of(browser, "rate-text")
    address(browser, "learning&lesson=painted&rate=0.05&start=2,-0.5&image=1x3:1,0,2&target=1x2:1,7")
    assert browser.evaluate("document.getElementById('lesson').value") == "painted"
    starts = "['rate', 'start-first', 'start-second'].map(id => document.getElementById(id).value)"
    assert browser.evaluate(starts) == ["0.05", "2", "-0.5"]
    assert browser.evaluate("[...document.querySelectorAll('#target [role=gridcell]')].map(e => e.textContent)") == [
        "1",
        "7",
    ]
    choose(browser, "rate", "0.5")
    assert "diverges" in text_of(browser, "rate-text")
    click(browser, "document.querySelector('#target [data-column=\"0\"]')")
    wait(browser, "location.hash.includes('target=1x2:-1,7')")
    assert browser.evaluate("location.hash") == (
        "#learning&image=1x3:1,0,2&lesson=painted&rate=0.5&start=2,-0.5&target=1x2:-1,7"
    )


def test_an_image_that_does_not_determine_the_kernel_is_said_not_to(page: Browser) -> None:
    address(page, "image=2x3:1,1,1,1,1,1&kernel=1x2:2,5&lesson=own")
    assert "The true kernel is 2, 5; others have the same loss." in text_of(page, "step-text")
    choose(page, "lesson", "painted")
    assert "A kernel of the least loss is 1, 0; others have the same loss." in text_of(page, "step-text")
    choose(page, "rate", "0")
    assert "no step is taken" in text_of(page, "rate-text")
    choose(page, "lesson", "chapter")
    assert "others" not in text_of(page, "step-text")


def test_the_charts_hold_what_they_show(page: Browser) -> None:
    address(page, "kernel=1x2:4,-6&lesson=own&rate=0.5")
    labels = page.evaluate("[...document.querySelectorAll('#losses text')].map(e => e.textContent)")
    assert "e" in labels[2]
    assert max(map(len, labels[:3])) <= 7
    assert page.evaluate("[...document.querySelectorAll('#losses text')].every(e => e.getBBox().x >= 0)")
    spot = "(e => [e.cx.baseVal.value, e.cy.baseVal.value])(document.querySelector('#bowl ellipse'))"
    assert page.evaluate(spot) == [150 + 4 / 10 * 150, 150 + 6 / 10 * 150]
    assert "−10 to 10" in text_of(page, "bowl")
    inside = (
        "(([bowl, ...texts]) => texts.every(text => text.left >= bowl.left && text.right <= bowl.right && "
        "text.top >= bowl.top && text.bottom <= bowl.bottom))"
    )
    boxes = "[...document.querySelectorAll('#bowl, #bowl text')].map(each => each.getBoundingClientRect())"
    assert page.evaluate(f"{inside}({boxes})")
    choose(page, "step", "40")
    assert page.evaluate("[...document.querySelectorAll('#learned span')].every(e => e.scrollWidth <= e.clientWidth)")
    page.evaluate(
        "(bowl => { const { left, top, width, height } = bowl.getBoundingClientRect(); bowl.dispatchEvent(new "
        "MouseEvent('click', { clientX: left + 0.75 * width, clientY: top + 0.25 * height })) })"
        "(document.getElementById('bowl'))"
    )
    starts = "['start-first', 'start-second'].map(id => Number(document.getElementById(id).value))"
    assert page.evaluate(starts) == pytest.approx([5, 5], abs=0.05)


def test_a_weight_that_can_not_be_read_stays_and_is_said(page: Browser) -> None:
    weights = [f"document.querySelectorAll('#kernel input')[{i}]" for i in range(2)]
    for text, weight in {".5": 0.5, "5.": 5, "+2": 2, "−3": -3}.items():
        write(page, weights[0], text)
        assert not invalid(page, weights[0])
        assert page.evaluate(f"{cell('result', 0, 1)}.ariaLabel") == f"row 1, column 2: {weight:g}".replace("-", "−")
    for text in ("1/3", "1e7", "x"):
        write(page, weights[0], text)
        assert invalid(page, weights[0])
        assert page.evaluate(f"{weights[0]}.value") == text
        assert text_of(page, "message") == "weight at row 1, column 1: a number from -1000000 to 1000000, please."
    click(page, cell("result", 0, 0))
    assert page.evaluate(f"{weights[0]}.value") == "x"
    choose(page, "filter", "edge:90")
    assert not page.evaluate("document.querySelectorAll('#kernel [aria-invalid=true]').length")


def test_a_brush_and_a_rate_that_can_not_be_read_are_said(page: Browser) -> None:
    brush, rate = "document.getElementById('brush')", "document.getElementById('rate')"
    write(page, brush, ".5")
    click(page, cell("image", 2, 3))
    assert page.evaluate(f"{cell('image', 2, 3)}.textContent") == "0.5"
    write(page, brush, "1/3")
    click(page, cell("image", 2, 4))
    assert page.evaluate(f"{cell('image', 2, 4)}.textContent") == "0"
    assert text_of(page, "message").startswith("Brush (empty: look only): a number from")
    assert invalid(page, brush)
    write(page, rate, ".01")
    assert "At 0.01, gradient" in text_of(page, "rate-text")
    write(page, rate, "-1")
    assert page.evaluate(f"{rate}.value") == "-1"
    assert invalid(page, rate)
    assert text_of(page, "message") == "Learning rate: a number from 0 to 100, please."
    write(page, rate, "0.02")
    assert not invalid(page, rate)


def test_large_numbers_are_neither_cut_nor_passed_off_as_exact(page: Browser) -> None:
    address(page, "image=1x2:123456,0.1234567891&kernel=1x1:1000000")
    assert text_of(page, "equation") == "123456 × 1000000 = 123456000000"
    assert page.evaluate(f"{cell('result', 0, 0)}.textContent") == "1.2e11"
    click(page, cell("result", 0, 1))
    assert text_of(page, "equation") == "0.12345679 × 1000000 ≈ 123456.79"
    address(page, "image=1x20:" + ",".join(["-123456"] * 20) + "&kernel=1x1:-1000000")
    fits = "[...document.querySelectorAll('#layer [role=gridcell]')].every(e => e.scrollWidth <= e.clientWidth)"
    assert page.evaluate(fits)
