"""The explorer's page as a file: built from its sources, small, alone, and opened by its command."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import webbrowser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from convlab import filters
from convlab.cli import main as cli
from convlab.cli.explore import EXPLORER

FOLDER = Path(__file__).parents[1] / "docs" / "explorer"
SOURCES = sorted((FOLDER / "source").iterdir())
PAGE = EXPLORER.read_text(encoding="utf-8")


def test_the_page_is_what_its_sources_make() -> None:
    command = [sys.executable, str(FOLDER / "build_page.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_documents_have_the_same_page() -> None:
    assert (FOLDER / "index.html").read_text(encoding="utf-8") == PAGE


def test_the_page_is_small_and_needs_nothing_else() -> None:
    assert len(PAGE.encode()) < 300_000
    loads = re.findall(
        r"""(?:src|href)=["']?([^"' >]+)|url\(|@import|\bfetch\(|XMLHttp|WebSocket|\beval\(|innerHTML""", PAGE
    )
    assert {link for link in loads if not link.startswith(("#", "data:"))} == set()
    assert set(re.findall(r"https?://[^\s\"']+", PAGE)) == {"http://www.w3.org/2000/svg"}


def test_the_page_allows_its_own_script_alone() -> None:
    script = re.findall(r"<script>(.*?)</script>", PAGE, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}';" in PAGE


def test_each_source_is_short() -> None:
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > 400} == {}
    assert len(lengths) > 20
    modules = [path for path in SOURCES if path.suffix == ".mjs"]
    assert [line for path in modules for line in path.read_text(encoding="utf-8").splitlines() if len(line) > 120] == []


def test_the_filters_are_those_of_convlab() -> None:
    data = json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', PAGE)[0])
    assert len(data["kernels"]) >= 15
    for name, kernel in data["kernels"].items():
        np.testing.assert_allclose(kernel, filters.parse(name), rtol=1e-5)


def test_the_command_opens_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    result = CliRunner().invoke(cli.app, ["explore"])
    assert result.exit_code == 0
    assert opened == [EXPLORER.as_uri()]
    assert CliRunner().invoke(cli.app, ["explore", "--path"]).exit_code == 0
    assert len(opened) == 1


def test_the_command_says_where_the_page_is_if_there_is_no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    result = CliRunner().invoke(cli.app, ["explore"])
    assert result.exit_code == 2
