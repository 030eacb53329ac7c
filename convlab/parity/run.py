"""Asking every backend for every trial, and comparing the answers with the truth."""

from __future__ import annotations

import itertools
import re
import shlex
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ConvlabError
from ..geometry.names import data_format
from ..testing import Case, error_ratios
from ..testing.trials import Trial, fixed_trials, random_trials
from .pool import Worker, WorkerFailed

# A worker's error where its framework isn't installed. That is no failure, unless the backend was asked for by name.
_ABSENT = "BackendNotInstalled"
# The number of wrong results that a report shows, and of those of one kind.
_SHOWN, _ALIKE = 24, 3


@dataclass
class Cell:
    """One backend's results of one kind in one tier: how many, how many wrong, the worst error in bounds."""

    trials: int = 0
    failed: int = 0
    worst: float = 0.0


@dataclass(frozen=True)
class Failure:
    """A result that isn't what it should be.

    Attributes:
        backend, trial, tier, quantity: whose result it is, in which trial, and of what.
        worst: the error in bounds; infinite where bits had to be equal.
        message: where, and what it looks like; or the error that was raised.
        command: what reproduces it.
        image: the errors in bounds around the worst one, rows by columns; None if there is no result.
    """

    backend: str
    trial: str
    tier: str
    quantity: str
    worst: float
    message: str
    command: str
    image: np.ndarray | None = None


@dataclass
class Report:
    """The outcome of a run.

    Attributes:
        versions: for each backend that answered, the versions of its software.
        failed: backends that couldn't be started or stopped answering, with the reason.
        absent: backends that aren't installed, with how to install them.
        cells: by (tier, backend, quantity).
        pairs: by (backend, backend): the worst difference of bounded results, in bounds.
        failures: wrong results, the first of each kind; `wrong` counts all.
    """

    seed: int
    command: str
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    cells: dict[tuple[str, str, str], Cell] = field(default_factory=dict)
    pairs: dict[tuple[str, str], float] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    wrong: int = 0
    trials: int = 0
    seconds: float = 0.0

    @property
    def agreed(self) -> bool:
        """Whether every backend answered, and every answer was right."""
        return not self.wrong and not self.failed and bool(self.versions)

    def as_dict(self) -> dict[str, Any]:
        """The report in JSON's types; an infinite error is null."""

        def number(value: float) -> float | None:
            return float(value) if np.isfinite(value) else None

        return {
            "format": 1,
            "agreed": self.agreed,
            "seed": self.seed,
            "command": self.command,
            "trials": self.trials,
            "seconds": round(self.seconds, 1),
            "backends": self.versions,
            "failed": self.failed,
            "absent": self.absent,
            "results": [
                {"tier": tier, "backend": backend, "quantity": quantity, **vars(cell), "worst": number(cell.worst)}
                for (tier, backend, quantity), cell in self.cells.items()
            ],
            "pairs": [{"backends": list(pair), "worst": number(worst)} for pair, worst in self.pairs.items()],
            "failures": [
                {name: value for name, value in vars(each).items() if name != "image"} | {"worst": number(each.worst)}
                for each in self.failures
            ],
        }


@dataclass(frozen=True)
class RunPlan:
    """What a run does.

    Attributes:
        backends: by name; `required` are those whose absence is a failure.
        pythons: for a backend, the Python of another environment to run it in.
        seconds: how long to go on with random cases after the fixed ones.
        only: run only the trials whose name begins with this.
        patience: seconds to wait for one answer.
    """

    backends: tuple[str, ...]
    required: frozenset[str] = frozenset()
    pythons: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    seconds: float = 10.0
    case: Case | None = None
    only: str = ""
    patience: float = 120.0

    def trials(self) -> Iterator[tuple[Trial, float]]:
        """The trials, each with how much of the run is done before it, from 0 to 1."""
        number = re.match(r"random (\d+)", self.only)
        fixed = [each for each in fixed_trials(self.case) if each.name.startswith(self.only)]
        if number:
            first = itertools.takewhile(
                lambda trial: trial.name.startswith(f"random {number[1]} "), random_trials(int(number[1]))
            )
            fixed += [each for each in first if each.name.startswith(self.only)]
        share = 0.5 if self.seconds and not self.only else 1.0
        for index, trial in enumerate(fixed):
            yield trial, share * index / len(fixed)
        start, end = time.monotonic(), time.monotonic() + (0 if self.only else self.seconds)
        for trial in random_trials(self.seed):
            if time.monotonic() >= end:
                return
            yield trial, min(share + (1 - share) * (time.monotonic() - start) / (end - start), 1.0)

    def command(self, *backends: str, only: str = "") -> str:
        """The command line that runs the plan again, or a part of it."""
        words = ["convlab", "parity", "--backends", ",".join(backends or self.backends), "--seed", str(self.seed)]
        for name, python in self.pythons.items():
            words += ["--python", f"{name}={python}"] if name in (backends or self.backends) else []
        words += ["--case", self.case.source] if self.case else []
        words += ["--only", only] if only else ["--seconds", f"{self.seconds:g}"]
        return shlex.join(words)


def run_plan(plan: RunPlan, progress: Callable[[float, str], object] = lambda share, what: None) -> Report:
    """Run a plan; `progress` is called with the share that is done and what is being done."""
    start = time.monotonic()
    report = Report(plan.seed, plan.command())
    workers = [Worker(name, plan.pythons.get(name), patience=plan.patience) for name in plan.backends]
    threads = ThreadPoolExecutor(max(len(workers), 1))
    try:
        progress(0.0, "starting " + ", ".join(plan.backends))
        list(threads.map(lambda worker: _start(worker, plan, report), workers))
        if plan.case is not None and plan.case.Y is not None:
            _judge_file(plan, report, plan.case)
        for trial, share in plan.trials():
            progress(share, trial.name)
            ready = [worker for worker in workers if _takes(worker, trial)]
            answers = dict(zip(ready, threads.map(lambda worker: _ask(worker, trial), ready), strict=True))  # noqa: B023
            _judge(plan, report, trial, answers)
            report.trials += 1
        for worker in workers:
            if worker.failure and worker.name not in report.absent:
                report.failed[worker.name] = worker.failure
        progress(1.0, "done")
    finally:
        for worker in workers:
            worker.stop()
        threads.shutdown()
    report.seconds = time.monotonic() - start
    return report


def _start(worker: Worker, plan: RunPlan, report: Report) -> None:
    try:
        worker.start()
        report.versions[worker.name] = worker.facts["versions"]
    except WorkerFailed:
        if worker.facts.get("kind") == _ABSENT and worker.name not in plan.required:
            report.absent[worker.name] = str(worker.failure)


def _takes(worker: Worker, trial: Trial) -> bool:
    facts = worker.facts
    return worker.failure is None and not trial.ruled_out(facts["dtypes"], facts["autograd"])


def _ask(worker: Worker, trial: Trial) -> dict[str, np.ndarray] | ConvlabError:
    try:
        return worker.ask(trial.request, trial.arrays, trial.name)
    except ConvlabError as error:
        return error


def _judge(plan: RunPlan, report: Report, trial: Trial, answers: dict[Worker, Any]) -> None:
    for worker, answer in answers.items():
        if isinstance(answer, WorkerFailed):
            continue
        for quantity in trial.truth:
            cell = report.cells.setdefault((trial.tier, worker.name, quantity), Cell())
            cell.trials += 1
            result = None if isinstance(answer, ConvlabError) else answer.get(quantity)
            ratios = np.array(np.inf) if result is None else trial.ratios(quantity, result)
            worst = float(ratios.max(initial=0.0))
            cell.worst = max(cell.worst, worst)
            if worst > 1:
                cell.failed += 1
                command = plan.command(worker.name, only=trial.name)
                if result is not None:
                    message = trial.explain(quantity, result, ratios)
                else:
                    message = str(answer) if isinstance(answer, ConvlabError) else "the answer lacks this result"
                image = None if result is None else _worst_image(trial, ratios)
                failure = Failure(worker.name, trial.name, trial.tier, quantity, worst, message, command, image)
                _add(report, failure)
    if trial.tier == "bounded":
        _compare(report, trial, {worker.name: a for worker, a in answers.items() if isinstance(a, dict)})


def _add(report: Report, failure: Failure) -> None:
    report.wrong += 1
    kind = failure.backend, failure.tier, failure.quantity
    alike = sum((each.backend, each.tier, each.quantity) == kind for each in report.failures)
    if alike < _ALIKE and len(report.failures) < _SHOWN:
        report.failures.append(failure)


def _compare(report: Report, trial: Trial, answers: dict[str, dict[str, np.ndarray]]) -> None:
    for (a, first), (b, second) in itertools.combinations(sorted(answers.items()), 2):
        for quantity, (value, bound, overflow) in trial.truth.items():
            if not (quantity in first and quantity in second):
                continue
            if first[quantity].shape == second[quantity].shape == value.shape:
                apart = float(error_ratios(first[quantity], second[quantity], bound, overflow).max(initial=0.0))
                report.pairs[a, b] = max(report.pairs.get((a, b), 0.0), apart)


def _judge_file(plan: RunPlan, report: Report, case: Case) -> None:
    """Compare the result that came with the user's file with the truth."""
    trial = next(each for each in fixed_trials(case))
    assert case.Y is not None
    ratios = trial.ratios("result", case.Y)
    worst = float(ratios.max(initial=0.0))
    report.cells["bounded", "your Y", "result"] = Cell(1, int(worst > 1), worst)
    if worst > 1:
        message = trial.explain("result", case.Y, ratios)
        image = _worst_image(trial, ratios) if ratios.shape == case.Y.shape else None
        command = plan.command(only=trial.name)
        _add(report, Failure("your Y", trial.name, "bounded", "result", worst, message, command, image))


def _worst_image(trial: Trial, ratios: np.ndarray) -> np.ndarray:
    """The errors of the image, or of the kernel's channel, in which the worst one is."""
    channels_last = data_format(trial.options.get("data_format")) == "NHWC"
    if channels_last and trial.task == "forward" and ratios.ndim > 2:
        ratios = np.moveaxis(ratios, -1, -3)
    elif channels_last and ratios.ndim == 4:
        ratios = np.moveaxis(ratios, (2, 3), (0, 1))
    flat = np.atleast_2d(ratios)
    flat = flat.reshape(-1, *flat.shape[-2:])
    return flat[int(flat.max((1, 2)).argmax())] if flat.size else flat.reshape(0, 0)
