"""What the site adds to pages and docstrings: commands, backends, the diagram of the floors, links to the reference."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import griffe
from mkdocs.exceptions import PluginError

from convlab import errors
from convlab.registry import adapters

COMMANDS, BACKENDS, NOTEBOOKS = "<!-- commands -->", "<!-- backends -->", "<!-- notebooks -->"
BUILT = Path(__file__).parent / "docs" / "notebooks" / "built"
DIAGRAM = re.compile(r"```mermaid\n(.*?)```", re.DOTALL)
PROMPTED = re.compile(r"```python\n( *>>> )")
HOSTED = re.compile(r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="(?:https?:)?//[^>]*>')
CODE = re.compile(r"<code>([^\n]{1,300}?)</code>(?!</a>)")
EXAMPLE = re.compile(r"^( *)>>> .*\n(?:\1.*\S.*(?:\n|$))*", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in what comes from the code when the site is built."""
    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, commands())
    if BACKENDS in markdown:
        markdown = markdown.replace(BACKENDS, backends())
    if NOTEBOOKS in markdown:
        markdown = markdown.replace(NOTEBOOKS, notebooks())
    markdown = PROMPTED.sub(r"```pycon\n\1", markdown)  # of which prompts and results aren't copied
    return DIAGRAM.sub(lambda diagram: storeys(diagram[1]), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Link the names of convlab and its errors to the reference, as far as it has them."""
    return CODE.sub(linked, html)


def linked(element: re.Match[str]) -> str:
    """Names in code, each as a link that may lead nowhere; other code as it is."""
    text = re.sub(r"<[^>]+>", "", element[1]).strip("()")
    names = [f"convlab.errors.{name}" if hasattr(errors, name) else name for name in text.split(", ")]
    if not all(re.fullmatch(r"convlab(\.\w+)+", name) for name in names):
        return element[0]
    links = (
        f'<autoref identifier="{name}" optional><code>{shown}</code></autoref>'
        for name, shown in zip(names, text.split(", "), strict=True)
    )
    return ", ".join(links)


def on_post_page(output: str, **_: Any) -> None:
    """Refuse a page that loads something from a host."""
    if hosted := HOSTED.search(output):
        raise PluginError(f"{hosted[0]} would be loaded from a host.")


def notebooks() -> str:
    """Links to the notebooks that have been built, with their outputs, and to the page on which they run."""
    pages = sorted(BUILT.glob("*.html"))
    links = [f"- [{page.stem}](built/{page.name}), [as a notebook](built/{page.stem}.ipynb)" for page in pages]
    if (BUILT / "lite" / "index.html").exists():
        links.append("- [In the browser, on NumPy](built/lite/index.html)")
    return "\n".join(["With their outputs:\n", *links]) if links else ""


def commands() -> str:
    """Each command, as Typer describes it."""
    command = (sys.executable, "-m", "typer", "convlab.cli.main", "utils", "docs", "--name", "convlab")
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout.partition("\n## ")
    return f"## {text[2]}"


def backends() -> str:
    """A table of what each adapter says of itself."""
    rows = [
        "| backend | also called | framework, from | dtypes | derivatives | algorithms |",
        "|---|---|---|---|---|---|",
    ]
    for name, adapter in adapters().items():
        orders = ("first and second" if adapter.second_derivatives else "first") if adapter.autograd else "none"
        framework = f"{' and '.join(adapter.frameworks)}, {adapter.minimum}"
        cells = (
            code(name),
            code(*adapter.aliases),
            framework,
            code(*adapter.dtypes),
            orders,
            code(*adapter.algorithms),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def code(*names: str) -> str:
    """Names as code, separated by commas."""
    return ", ".join(f"`{name}`" for name in names)


def storeys(diagram: str) -> str:
    """A diagram of floors as HTML: Mermaid's own script would be loaded from a host."""
    floors = [re.findall(r"^    (\w+)$", floor, re.MULTILINE) for floor in diagram.split("subgraph")[1:]]
    below = re.findall(r"^  (\w+) --> (\w+)$", diagram, re.MULTILINE)
    lines = ['<div class="floors">']
    for floor in floors:
        rooms = ((room, ", ".join(to for start, to in below if start == room)) for room in floor)
        boxes = (f"<p><code>{room}</code>{' → ' * bool(to)}{to}</p>" for room, to in rooms)
        lines.append(f"<div>{''.join(boxes)}</div>")
    return "\n".join([*lines, "</div>", "", "An arrow is an import; one that follows from others isn't drawn.", ""])


class Docstrings(griffe.Extension):
    """Examples in docstrings become blocks of code, which Markdown would take for quotations."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Put fences around the examples of one object."""
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(fenced, obj.docstring.value)


def fenced(example: re.Match[str]) -> str:
    """An example between fences, as deeply indented as it is."""
    return f"{example[1]}```pycon\n{example[0].rstrip()}\n{example[1]}```\n"
