"""The documentation's pages, as mkdocs.yml and the code have them; `nox -s site` builds them and follows each link."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import convlab

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CORE = Path(convlab.__file__).parent
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
# What mkdocstrings shows: "::: convlab.corr2d".
SHOWN = {name for page in PAGES for name in re.findall(r"^::: (\S+)", (DOCS / page).read_text(), re.MULTILINE)}


def test_each_page_is_in_the_navigation_once() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    assert sorted(re.findall(r": (\S+\.md)$", navigation, re.MULTILINE)) == PAGES


def test_the_reference_has_each_public_name() -> None:
    assert {f"convlab.{name}" for name in convlab.__all__} - SHOWN == set()


def test_the_reference_has_each_error() -> None:
    modules = [".".join(path.relative_to(CORE.parent).with_suffix("").parts) for path in sorted(CORE.rglob("*.py"))]
    trees = [ast.parse(path.read_text()) for path in sorted(CORE.rglob("*.py"))]
    errors = {
        f"{module}.{node.name}": module
        for module, tree in zip(modules, trees, strict=True)
        for node in tree.body
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Error") for base in node.bases)
    }
    assert "convlab.errors.ShapeError" in errors
    assert [name for name, module in errors.items() if not {name, module} & SHOWN] == []
