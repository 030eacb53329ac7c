"""The page of a parity report in a real browser: at every width, in the light, in the dark and on paper."""

from __future__ import annotations

import itertools

import pytest
from test_report import HOSTILE, agreeing, disagreeing, failure, hostile, only

from convlab.parity.html import parity_page

STOPPED = agreeing(("jax", "numpy", "torch"))
STOPPED.failed = {"mxnet": "it was killed by SIGKILL (out of memory?) in random 12 float32 bounded gradients."}
REPORTS = {"agreeing": agreeing(), "disagreeing": disagreeing(), "stopped": STOPPED, "hostile": hostile()}
PAGES = {name: parity_page(report) for name, report in REPORTS.items()}
every_page = pytest.mark.parametrize("page", PAGES)
schemes = pytest.mark.parametrize("scheme", ["light", "dark"])

# A script for each text and its contrast with what is behind it; WCAG 2.2's AA wants at least 4.5.
CONTRASTS = """(() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const solid = colour => (parts(colour)[3] ?? 1) > 0;
  const light = colour => parts(colour).slice(0, 3).map(part => part / 255)
    .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    while (element && !solid(getComputedStyle(element).backgroundColor)) element = element.parentElement;
    return element ? getComputedStyle(element).backgroundColor : "rgb(255, 255, 255)";
  };
  const found = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode.data.trim(), element = texts.currentNode.parentElement;
    if (!text) continue;
    const [low, high] = [getComputedStyle(element).color, behind(element)].map(light).sort((a, b) => a - b);
    found.push([text, (high + 0.05) / (low + 0.05)]);
  }
  return found;
})()"""


@every_page
@pytest.mark.parametrize("width", [320, 800, 1400, 2560])
def test_the_page_never_scrolls_sideways(show, page, width):
    browser = show(PAGES[page], width=width)
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_wide_tables_and_pictures_scroll_by_themselves(show):
    browser = show(PAGES["disagreeing"], width=320)
    wide = "[...document.querySelectorAll('.scroll, .picture')].filter(box => box.scrollWidth > box.clientWidth)"
    assert {"Backends and versions", "Tier bounded", "Picture of the errors"} <= set(
        browser.evaluate(f"{wide}.map(box => box.ariaLabel)")
    )
    assert browser.evaluate(f"{wide}.every(box => box.tabIndex === 0 && getComputedStyle(box).overflowX === 'auto')")


def test_lines_stay_readable_on_a_wide_screen(show):
    browser = show(PAGES["disagreeing"], width=2560)
    boxes = "[...document.querySelectorAll('.measure, .more, .message, .tiers p')].map(box => box.offsetWidth)"
    assert browser.evaluate(f"Math.max(...{boxes})") <= 800


@every_page
@schemes
def test_contrast(show, page, scheme):
    contrasts = show(PAGES[page], scheme=scheme).evaluate(CONTRASTS)
    assert len(contrasts) > 50
    assert [each for each in contrasts if each[1] < 4.5] == []


def test_the_contrast_test_finds_what_is_too_faint(show):
    faint = '<body><p style="background:#777">black</p><p style="color:#888">grey</p><p>good</p></body>'
    assert [text for text, contrast in show(faint).evaluate(CONTRASTS) if contrast < 4.5] == ["grey"]


@schemes
def test_every_step_of_the_scale_is_seen_and_read(show, scheme):
    """Each step is darker, or brighter in the dark, than the one before, so that the colour-blind see it too."""
    browser = show(PAGES["agreeing"], scheme=scheme)
    colour = "getComputedStyle(document.querySelector(`.scales .s${i}`)).backgroundColor.match(/\\d+/g).map(Number)"
    scale = browser.evaluate(f"[0, 1, 2, 3, 4, 5, 6, 7, 8].map(i => {colour})")
    greys = [0.2126 * red + 0.7152 * green + 0.0722 * blue for red, green, blue in scale]
    assert all(abs(a - b) > 8 for a, b in itertools.pairwise(greys))
    assert greys == sorted(greys, reverse=scheme == "light")


def test_dark_differs_from_light_and_paper_is_light(show):
    colours = "[document.body, document.querySelector('h1')].map(e => [getComputedStyle(e).backgroundColor, \
        getComputedStyle(e).color]).concat([...document.images].map(image => image.currentSrc))"
    colours_of = {
        (scheme, media): show(PAGES["disagreeing"], scheme=scheme, media=media).evaluate(colours)
        for scheme in ("light", "dark")
        for media in ("screen", "print")
    }
    light, dark = colours_of["light", "screen"], colours_of["dark", "screen"]
    assert all(a != b for a, b in zip(light, dark, strict=True))
    assert colours_of["light", "print"] == colours_of["dark", "print"] == light


def test_it_can_be_printed(show):
    browser = show(PAGES["disagreeing"])
    pages = browser.call("Page.printToPDF", preferCSSPageSize=True, printBackground=False)
    assert len(pages["data"]) > 10_000


@every_page
@schemes
def test_nothing_is_fetched_and_nothing_goes_wrong(show, page, scheme):
    browser = show(PAGES[page], scheme=scheme)
    browser.evaluate("new Promise(done => setTimeout(done, 100))")
    events = {event["method"]: event for event in browser.events}
    requests = [
        each["params"]["request"]["url"] for each in browser.events if each["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in requests if not url.startswith("data:")] == [browser.evaluate("location.href")]
    noise = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening"}
    assert not noise & events.keys(), events


def test_what_the_page_may_not_fetch_is_noticed(show):
    browser = show('<img src="file:///nowhere.png"><script>console.error("oh")</script>')
    methods = {event["method"] for event in browser.events}
    assert {"Network.requestWillBeSent", "Runtime.consoleAPICalled", "Log.entryAdded"} <= methods


@schemes
def test_pictures_load(show, scheme):
    browser = show(PAGES["disagreeing"], scheme=scheme)
    facts = (
        "[image.naturalWidth, image.naturalHeight, image.width, image.height, getComputedStyle(image).imageRendering]"
    )
    pictures = browser.evaluate(f"[...document.images].map(image => {facts})")
    assert [each[:2] for each in pictures] == [[1, 1], [500, 3], [87, 87], [32, 24], [3, 500], [9, 9]]
    for width, height, shown_width, shown_height, rendering in pictures:
        assert shown_width * height == shown_height * width
        assert min(shown_width, shown_height) >= 8
        assert rendering == "pixelated"
    assert browser.evaluate("[...document.images].every(image => image.alt.startsWith('Errors of '))")


def test_what_is_hostile_shows_as_text(show):
    browser = show(PAGES["hostile"])
    assert browser.evaluate("document.title").startswith(f"convlab parity: {HOSTILE} disagrees: 1 of ")
    assert browser.evaluate("document.querySelectorAll('script, img, iframe, [onerror]').length") == 0
    shown = browser.evaluate("[...document.querySelectorAll('h1, h3, th, .message, code, td')].map(e => e.innerText)")
    assert sum(HOSTILE in text for text in shown) >= 12


def test_one_click_selects_the_command(show):
    report = only("exact", failures=[failure()])
    browser = show(parity_page(report))
    code = "document.querySelector('.command')"
    x, y = browser.evaluate(f"{code}.scrollIntoView(), (r => [r.x + 30, r.y + 20])({code}.getBoundingClientRect())")
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    assert browser.evaluate("getSelection().toString()") == report.failures[0].command


def test_the_outline_and_the_order_of_tabs(show):
    browser = show(PAGES["disagreeing"])
    levels = browser.evaluate("[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map(e => +e.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert browser.evaluate("[...document.querySelectorAll('[tabindex]')].every(e => e.tabIndex === 0 && e.ariaLabel)")
    assert browser.evaluate("document.documentElement.lang") == "en"
    assert browser.evaluate("document.querySelector('a').hash === '#failures' && !!document.querySelector('#failures')")
