"""Which files are filtered, and into which."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .photograph import ImageError
from .writing import check_suffix, written_format


class Job(NamedTuple):
    """One image file and the file into which it is filtered."""

    source: Path
    target: Path


class Jobs(NamedTuple):
    """What is to be done, the other files of the folders, and the folder of the targets if they have one."""

    jobs: list[Job]
    others: list[Path]
    folder: Path | None


def plan_jobs(
    inputs: Sequence[Path], output: str, *, recursive: bool = False, suffix: str = "", dtype: str = ""
) -> Jobs:
    """The jobs for files, folders and patterns such as "photos/*.jpg".

    A path that exists is taken as it is, whatever characters it has. A folder stands for the images in it of formats
    that are read and written, hidden files and the output left out; with `recursive` its folders are gone through too,
    and their names kept below the output. Several images, a folder, a pattern, and an output with a slash at its end
    are filtered into a folder, under their own names; `suffix` changes the end of each. Each format must hold the
    `dtype`, if there is one.

    Raises:
        ImageError: an unknown format, or an output that can't be made, that two images would be written to, or that
            is one of the inputs. Nothing was made then.
    """
    into_folder = len(inputs) > 1 or output.endswith(("/", os.sep)) or Path(output).is_dir()
    folder = Path(output)
    end = suffix if suffix.startswith(".") or not suffix else f".{suffix}"
    sources: dict[Path, Path] = {}
    others: list[Path] = []
    for path in inputs:
        if path.is_dir():
            into_folder = True
            files = list(_walk(path, folder, recursive))
            images = [file for file in files if _is_read(file) and (end or written_format(file))]
            others += sorted({*files} - {*images})
            if not images:
                only = f", only {suffixes(others)}" if others else ""
                raise ImageError(
                    f"{path}: no image in this folder{only}.", hint="--recursive also looks into its folders."
                )
            sources |= {image: image.relative_to(path) for image in images}
        elif not path.exists() and glob.has_magic(str(path)):
            into_folder = True
            images = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if not Path(name).is_dir()]
            if not images:
                raise ImageError(f"{path}: no file matches.", hint="quote the pattern, and check the path.")
            sources |= {image: Path(image.name) for image in images}
        else:
            sources[path] = Path(path.name)
    if into_folder and folder.exists() and not folder.is_dir():
        raise ImageError(
            f"{folder}: is a file, expected a folder for {len(sources)} images.", hint="name another output."
        )
    jobs = [Job(source, folder / name if into_folder else folder) for source, name in sources.items()]
    if end:
        jobs = [Job(source, target.with_suffix(end)) for source, target in jobs]
    elif into_folder:
        _check_own_formats(sources)
    _check(jobs, dtype)
    _check_creatable(folder if into_folder else folder.parent)
    return Jobs(jobs, others, folder if into_folder else None)


def suffixes(files: Iterable[Path]) -> str:
    """The suffixes of files, for a line to the user.

    >>> suffixes([Path("notes.txt"), Path("IMG_1.HEIC"), Path("IMG_2.heic"), Path("LICENSE")])
    '.heic, .txt, LICENSE'
    """
    return ", ".join(sorted({file.suffix.lower() or file.name for file in files}))


def _walk(folder: Path, output: Path, recursive: bool) -> Iterator[Path]:
    """The files of a folder in the order of their names, without hidden ones and without the output."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if not path.is_dir():
            yield path
        elif recursive and path.suffix.lower() != ".zarr" and path.resolve() != output.resolve():
            yield from _walk(path, output, recursive)


# Pillow opens such files and shows no picture of them.
_NO_PICTURES = ("MPEG", "BUFR", "GRIB", "HDF5", "WMF")


def _is_read(path: Path) -> bool:
    from PIL import Image

    suffix = path.suffix.lower()
    form = Image.registered_extensions().get(suffix)
    return suffix == ".npy" or (form in Image.OPEN and form not in _NO_PICTURES)


def _check_own_formats(sources: Iterable[Path]) -> None:
    """Refuse images that are to be written in a format of their own that convlab doesn't write."""
    for source in sources:
        if not written_format(source):
            suffix = source.suffix.lower() or "no suffix"
            got = f"{suffix} is read and not written" if _is_read(source) else f"not a photograph, got {suffix}"
            raise ImageError(f"{source}: {got}.", hint="--suffix .png writes each image as a PNG.")


def _check(jobs: list[Job], dtype: str) -> None:
    """Refuse targets of unknown formats, targets of two images, and targets that are inputs."""
    for job in jobs:
        check_suffix(job.target, dtype)
    places = [os.path.realpath(job.target) for job in jobs]
    place, number = Counter(places).most_common(1)[0]
    if number > 1:
        names = [str(job.source) for job, other in zip(jobs, places, strict=True) if other == place]
        raise ImageError(
            f"{place}: two images would be written to one file: {names[0]} and {names[1]}.",
            hint="filter them into folders of their own.",
        )
    inputs = {os.path.realpath(job.source) for job in jobs}
    for job, place in zip(jobs, places, strict=True):
        if place in inputs:
            raise ImageError(f"{job.target}: is an input, which would be overwritten.", hint="name another output.")


def _check_creatable(folder: Path) -> None:
    """Refuse a folder that can't be made or written to."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise ImageError(f"{folder}: {there} is a file, expected a folder.", hint="choose another output.")
    if not os.access(there, os.W_OK):
        raise ImageError(f"{folder}: the folder {there} can't be written to.", hint="choose another output.")
