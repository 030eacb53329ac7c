"""Make the relative links of a Markdown file absolute, for a page that is shown elsewhere.

python .github/absolute_links.py README.md https://host/owner/project REVISION
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LINK = re.compile(r"(?P<image>!?)(?P<label>\[[^\[\]]*\])\((?P<path>[^)#\s]+)(?P<part>#[^)\s]*)?\)")


def absolute(text: str, folder: Path, project: str, revision: str) -> str:
    """The text with each link to a file below the folder as a link to that file on the project's host."""

    def link(match: re.Match[str]) -> str:
        if not (folder / match["path"]).exists():
            return match[0]
        view = "raw" if match["image"] else "blob"
        address = f"{project}/{view}/{revision}/{match['path']}{match['part'] or ''}"
        return f"{match['image']}{match['label']}({address})"

    return LINK.sub(link, text)


if __name__ == "__main__":
    file, project, revision = Path(sys.argv[1]), *sys.argv[2:]
    file.write_text(absolute(file.read_text(encoding="utf-8"), file.parent, project, revision), encoding="utf-8")
