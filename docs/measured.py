"""Put the tables that benchmarks printed, kept in benchmarks/results, into the documentation.

    python docs/measured.py [--check]

A page says which with `<!-- measured: grid.avx-512 | Title of the table -->`; what stands from there to
`<!-- /measured -->` is replaced. `--check` only says which pages are old. `python benchmarks/record.py` measures anew.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- measured: (\S+) \| (.+?) -->\n).*?(<!-- /measured -->)", re.DOTALL)


def tables(output: str) -> dict[str, str]:
    """The tables in what a benchmark printed, by their titles, the lines above them."""
    titled = re.findall(r"^(?!\|)(\S.*)\n+((?:\|.*\n)+)", output, re.MULTILINE)
    return {title.strip(): rows.strip() for title, rows in titled}


def measured(block: re.Match[str]) -> str:
    """A block of a page with its table, and under it the command, the processor and the day."""
    start, name, title, end = block.groups()
    output = (RESULTS / f"{name}.md").read_text()
    found = tables(output)
    if title not in found:
        raise SystemExit(f"benchmarks/results/{name}.md has no table {title!r}. Hint: it has {', '.join(found)}.")
    return f"{start}\n{found[title]}\n\n*{output.splitlines()[0]}*\n\n{end}"


def main() -> None:
    """Write the pages, or say which are old."""
    old = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = path.read_text()
        new = BLOCK.sub(measured, text)
        if new != text:
            old.append(str(path.relative_to(ROOT)))
            if "--check" not in sys.argv:
                path.write_text(new)
    if old and "--check" in sys.argv:
        sys.exit(f"Old tables: {', '.join(old)}. Hint: run `python docs/measured.py`.")


if __name__ == "__main__":
    main()
