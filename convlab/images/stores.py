"""Images larger than memory: Zarr stores and TIFF files, filtered into Zarr stores chunk by chunk through Dask.

It needs the extra `dask`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from ..atomic import whole
from ..compiled import threads
from ..errors import ConvlabError, ShapeError
from .filtering import FilterOptions, filter_image
from .photograph import check_dtype
from .writing import check_folder

if TYPE_CHECKING:
    import dask.array as da

# About how many pixels a side of a chunk has that is computed at once.
_SIDE = 2048
_TIFF = (".tif", ".tiff")


class StoreError(ConvlabError, OSError):
    """A Zarr store or a TIFF file that can't be read or written."""


def is_store(path: Path) -> bool:
    """Whether a path leads to a Zarr store, or to an array within one.

    >>> is_store(Path("big.zarr")), is_store(Path("pyramid.zarr/0")), is_store(Path("photo.png"))
    (True, True, False)
    """
    return any(part.suffix.lower() == ".zarr" for part in (path, *path.parents))


def open_image(path: str | Path) -> da.Array:
    """An image (H, W) or (H, W, C) as a lazy Dask array, in chunks of some four million pixels that fit the file's.

    Raises:
        StoreError: no such file, not a Zarr array or a TIFF image, or a damaged one.
        ImageError: a dtype that can't be filtered.
        ShapeError: another rank, or more than four channels.
    """
    import dask.array as da

    path = Path(path)
    if not path.exists():
        raise StoreError(f"{path}: no such file, expected a Zarr array or a TIFF image.", hint="check the path.")
    if not is_store(path) and path.suffix.lower() not in _TIFF:
        raise StoreError(
            f"{path}: got {path.suffix or 'no suffix'}, expected a Zarr array or a TIFF image.",
            hint="without .zarr in the output, photographs of other formats can be filtered.",
        )
    with _reading(path):
        stored = _open_zarr(path) if is_store(path) else _Tiff(path)
    shape = stored.shape
    if len(shape) not in (2, 3) or (len(shape) == 3 and not 1 <= shape[2] <= 4) or 0 in shape:
        raise ShapeError(
            f"{path}: got shape {shape}, expected an image (H, W), or (H, W, C) with up to four channels.",
            hint="convlab.corr2d takes any Dask array.",
        )
    check_dtype(path, stored.dtype)
    return da.from_array(stored, chunks=_chunks(shape, stored.chunks))


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Within the block, turn every error that the libraries raise while they read a file into a `StoreError`."""
    try:
        yield
    except (ConvlabError, ModuleNotFoundError):
        raise
    except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        reason = str(error).strip() or type(error).__name__
        raise StoreError(f"{path}: can't be read ({reason}).", hint="is it damaged, or a group of arrays?") from error


def _open_zarr(path: Path) -> Any:
    import zarr

    return zarr.open_array(store=str(path), mode="r")


class _Tiff:
    """The first image of a TIFF file, of a pyramid the largest, to be sliced.

    Each read opens the file, so that the object can be sent to other processes.
    """

    def __init__(self, path: Path) -> None:
        import tifffile

        self.path = str(path.absolute())
        with tifffile.TiffFile(path) as file:
            self.mapped, axes = file.series[0].dataoffset is not None, file.series[0].axes
        if axes == "SYX":
            raise StoreError(f"{path}: has its channels in planes, expected (H, W, C).", hint="save it interleaved.")
        with self._stored() as stored:
            self.shape, self.dtype, self.ndim = stored.shape, stored.dtype, stored.ndim
            self.chunks = (1,) * self.ndim if self.mapped else stored.chunks

    @contextlib.contextmanager
    def _stored(self) -> Iterator[Any]:
        import tifffile
        import zarr

        if self.mapped:
            # The image is neither compressed nor in tiles, so that it can be read in place.
            yield tifffile.memmap(self.path, mode="r")
            return
        with tifffile.imread(self.path, aszarr=True, level=0) as store:
            yield zarr.open_array(store=store, mode="r")

    def __getitem__(self, index: Any) -> np.ndarray:
        with self._stored() as stored:
            return np.array(stored[index])


def _chunks(shape: tuple[int, ...], grid: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of chunks that are multiples of the chunks on disk.

    >>> _chunks((10_000, 10_000, 3), (512, 512, 1)), _chunks((50_000, 100_000), (1, 100_000))
    ((2048, 2048, 3), (41, 100000))
    """
    columns = min(max(grid[1], _SIDE // grid[1] * grid[1]), shape[1])
    rows = max(grid[0], _SIDE**2 // columns // grid[0] * grid[0])
    return (min(rows, shape[0]), columns, *shape[2:])


def filter_store(
    source: Path,
    target: Path,
    kernel: np.ndarray,
    name: str,
    *,
    watch: Callable[[int, int], object] = lambda done, tasks: None,
    **choices: Unpack[FilterOptions],
) -> None:
    """Filter a Zarr array or a TIFF image into a new Zarr array, as `filter_image` does a photograph.

    The store appears whole or not at all; its chunks are the source's. `watch` is called with the number of tasks that
    are done and the number of all tasks.

    Raises:
        StoreError: a source that can't be read, or a target that exists already or can't be written.
        ShapeError: a source that isn't an image.
    """
    import dask.array as da
    import zarr

    if not is_store(target):
        raise StoreError(
            f"{target}: got {target.suffix or 'no suffix'}, expected .zarr: a store is filtered into another store.",
            hint="-o filtered.zarr is an example.",
        )
    if target.exists():
        raise StoreError(f"{target}: exists already, and stores aren't overwritten.", hint="choose another name.")
    if source.resolve() in target.resolve().parents:
        raise StoreError(f"{target}: lies inside {source}, expected a place of its own.", hint="choose another folder.")
    check_folder(target)
    image = open_image(source)
    # With the image's own chunks, no two tasks write to one chunk of the store.
    result = filter_image(image, kernel, name, **choices).rechunk(image.chunks)
    grid, version = image.chunksize, 3
    if is_store(source):
        stored = _open_zarr(source)
        grid, version = stored.chunks, stored.metadata.zarr_format
    # Our own pool waits for its threads. Dask's would leave them writing after an error.
    with whole(target) as part, ThreadPoolExecutor(threads.available()) as pool, _reading(source), _watched(watch):
        options: dict[str, Any] = {"dtype": result.dtype, "zarr_format": version}
        array = zarr.create_array(store=str(part), shape=result.shape, chunks=grid, **options)
        da.store(result, array, lock=False, scheduler="threads", pool=pool)


@contextlib.contextmanager
def _watched(watch: Callable[[int, int], object]) -> Iterator[None]:
    """Within the block, tell `watch` of each task that Dask has done."""
    from dask.callbacks import Callback

    tasks = done = 0

    def begin(graph: Any, state: Any) -> None:
        nonlocal tasks
        tasks = len(state["ready"]) + len(state["waiting"])

    def advance(*task: Any) -> None:
        nonlocal done
        done += 1
        watch(done, tasks)

    with Callback(start_state=begin, posttask=advance):
        yield
