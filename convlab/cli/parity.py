"""`convlab parity`: options, progress bar, tables, and files written at the end or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from ..atomic import check_writable, write_text
from ..errors import GeometryError
from ..page.page import counted
from ..parity.archive import read_case
from ..parity.html import parity_page
from ..parity.run import Cell, Report, RunPlan, run_plan
from ..registry import adapter, adapters
from ..testing.trials import TIERS
from .screen import print_line, print_table

_CLAIMS = {
    "exact": "integer-valued data, whose results must be equal bit for bit",
    "bounded": "any data; the number of results, and the largest error, of which 1 is what rounding allows",
    "learned": "kernels learned by gradient descent; the number of results, and the largest error, as above",
    "reproducible": "reproducible=True, whose results must be equal bit for bit",
}


def run_parity(
    console: Console,
    errors: Console,
    only_on: str,
    pythons: list[str],
    seed: int,
    seconds: float,
    case: Path | None,
    only: str,
    patience: float,
    json_file: Path | None,
    html_file: Path | None,
) -> bool:
    """Run the command; True if everything agreed."""
    check_writable(json_file, html_file)
    others = dict(_python(each) for each in pythons)
    if len(others) < len(pythons):
        raise GeometryError("--python: got a backend twice, expected one Python for each.", hint="leave one out.")
    names = [name.strip() for name in only_on.split(",")] if only_on else []
    # An unknown name is an error here.
    names = [name if name in others else adapter(name).name for name in names]
    plan = RunPlan(
        backends=tuple(dict.fromkeys([*(names or sorted(adapters(), key=lambda name: name != "numpy")), *others])),
        required=frozenset([*names, *others]),
        pythons=others,
        seed=seed,
        seconds=seconds,
        case=None if case is None else read_case(case),
        only=only,
        patience=patience,
    )
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()
    with Progress(*columns, console=errors, transient=True, disable=errors.color_system is None) as progress:
        task = progress.add_task("", total=1.0)
        report = run_plan(
            plan, lambda share, what: progress.update(task, completed=share, description=f"{what:<45.45}")
        )
    if only and not report.trials:
        raise GeometryError(f"--only: no trial's name begins with {only!r}.", hint="the report names them.")
    show_report(console, report)
    if json_file is not None:
        write_text(json_file, json.dumps(report.as_dict(), indent=1) + "\n")
    if html_file is not None:
        write_text(html_file, parity_page(report))
    return report.agreed


def _python(option: str) -> tuple[str, str]:
    name, separator, path = option.partition("=")
    if not (name and separator and path):
        raise GeometryError(
            f"--python: got {option!r}, expected BACKEND=PATH.", hint="--python mxnet=/envs/mxnet/bin/python"
        )
    return name, path


def show_report(console: Console, report: Report) -> None:
    """A table for each tier, what went wrong, and the verdict."""
    for tier in TIERS:
        cells = {(backend, quantity): cell for (of, backend, quantity), cell in report.cells.items() if of == tier}
        if not cells:
            continue
        quantities = list(dict.fromkeys(quantity for _, quantity in cells))
        rows = [
            [name, *(_cell(tier, cells.get((name, quantity))) for quantity in quantities)]
            for name in dict.fromkeys(backend for backend, _ in cells)
        ]
        claim = f"\n[bold]{tier}[/]: {_CLAIMS[tier]}"
        console.print(claim, highlight=False, soft_wrap=not console.is_terminal)
        print_table(console, ["backend", *(quantity.replace("gradient of ", "d") for quantity in quantities)], rows)
    for name, reason in report.absent.items():
        print_line(console, f"not tested: {name}: {reason}", "dim")
    for failure in report.failures:
        where = f"{failure.backend}: {failure.trial}, {failure.quantity}: {failure.message}"
        print_line(console, f"\n{where}", "red")
        console.print(f"  {failure.command}", markup=False, highlight=False, soft_wrap=True)
    if report.wrong > len(report.failures):
        console.print(f"\n… and {report.wrong - len(report.failures)} more.", style="red")
    for name, reason in report.failed.items():
        print_line(console, f"\n{name} can't be tested: {reason}", "red")
    style, sentence = "bold green", "All backends agree"
    if not report.agreed:
        style, sentence = (
            "bold red",
            "The backends don't all agree" if report.wrong else "Not every backend could be tested",
        )
    trials, backends = counted(report.trials, "trial"), counted(len(report.versions), "backend")
    summary = f"{trials} on {backends}, seed {report.seed}, {report.seconds:.0f} s"
    console.print(f"\n[{style}]{sentence}[/]: {summary}.", highlight=False)


def _cell(tier: str, cell: Cell | None) -> str:
    if cell is None:
        return ""
    if cell.failed:
        worst = "∞" if np.isinf(cell.worst) else f"{cell.worst:.3g}"
        return f"[red]{cell.failed} of {cell.trials} wrong[/]" + (
            f", worst {worst}" if tier in ("bounded", "learned") else ""
        )
    return f"[green]{cell.trials}[/]" + (f"  {cell.worst:.3f}" if tier in ("bounded", "learned") else " equal")
