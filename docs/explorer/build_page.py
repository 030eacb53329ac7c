"""Build the explorer, one page that needs nothing beside itself; `--check` only says whether it is old.

The page is convlab/page/explorer.html, where the package finds it; docs/explorer/index.html is a link to it. Its
sources are beside this file: a page, a style sheet and ES modules, each of which becomes a function in the page's one
script.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

from convlab import filters
from convlab.geometry.geometry import PADDING_MODES, border_index
from convlab.geometry.names import PADDING_MODE_ALIASES, padding_mode

ROOT = Path(__file__).parents[2]
SOURCE, PAGE = Path(__file__).parent / "source", ROOT / "convlab" / "page" / "explorer.html"
IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.mjs";$', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:const|function) (\w+))", re.MULTILINE)
FILTERS = (
    "edge:0",
    "edge:45",
    "edge:90",
    "derivative:1",
    "derivative:2",
    "sobel:0",
    "sobel:1",
    "scharr:1",
    "prewitt:1",
    "laplacian:4",
    "laplacian:8",
    "log:0.7",
    "dog:0.5,0.7",
    "box:2",
    "box:3",
    "gaussian:0.6",
    "gaussian:0.7",
    "motion:5,45",
    "sharpen:1",
    "unsharp:0.7,1",
)
LARGEST_KERNEL = 7
STRIP = "abcd"


def modules(name: str = "main", done: dict[str, str] | None = None) -> dict[str, str]:
    """The text of a module and of all that it imports, each behind what it imports."""
    done = {} if done is None else done
    text = (SOURCE / f"{name}.mjs").read_text(encoding="utf-8")
    for _, imported in IMPORT.findall(text):
        if imported not in done:
            modules(imported, done)
    done[name] = text
    return done


def inlined(name: str, text: str) -> str:
    """A module as a function that is called at once and returns what the module exports."""
    exports = ", ".join(EXPORT.findall(text))
    body = EXPORT.sub("", IMPORT.sub(r"const {\1} = \2_module;", text))
    if re.search(r"^(import|export) ", body, re.MULTILINE):
        raise SystemExit(
            f'{name}.mjs: write each import as import {{ … }} from "./….mjs", and export const or function.'
        )
    return f"const {name}_module = (() => {{\n{body}return {{ {exports} }};\n}})();\n"


def script() -> str:
    """All modules as one."""
    return '"use strict";\n' + "\n".join(inlined(name, text) for name, text in modules().items())


def style() -> str:
    """The colours, the text and the tables of the project's reports, and the explorer's own."""
    common = (ROOT / "convlab" / "page" / "page.css").read_text(encoding="utf-8")
    text, _, rest = common.partition("\n.verdict {")
    tables = rest[rest.index("\n.scroll {") : rest.index("\n.matrix {")]
    return f"{text}\n{tables}\n{(SOURCE / 'style.css').read_text(encoding='utf-8')}"


def border_names() -> list[dict[str, Any]]:
    """The table of borders in docs/how-to/from-scipy.md, held against what convlab does and which names it takes."""
    text = (ROOT / "docs" / "how-to" / "from-scipy.md").read_text(encoding="utf-8")
    lines = [
        line.strip("| ") for line in text.partition("## What borders are called")[2].splitlines() if line[:1] == "|"
    ]
    header, _, *rows = [re.split(r"\s*(?<!\\)\|\s?", line + " ") for line in lines]
    borders = []
    for row in rows:
        mode, strip = row[1].strip("`"), row[0].strip("`").replace("\\|", "|")
        names = {library.strip(): cell.strip() for library, cell in zip(header[1:], row[1:], strict=False)}
        check_border(mode, strip, names)
        borders.append({"mode": mode, "strip": [part.split() for part in strip.split("|")], "names": names})
    if {border["mode"] for border in borders} != {*PADDING_MODES}:
        raise SystemExit("docs/how-to/from-scipy.md doesn't have each border once.")
    return borders


def check_border(mode: str, strip: str, names: dict[str, str]) -> None:
    """Stop unless convlab's border has these pixels, and these names."""
    n = len(STRIP)
    letters = [
        "0" if mode == "zeros" and not 0 <= i < n else STRIP[border_index(i, n, padding_mode(mode))]
        for i in range(-3, n + 3)
    ]
    if letters != strip.replace("|", "").split():
        raise SystemExit(f"{mode}: the table says {strip}, convlab pads {' '.join(letters)}.")
    for cell in names.values():
        # A name in parentheses is the library's, and another border's in convlab.
        for name in re.findall(r"`([^`]+)`", re.sub(r"\([^)]*\)", "", cell)):
            if padding_mode(name) != mode:
                raise SystemExit(f"{name}: the table says {mode}, convlab {padding_mode(name)}.")


def kernels() -> dict[str, list[list[float]]]:
    """The kernels of `convlab.filters` that the page offers, by their names on the command line."""
    tables = {name: filters.parse(name) for name in FILTERS}
    return {
        name: [[float(f"{weight:.6g}") + 0.0 for weight in row] for row in kernel.tolist()]
        for name, kernel in tables.items()
        if max(kernel.shape) <= LARGEST_KERNEL
    }


def build() -> str:
    """The page."""
    data = {"borders": border_names(), "aliases": PADDING_MODE_ALIASES, "kernels": kernels()}
    code = "\n" + script()
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    page = (SOURCE / "page.html").read_text(encoding="utf-8")
    parts = {"style": style(), "data": json.dumps(data).replace("<", "\\u003c"), "script": code, "digest": digest}
    return re.sub(r"\{\{ (\w+) \}\}", lambda match: parts[match[1]], page)


def main() -> None:
    """Write the page, or say that it is old."""
    page = build()
    if "--check" not in sys.argv:
        PAGE.write_text(page, encoding="utf-8")
    elif page != PAGE.read_text(encoding="utf-8"):
        raise SystemExit("convlab/page/explorer.html is old: run python docs/explorer/build_page.py.")


if __name__ == "__main__":
    main()
