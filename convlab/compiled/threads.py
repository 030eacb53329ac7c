"""Work split over threads, each of which runs kernels that don't hold the interpreter's lock."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ..errors import GeometryError

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor


class _Limit(threading.local):
    number: int | None = None


_limit = _Limit()


@contextlib.contextmanager
def limited(number: int) -> Iterator[None]:
    """Within the block, this thread shares its work among at most `number` threads, itself one of them.

    >>> with limited(1):
    ...     count()
    1
    """
    before, _limit.number = _limit.number, number
    try:
        yield
    finally:
        _limit.number = before


def count() -> int:
    """How many threads to use: all that are available, or at most as many as `limited` allows."""
    limit = _limit.number
    return available() if limit is None else min(limit, available())


def available() -> int:
    """The number of processors this process may run on, or CONVLAB_NUM_THREADS."""
    setting = os.environ.get("CONVLAB_NUM_THREADS")
    if setting:
        if not setting.isdecimal() or int(setting) < 1:
            raise GeometryError(
                f"CONVLAB_NUM_THREADS: got {setting!r}, expected a positive int.",
                hint="unset it to use all processors.",
            )
        return int(setting)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(work: Callable[[int, int], object], items: int, chunk: int) -> None:
    """Call work(start, stop) for the chunks of range(items), each in the next thread that is free.

    The calling thread takes part, so that it never waits for a chunk that no thread has begun, even if the other
    threads are busy elsewhere. An exception in any of them is raised here, once all have stopped.
    """
    helpers = min(count(), -(-items // chunk)) - 1
    if helpers < 1:
        work(0, items)
        return
    starts, lock = iter(range(0, items, chunk)), threading.Lock()

    def drain() -> None:
        while True:
            with lock:
                start = next(starts, None)
            if start is None:
                return
            work(start, min(start + chunk, items))

    futures = _submit(drain, helpers)
    try:
        drain()
    finally:
        errors = [future.exception() for future in futures if not future.cancel()]
    for error in errors:
        if error is not None:
            raise error


def _submit(drain: Callable[[], None], helpers: int) -> list[Future[None]]:
    """Start `drain` in so many threads. While the interpreter shuts down there are none: the caller drains alone."""
    futures = []
    with contextlib.suppress(RuntimeError):
        for _ in range(helpers):
            futures.append(_pool(helpers).submit(drain))
    return futures


@functools.cache
def _pool(helpers: int) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # deferred: importing it takes a while

    return ThreadPoolExecutor(helpers, thread_name_prefix="convlab")


# A forked child has its parent's pools, but none of their threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
