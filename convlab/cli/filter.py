"""`convlab filter`: photographs, and images larger than memory."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..compiled import threads
from ..errors import ConvlabError, GeometryError
from ..lab import backend
from ..registry import default_backend, pip_command
from .quiet import quiet
from .terminal import BAD_INPUT, INTERRUPTED, fail, progress_bar, say

if TYPE_CHECKING:
    from ..images.filtering import Filter
    from ..images.folders import Job, Jobs
    from ..images.photographs import Filtered

# More photographs at a time would only take memory.
_MOST_THREADS = 16


def filter_images(
    images: Annotated[
        list[str],
        typer.Argument(help="Photographs, folders of them, patterns such as 'photos/*.jpg', .npy arrays; or a .zarr."),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", help="A file; a folder for several images; or a .zarr. Folders are made.")
    ],
    name: Annotated[
        str,
        typer.Option("--filter", "-f", help="edge:<degrees>, derivative:<order>, box:<size>, gaussian:<sigma>, …"),
    ] = "",
    kernel: Annotated[
        Path | None, typer.Option(help="Instead of --filter: a kernel as .npy or as text, a row a line.")
    ] = None,
    on: Annotated[str, typer.Option("--backend", "-b", help="The framework that computes.")] = "",
    border: Annotated[str, typer.Option(help="What lies beyond the border, as corr2d's padding_mode.")] = "reflect",
    border_value: Annotated[float, typer.Option(help="The value beyond the border with --border constant.")] = 0.0,
    signed: Annotated[bool, typer.Option(help="Show an edge's sign around mid-grey, not its magnitude.")] = False,
    dtype: Annotated[str, typer.Option(help="Of the result: uint8, uint16, int16, int32, float32, float64.")] = "",
    scale: Annotated[float | None, typer.Option(help="Write response * scale + offset, with its sign.")] = None,
    offset: Annotated[float | None, typer.Option(help="See --scale.")] = None,
    suffix: Annotated[str, typer.Option(help="Write each image in this format, such as .tif.")] = "",
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of JPEG and AVIF.")] = 95,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Go through folders in folders.")] = False,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave outputs that exist as they are.")] = (
        False
    ),
) -> None:
    """Filter photographs, or an image larger than memory: find edges, take derivatives, blur or sharpen.

    An output that exists is replaced, an input never. Each file appears whole or not at all.
    """
    # Pillow keeps up to 16 blocks of 16 MiB for the next photograph: asking the system for them anew takes time.
    os.environ.setdefault("PILLOW_BLOCKS_MAX", "16")
    with _pillow_needed():
        from ..images.filtering import Filter
        from ..images.stores import is_store

        sources, target = [_path("images", text) for text in images], _path("--output", output)
        stores = is_store(target) or any(map(is_store, sources))
        with quiet():
            chosen = backend(on or default_backend()).name
        matrix = _kernel(name, kernel)
        try:
            work = Filter(matrix, chosen, border, border_value, signed, dtype or None, scale, offset)
        except GeometryError as error:
            # The attributes of a filter have the names of the options.
            attribute, _, rest = str(error).partition(":")
            raise GeometryError(f"--{attribute.replace('_', '-')}:{rest}") from error
        title = f"{name or kernel} on {chosen}"
        if stores:
            _filter_stores(sources, target, work, title)
            return
        from ..images.folders import plan_jobs

        plan = plan_jobs(sources, output, recursive=recursive, suffix=suffix, dtype=dtype)
        _filter_photographs(plan, work, title, quality, skip_existing)


def _path(option: str, text: str) -> Path:
    """A path, which must have a name: the shell makes nothing of a variable that isn't set."""
    if not text:
        fail(f"{option}: got an empty path, expected a file or a folder. Hint: is a variable of the shell not set?")
        raise typer.Exit(BAD_INPUT)
    return Path(text)


def _kernel(name: str, path: Path | None) -> Any:
    from ..filters import parse
    from ..images.kernel_file import read_kernel

    if bool(name) == (path is not None):
        got = "both" if name else "neither"
        fail(f"--filter, --kernel: got {got}, expected one of them. Hint: --filter edge:45 is an example.")
        raise typer.Exit(BAD_INPUT)
    return read_kernel(path) if path is not None else parse(name)


@contextmanager
def _pillow_needed() -> Iterator[None]:
    """Within the block, a missing Pillow is one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        if isinstance(error, ConvlabError):
            raise
        fail(f"photographs need Pillow. Hint: {pip_command('pillow', 'opencv-python-headless', 'tifffile')}")
        raise typer.Exit(BAD_INPUT) from None


def _filter_stores(images: list[Path], output: Path, work: Filter, title: str) -> None:
    if len(images) > 1:
        fail(f"{output}: got {len(images)} images, expected one for a store. Hint: filter them one by one.")
        raise typer.Exit(BAD_INPUT)
    try:
        from ..images.stores import filter_store

        with progress_bar() as progress:
            bar = progress.add_task(title, total=None)
            filter_store(
                images[0],
                output,
                work.kernel,
                work.backend,
                watch=lambda done, tasks: progress.update(bar, completed=done, total=tasks),
                **work.choices,
            )
    except ModuleNotFoundError as error:
        if isinstance(error, ConvlabError):
            raise
        wanted = pip_command("dask[array]", "zarr", "tifffile")
        fail(f"images larger than memory need Dask, Zarr and tifffile. Hint: {wanted}")
        raise typer.Exit(BAD_INPUT) from None
    say(f"wrote {output}")


@dataclass
class _Summary:
    """What has been done so far."""

    written: int = 0
    skipped: int = 0
    failed: int = 0
    clipped: int = 0
    numbers: int = 0
    notes: Counter[str] = field(default_factory=Counter)

    def line(self, plan: Jobs, interrupted: bool) -> str:
        """One line for the user."""
        from ..images.folders import suffixes

        jobs, target = plan.jobs, plan.folder or plan.jobs[0].target
        what = f"{self.written} of {_images(len(jobs))} to {target}" if plan.folder else str(target)
        parts = [f"wrote {what}" if self.written or plan.folder else f"{target} not written"]
        if interrupted:
            parts = [f"interrupted; {parts[0]}; --skip-existing goes on from here"]
        if self.skipped:
            parts.append(f"{self.skipped} existed")
        if self.failed:
            parts.append(f"{self.failed} failed")
        if plan.others:
            number = len(plan.others)
            parts.append(f"{number} other file{'s' * (number > 1)} left out ({suffixes(plan.others)})")
        if self.clipped:
            percent = f"{100 * self.clipped / self.numbers:.1f} %"
            parts.append(
                f"{'under 0.1 %' if percent == '0.0 %' else percent} of the values clipped (see --dtype, --scale)"
            )
        parts += [note if len(jobs) == 1 else f"{note} ({_images(number)})" for note, number in self.notes.items()]
        return "; ".join(parts)


def _images(number: int) -> str:
    return "1 image" if number == 1 else f"{number} images"


def _filter_photographs(plan: Jobs, work: Filter, title: str, quality: int, skip_existing: bool) -> None:
    from ..images.reading import unwarned

    jobs = [job for job in plan.jobs if not (skip_existing and job.target.exists())]
    summary, stop = _Summary(skipped=len(plan.jobs) - len(jobs)), threading.Event()
    number = max(1, min(len(jobs), threads.available(), _MOST_THREADS))
    run = _worker(work, quality, max(1, threads.available() // number), stop)
    interrupted = False
    with progress_bar() as progress, unwarned(), ThreadPoolExecutor(number) as pool:
        bar = progress.add_task(title, total=len(jobs))
        futures = {pool.submit(run, job): job for job in jobs}
        try:
            for future in futures:
                _count(future, summary)
                progress.advance(bar)
        except BaseException as error:
            # Files that are being written are finished or removed before the pool is left.
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            interrupted = isinstance(error, KeyboardInterrupt)
            if not interrupted:
                raise
    if interrupted:
        summary.written = sum(not future.cancelled() and future.exception() is None for future in futures)
    if interrupted or len(plan.jobs) > 1 or not summary.failed:
        say(summary.line(plan, interrupted))
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if summary.failed:
        raise typer.Exit(BAD_INPUT)


def _worker(work: Filter, quality: int, share: int, stop: threading.Event) -> Callable[[Job], Filtered]:
    """The function that filters one photograph in a thread of the pool."""
    from ..images.photographs import filter_photograph

    def watch() -> None:
        if stop.is_set():
            raise KeyboardInterrupt

    def run(job: Job) -> Filtered:
        watch()
        with threads.limited(share):
            return filter_photograph(job.source, job.target, work, quality, watch)

    return run


def _count(future: Future[Filtered], summary: _Summary) -> None:
    """Add an image that is done to the summary, or print why it failed."""
    try:
        clipped, numbers, notes = future.result()
    except (ConvlabError, MemoryError, OSError) as error:
        if isinstance(error, ModuleNotFoundError) and not isinstance(error, ConvlabError):
            raise
        fail(str(error) or "not enough memory. Hint: filter fewer images at a time, with CONVLAB_NUM_THREADS=1.")
        summary.failed += 1
        return
    summary.written += 1
    summary.clipped += clipped
    summary.numbers += numbers
    summary.notes.update(notes)
