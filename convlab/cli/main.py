"""The command line: `convlab backends`, `demo`, `explore`, `parity`, `compare`, `tune` and `filter`."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from .. import __version__
from ..errors import BackendNotInstalled, ConvlabError
from ..lab import backend
from ..registry import adapter, adapters, faults
from .explore import explore
from .filter import filter_images
from .quiet import quiet
from .screen import busy
from .terminal import BAD_INPUT, DISAGREEMENT, PARTIAL, console, errors, fail, progress_bar

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="One convolution, four frameworks, identical results.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The entry point: convlab's errors become one line and exit code 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow greets at lower levels.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # OpenCV warns of unusual TIFFs.
    try:
        app()
    except ConvlabError as error:
        fail(str(error))
        sys.exit(BAD_INPUT)
    except MemoryError:
        fail("not enough memory. Hint: use a smaller image or filter.")
        sys.exit(BAD_INPUT)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.print(f"convlab {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def convlab_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """One convolution, four frameworks, identical results."""


@app.command()
def backends() -> None:
    """List the backends: version, devices, what each can do, and how to mend what is missing."""
    table = Table("backend", "version", "devices", "dtypes", "gradients", title="backends", title_justify="left")
    mend: list[tuple[str, str, str]] = []
    with busy(console, "loading frameworks"):
        for name in [*adapters(), *faults()]:
            try:
                with quiet():
                    lab = backend(name)
            except ConvlabError as error:
                state = "not installed" if isinstance(error, BackendNotInstalled) else "broken"
                table.add_row(name, f"[red]{state}[/]", "", "", "")
                reason, _, command = str(error).partition(" Hint: ")
                mend.append((name, reason, command))
                continue
            facts = lab.adapter
            orders = "1st and 2nd" if facts.second_derivatives else "1st"
            table.add_row(
                f"[green]{name}[/]",
                " ".join([lab.version, *_companions(facts.frameworks[1:])]),
                ", ".join(lab.ops.devices()),
                " ".join([*map(_short, facts.dtypes), "int"]),
                orders if facts.autograd else "none",
            )
    console.print(table)
    for name, reason, command in mend:
        console.print(f"\n{name}: {reason}", style="yellow", markup=False, highlight=False, soft_wrap=True)
        console.print(f"  {command}", markup=False, highlight=False, soft_wrap=True)


def _short(dtype: str) -> str:
    """A dtype abbreviated as in JAX, such as f32 for float32."""
    return dtype.replace("bfloat", "bf").replace("float", "f").replace("complex", "c")


def _companions(frameworks: tuple[str, ...]) -> list[str]:
    return [f"({name} {importlib.metadata.version(name)})" for name in frameworks]


@app.command()
def demo(
    only: Annotated[str, typer.Option("--backends", help="Names, separated by commas; default: all that load.")] = "",
    plot: Annotated[Path | None, typer.Option(help="Draw image, kernel, feature map and losses to this file.")] = None,
) -> None:
    """Run the chapter on every backend side by side and compare the results."""
    from .demo import run_demo

    names = [adapter(name.strip()).name for name in only.split(",")] if only else None
    if plot is not None:
        _check_plot(plot)
    if not run_demo(console, names, plot):
        raise typer.Exit(DISAGREEMENT)


def _check_plot(plot: Path) -> None:
    from ..plot.axes import matplotlib_module

    known = matplotlib_module("backend_bases").FigureCanvasBase.get_supported_filetypes()
    if plot.suffix[1:].lower() not in known or not plot.parent.is_dir():
        fail(f"{plot}: can't be drawn there. Hint: an existing folder, and one of {', '.join(sorted(known))}.")
        raise typer.Exit(BAD_INPUT)


@app.command()
def parity(
    only_on: Annotated[
        str, typer.Option("--backends", help="Names, separated by commas; default: all that are installed.")
    ] = "",
    python: Annotated[
        list[str] | None, typer.Option(metavar="BACKEND=PATH", help="Run a backend with another environment's Python.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random cases.")] = 0,
    seconds: Annotated[
        float, typer.Option(min=0, max=1e6, help="Seconds of random cases after the fixed ones.")
    ] = 10.0,
    case: Annotated[
        Path | None, typer.Option(help="Your own case: an .npz with X, K, options, and Y if you like.")
    ] = None,
    only: Annotated[str, typer.Option(metavar="NAME", help="Run only the trials whose names begin with this.")] = "",
    patience: Annotated[
        float, typer.Option(min=1, max=1e6, help="Seconds to wait for an answer of a backend.")
    ] = 120.0,
    json: Annotated[Path | None, typer.Option(help="Write the result to this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a report with pictures to this file.")] = None,
) -> None:
    """Compute the same cases on every backend, compare the results, and say whether they agree (exit code 1 if not)."""
    from .parity import run_parity

    if not run_parity(console, errors, only_on, python or [], seed, seconds, case, only, patience, json, html):
        raise typer.Exit(DISAGREEMENT)


@app.command(name="compare")
def compare_models(
    a: Annotated[str, typer.Argument(help="A model: file.py:name or package.module:name. The file is run.")],
    b: Annotated[str, typer.Argument(help="Another model, of the same or of another framework.")],
    inputs: Annotated[Path | None, typer.Option(help="Images, (N, C, H, W), in an .npy or .npz; or random.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random images.")] = 0,
    python: Annotated[
        str, typer.Option(metavar="PATH", help="The Python of another environment, which loads and runs the second.")
    ] = "",
    json: Annotated[Path | None, typer.Option(help="Write the result to this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a report with pictures to this file.")] = None,
) -> None:
    """Compare two models layer by layer, and say where they diverge and why (exit code 1 if they do).

    Exit code 3 says that only parts could be compared, and no difference was found in them.
    """
    from .compare import run_compare

    same = run_compare(console, a, b, inputs, seed, python, json, html)
    if same is not True:
        raise typer.Exit(DISAGREEMENT if same is False else PARTIAL)


@app.command()
def tune(
    only: Annotated[str, typer.Option("--backends", help="Names, separated by commas; default: all that load.")] = "",
    show: Annotated[bool, typer.Option("--show", help="Measure nothing; print the fastest algorithm by size.")] = False,
) -> None:
    """Measure once what each algorithm costs on this machine, so that corr2d picks the fastest here."""
    from ..correlation.measure import fit as fitted
    from ..correlation.measure import tasks, time_task
    from ..planning.costs import save_costs, user_file
    from .tune import winners

    names = [each.strip() for each in only.split(",")] if only else list(adapters())
    # A backend that wraps others computes on them, and so has no costs of its own.
    names = [name for name in names if not adapter(name).wraps]
    labs = []
    for name in names:
        try:
            with quiet():
                labs.append(backend(name))
        except ConvlabError:
            if only:
                raise
    if not show:
        with progress_bar() as progress:
            for lab in labs:
                tracked = progress.track(tasks(lab), description=lab.name)
                table = {str(task): fitted(list(time_task(lab, task))) for task in tracked}
                save_costs({lab.name: lab.version}, {lab.name: table})
        console.print(f"wrote {user_file()}", markup=False, highlight=False, soft_wrap=True)
    for lab in labs:
        console.print(winners(lab))


app.command()(explore)
app.command(name="filter")(filter_images)
