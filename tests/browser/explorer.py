"""What a reader does on the explorer's page."""

from __future__ import annotations

from .conftest import Browser

CELL = 'document.querySelector(\'#{} [data-row="{}"][data-column="{}"]\')'


def cell(grid: str, row: int, column: int) -> str:
    return CELL.format(grid, row, column)


def click(page: Browser, element: str) -> None:
    x, y = page.evaluate(
        f"{element}.scrollIntoView({{block: 'center'}}), (r => [r.x + r.width / 2, r.y + r.height / 2])"
        f"({element}.getBoundingClientRect())"
    )
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def press(page: Browser, key: str) -> None:
    text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
    page.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
    page.call("Input.dispatchKeyEvent", type="keyUp", key=key)


def text_of(page: Browser, name: str) -> str:
    return page.evaluate(f"document.getElementById('{name}').textContent")


def choose(page: Browser, name: str, value: str) -> None:
    page.evaluate(
        f"(e => {{ e.value = '{value}'; for (const type of ['input', 'change']) "
        f"e.dispatchEvent(new Event(type, {{ bubbles: true }})) }})(document.getElementById('{name}'))"
    )


def wait(page: Browser, condition: str) -> None:
    """Wait until the page says that a condition holds, or for half a minute."""
    page.evaluate(
        "new Promise(done => { let left = 600; (function look() "
        f"{{ ({condition}) || !left-- ? done() : setTimeout(look, 50) }})() }})"
    )


def address(page: Browser, text: str) -> None:
    page.evaluate(
        f"new Promise(done => {{ addEventListener('hashchange', done, {{once: true}}); location.hash = {text!r} }})"
    )
