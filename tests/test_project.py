"""The files by which a project is found, cited, joined and released agree with each other and with the package."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import convlab

ROOT = Path(__file__).parents[1]
absolute = runpy.run_path(str(ROOT / ".github" / "absolute_links.py"))["absolute"]


def test_the_version_that_is_cited_is_the_package_s() -> None:
    cited = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited == [convlab.__version__]


@pytest.mark.parametrize(("platform", "wanted"), [("linux", True), ("darwin", True), ("emscripten", False)])
def test_numba_is_asked_for_where_it_exists(platform: str, wanted: bool) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (numba,) = (each for each in map(Requirement, project["dependencies"]) if each.name == "numba")
    where = {"sys_platform": platform, "platform_python_implementation": "CPython"}
    assert numba.marker.evaluate(where) is wanted


def test_what_the_build_changes_in_notebooks_is_there() -> None:
    build = runpy.run_path(str(ROOT / "docs" / "build_notebooks.py"))
    texts = {path.stem: path.read_text(encoding="utf-8") for path in build["FOLDER"].glob("*.py")}
    assert build["ALONE"] in texts
    for name, text in texts.items():
        assert text.count(f"    # %pip install --quiet {build['SOURCE']} ") == 1
        assert text.count(build["FRAMEWORK"]) == (name != build["ALONE"])


def test_the_sessions_that_workflows_name_are_there() -> None:
    sessions = set(re.findall(r"@nox\.session.*\ndef (\w+)", (ROOT / "noxfile.py").read_text(encoding="utf-8")))
    named = set()
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = path.read_text(encoding="utf-8")
        named.update(re.findall(r"nox --session (\w+)", text))
        named.update(name for names in re.findall(r"[-+] \[(\".*?\")\]", text) for name in re.findall(r"\w+", names))
    assert {"coverage", "browser", "explorer"} <= named
    assert named - sessions - {"site"} == set()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md"])
def test_links_that_are_made_absolute_lead_to_files(name: str, tmp_path: Path) -> None:
    text = absolute((ROOT / name).read_text(encoding="utf-8"), ROOT, "https://host/owner/project", "v1.2.3")
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert [target for target in targets if not target.startswith("https://")] == []
    own = [target for target in targets if target.startswith("https://host/")]
    for target in own:
        view, path = re.fullmatch(r"https://host/owner/project/(raw|blob)/v1\.2\.3/([^#]+)(?:#.+)?", target).groups()
        assert (ROOT / path).exists()
        assert (view == "raw") == path.endswith((".png", ".gif"))


def test_only_links_to_files_are_made_absolute(tmp_path: Path) -> None:
    (tmp_path / "a.md").touch()
    (tmp_path / "b.png").touch()
    text = "[a](a.md#part) ![b](b.png) [c](https://elsewhere/a.md) [d](#part) `x[0](y)` [e](missing.md)"
    assert absolute(text, tmp_path, "https://host/p", "1a2b") == (
        "[a](https://host/p/blob/1a2b/a.md#part) ![b](https://host/p/raw/1a2b/b.png) "
        "[c](https://elsewhere/a.md) [d](#part) `x[0](y)` [e](missing.md)"
    )
