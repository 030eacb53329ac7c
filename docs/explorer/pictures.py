"""Draw the explorer for the README: the window's walk as an animation, and two sections as pictures.

It needs Debian's `chromium`, and Pillow (`pip install -e ".[image]"`).
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PAGE = ROOT / "convlab" / "page" / "explorer.html"
WIDTH, PIXELS_OF_WALK, MILLISECONDS = 1000, 36, 400
# A disc, and Sobel's kernel for vertical edges.
LAYER = (
    "image=6x6:0,0,1,1,0,0,0,1,1,1,1,0,1,1,1,1,1,1,1,1,1,1,1,1,0,1,1,1,1,0,0,0,1,1,0,0"
    "&kernel=3x3:-1,0,1,-2,0,2,-1,0,1&padding=same"
)
PICTURES = {"conventions.png": ("conventions", "light"), "learning.png": ("learning", "dark")}


def picture(page: Any, first: str, last: str) -> Image.Image:
    """The page from the top of one element to the end of another."""
    top, bottom = page.evaluate(
        f"[document.querySelector('{first}').getBoundingClientRect().top + scrollY, "
        f"document.querySelector('{last}').getBoundingClientRect().bottom + scrollY]"
    )
    clip = {"x": 0, "y": top - 8, "width": WIDTH, "height": bottom - top + 16, "scale": 1}
    data = page.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def walk(page: Any) -> list[Image.Image]:
    """The pictures of the pixels of the result, one after another, all as high as the highest."""
    frames = []
    for number in range(PIXELS_OF_WALK):
        page.evaluate(
            f"(e => {{ e.value = {number}; e.dispatchEvent(new Event('input', {{ bubbles: true }})) }})"
            "(document.getElementById('scrub'))"
        )
        frames.append(picture(page, "#layer .bench", "#panel"))
    height = max(frame.height for frame in frames)
    paper = frames[0].getpixel((2, 2))
    film = Image.new("RGB", (WIDTH, height * len(frames)), paper)
    for number, frame in enumerate(frames):
        film.paste(frame, (0, height * number))
    # With the colours in common, a file holds of each frame only what changes.
    film = film.quantize(64, dither=Image.Dither.NONE)
    return [film.crop((0, height * number, WIDTH, height * (number + 1))) for number in range(len(frames))]


def main() -> None:
    """Write the pictures beside this file."""
    sys.path.insert(0, str(ROOT))
    from tests.browser.conftest import Browser, chromium
    from tests.browser.explorer import address

    with tempfile.TemporaryDirectory() as profile:
        page = Browser(chromium(), Path(profile))
        page.open(PAGE, width=WIDTH)
        address(page, LAYER)
        first, *others = walk(page)
        first.save(HERE / "walk.gif", save_all=True, append_images=others, duration=MILLISECONDS, loop=0, optimize=True)
        for name, (section, scheme) in PICTURES.items():
            page.open(PAGE, width=WIDTH, scheme=scheme)
            picture(page, f"#{section}", f"#{section}").quantize(128).save(HERE / name, optimize=True)
        page.close()


if __name__ == "__main__":
    main()
