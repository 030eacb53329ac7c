"""Make notebooks of docs/notebooks/*.py: with their outputs for each framework, or without for JupyterLite.

python docs/build_notebooks.py --frameworks torch,jax --source git+https://host/owner/project
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "notebooks"
BUILT = FOLDER / "built"
# One text needs two frameworks at once and has no switch.
ALONE = "why_models_differ"
# What the sources say, and a built notebook says otherwise.
SOURCE, FRAMEWORK = "../..", '"CONVLAB_BACKEND", "torch"'


def notebook(path: Path, source: str, framework: str) -> Any:
    """The notebook of a script, that installs convlab from `source` where it is missing and begins with a framework."""
    import jupytext

    made = jupytext.read(path, fmt="py:percent")
    for cell in made.cells:
        cell.source = cell.source.replace(f"%pip install --quiet {SOURCE} ", f"%pip install --quiet {source} ")
        cell.source = cell.source.replace(FRAMEWORK, f'"CONVLAB_BACKEND", "{framework}"')
    return made


def run(made: Any) -> None:
    """Run all cells in a new kernel, and put what they print and draw below them."""
    import nbclient

    nbclient.NotebookClient(made, timeout=600, resources={"metadata": {"path": str(FOLDER)}}).execute()


def write(made: Any, path: Path) -> None:
    """Write a notebook to a file."""
    import nbformat

    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(made, path)
    print(path)


def write_page(made: Any, path: Path) -> None:
    """Write a notebook to a page that loads nothing."""
    import nbconvert

    page = nbconvert.HTMLExporter(mathjax_url="", require_js_url="")
    path.write_text(page.from_notebook_node(made, resources={"metadata": {"name": path.stem}})[0], encoding="utf-8")


def main() -> None:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frameworks", default="torch,jax,tensorflow,mxnet,numpy", help="names, separated by commas")
    parser.add_argument("--source", default=SOURCE, help="where pip finds convlab if it isn't installed")
    parser.add_argument("--lite", action="store_true", help="for JupyterLite: on NumPy, without outputs")
    arguments = parser.parse_args()
    frameworks = arguments.frameworks.split(",")
    for path in sorted(FOLDER.glob("*.py")):
        if arguments.lite:
            if path.stem != ALONE:
                made = notebook(path, "convlab", "numpy")
                made.metadata.kernelspec = {"name": "python", "display_name": "Python (Pyodide)", "language": "python"}
                write(made, BUILT / "lite-files" / f"{path.stem}.ipynb")
        elif path.stem == ALONE:
            if {"torch", "tensorflow"} <= set(frameworks):
                made = notebook(path, arguments.source, "torch")
                run(made)
                write(made, BUILT / f"{path.stem}.ipynb")
                write_page(made, BUILT / f"{path.stem}.html")
        else:
            for framework in frameworks:
                made = notebook(path, arguments.source, framework)
                run(made)
                write(made, BUILT / f"{path.stem}-{framework}.ipynb")
                write_page(made, BUILT / f"{path.stem}-{framework}.html")


if __name__ == "__main__":
    main()
