"""The handler by which XLA's programs on a CPU call the compiled kernels, without the interpreter.

XLA calls it with a frame, whose fields (jaxlib/include/xla/ffi/api/c_api.h, a stable interface) are copied here. The
handler runs the stages of a program (`convlab.compiled.stages`), which is the call's only attribute, and shares their
work among the threads of XLA's own pool. Whoever takes the next chunk computes it; the calling thread takes part, and
in the end waits only for chunks that others have begun. A task that starts later finds nothing to do; so a job is kept
until its last task has seen it.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from typing import TYPE_CHECKING, Any

import llvmlite.binding
import numpy as np

from convlab.compiled import stages
from convlab.compiled.disk_cache import c_function
from convlab.compiled.pointers import (
    CHUNK,
    CLEAR,
    DONE,
    FUNCTION,
    HEADER,
    ITEMS,
    JOB,
    KIND,
    NEXT,
    OTHERWISE,
    SOUND,
    SPACE,
    STAGE,
    UNSOUND,
    USERS,
    A,
    B,
    C,
    Y,
    allocate,
    call,
    fetch_add,
    integers,
    pointer,
    release,
    symbol,
)
from convlab.compiled.vectors import kernel

if TYPE_CHECKING:  # numba's type hints are incomplete
    numba: Any
else:
    import numba

# The version of the interface that has all that is used here.
_MAJOR, _MINOR = 0, 1
_METADATA, _EXECUTE, _FLOAT64, _FAILED_PRECONDITION = 1, 3, 12, 9
# Where the functions of `XLA_FFI_Api` begin, and which of them are used.
_FUNCTIONS, _ERROR_CREATE, _ERROR_DESTROY, _SCHEDULE = 48, 0, 2, 11


def _struct(**fields: Any) -> np.dtype[Any]:
    """A struct of C, in which each field without a type is 8 bytes."""
    return np.dtype([(name, kind or np.int64) for name, kind in fields.items()], align=True)


_INT = np.int32
_VERSION_STRUCT = _struct(size=0, extension=0, major=_INT, minor=_INT)
_METADATA_STRUCT = _struct(size=0, version=_VERSION_STRUCT, traits=_INT)
_EXTENSION_STRUCT = _struct(size=0, type=_INT, next=0, metadata=0)
_BUFFER_STRUCT = _struct(size=0, extension=0, dtype=_INT, data=0, rank=0, dims=0)
_ARRAY_STRUCT = _struct(dtype=_INT, size=0, data=0)
_LIST_STRUCT = _struct(size=0, extension=0, count=0, types=0, values=0)
_ATTRIBUTES_STRUCT = _struct(size=0, extension=0, count=0, types=0, names=0, values=0)
_FRAME_STRUCT = _struct(
    size=0, extension=0, api=0, context=0, stage=_INT,
    arguments=_LIST_STRUCT, results=_LIST_STRUCT, attributes=_ATTRIBUTES_STRUCT,
)  # fmt: skip

# What the handler finds by the symbol of this name, and where in it: the functions that share work, that let other
# threads run, and that ask for large pages (0 where there are none); what to say if a stage is missing; and the stages'
# functions, each for float32 and for float64.
_SYMBOL = "convlab_jax"
_TASK, _YIELD, _ADVISE, _MESSAGE, _STAGES = range(5)
_table = symbol(_SYMBOL)
_addresses = np.zeros(_STAGES + 2 * len(stages.FUNCTIONS), np.int64)
_message = ctypes.create_string_buffer(
    b"convlab: a program was loaded that another process has compiled. Hint: jit the function in this process."
)
# A job's own copies of numbers of its stage, which late tasks mustn't read.
_ITEMS, _CHUNK, _SIZE = JOB, JOB + 1, JOB + 2
_TARGET = "convlab"
# Linux's advice for large pages, and the bytes of memory from which they pay: without them, the kernel's first touch of
# XLA's new memory takes as long as a small correlation.
_HUGE_PAGES, _LARGE, _PAGE = 14, 2**22, 4096
_lock = threading.Lock()
# `jax.ffi.pycapsule` gives `ctypes.pythonapi.PyCapsule_New`, which MXNet calls too, other types for the whole process.
_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)


@functools.cache
def registered() -> str:
    """The name by which XLA knows the handler.

    Raises:
        Exception: this XLA or this system has another interface.
    """
    import jax

    with _lock:
        llvmlite.binding.add_symbol(_SYMBOL, _addresses.ctypes.data)
        system = ctypes.CDLL(None)
        _addresses[_YIELD] = ctypes.cast(system.sched_yield, ctypes.c_void_p).value or 0
        if sys.platform == "linux":
            _addresses[_ADVISE] = ctypes.cast(system.madvise, ctypes.c_void_p).value or 0
        _addresses[_MESSAGE] = ctypes.addressof(_message)
        _addresses[_TASK] = _c_functions()[0].address
        handler = ctypes.c_void_p(_c_functions()[1].address)
        jax.ffi.register_ffi_target(_TARGET, _capsule(handler, None, None), platform="cpu")
    return _TARGET


@functools.cache
def _c_functions() -> tuple[Any, Any]:
    return c_function("void(int64)")(_help), c_function("int64(int64)")(_handle)


def prepare(program: stages.Program, dtype: str) -> None:
    """Compile the functions of a program's stages, unless they are compiled."""
    for kind in program.kinds:
        _addresses[_place(kind, dtype == "float64")] = stages.address(kind, dtype)


def _handle(address: int) -> int:
    """XLA's call with the address of a frame; returns 0, or the address of an error."""
    frame = _record(address, _FRAME_STRUCT)
    if frame.extension and _record(frame.extension, _EXTENSION_STRUCT).type == _METADATA:
        metadata = _record(_record(frame.extension, _EXTENSION_STRUCT).metadata, _METADATA_STRUCT)
        metadata.version.major, metadata.version.minor, metadata.traits = _MAJOR, _MINOR, 0
        return 0
    if frame.stage != _EXECUTE:
        return 0
    # The stages of a program with fewer inputs don't look at the others.
    last = frame.arguments.count - 1
    a, b, c = _buffer(frame.arguments, 0), _buffer(frame.arguments, min(1, last)), _buffer(frame.arguments, last)
    y, space = _buffer(frame.results, 0), _buffer(frame.results, 1)
    numbers = _record(integers(frame.attributes.values, 1)[0], _ARRAY_STRUCT).data
    most, program, wide = integers(numbers, 1)[0], numbers + 8, int(a.dtype == _FLOAT64)
    _advise(y, 8 if y.dtype == _FLOAT64 else 4)
    count, index = integers(program, 1)[0], 0
    while index < count:
        stage = program + 8 * integers(program + 8, count)[index]
        header = integers(stage, HEADER)
        function = integers(_table(), len(_addresses))[_place(header[KIND], wide)]
        if not function:
            return _error(frame.api)
        integers(space.data, header[CLEAR])[:] = 0
        job = allocate(8 * _SIZE)
        entries = integers(job, _SIZE)
        entries[:] = 0
        entries[FUNCTION], entries[STAGE], entries[_ITEMS], entries[_CHUNK] = (
            function,
            stage,
            header[ITEMS],
            header[CHUNK],
        )
        entries[A], entries[B], entries[C] = a.data, b.data, c.data
        entries[Y], entries[SPACE] = y.data, space.data
        sound = _shared(frame.api, frame.context, job, most)
        index += header[SOUND] if sound else header[OTHERWISE]
    return 0


@kernel
def _advise(buffer: Any, itemsize: int) -> None:
    """Ask for large pages for a large buffer."""
    size = integers(buffer.dims, buffer.rank).prod() * itemsize
    advise = integers(_table(), _STAGES)[_ADVISE]
    if advise and size >= _LARGE:
        start = -(-buffer.data // _PAGE) * _PAGE
        call(advise, (start, (buffer.data + size - start) // _PAGE * _PAGE, _HUGE_PAGES))


@kernel
def _shared(api: int, context: int, job: int, most: int) -> bool:
    """Compute all of a job on at most so many threads; whether the result is sound."""
    entries, addresses = integers(job, _SIZE), integers(_table(), _STAGES)
    chunks = -(-entries[_ITEMS] // entries[_CHUNK])
    helpers, functions = min(most, chunks) - 1, integers(api + _FUNCTIONS, _SCHEDULE + 1)
    entries[USERS] = 1 + max(helpers, 0)
    for _ in range(helpers):
        # size, extension, context, task, data
        order = np.array([40, 0, context, addresses[_TASK], job])
        error = call(functions[_SCHEDULE], (order.ctypes.data,))
        if error:
            # size, extension, error
            refusal = np.array([24, 0, error])
            call(functions[_ERROR_DESTROY], (refusal.ctypes.data,))
            fetch_add(job + 8 * USERS, -1)
    _drain(job)
    while fetch_add(job + 8 * DONE, 0) < chunks:
        call(addresses[_YIELD], ())
    sound = bool(entries[UNSOUND] == 0)
    _leave(job)
    return sound


def _help(job: int) -> None:
    """A task of XLA's pool."""
    _drain(job)
    _leave(job)


@kernel
def _drain(job: int) -> None:
    """Compute the job's next chunk until there is none."""
    entries = integers(job, _SIZE)
    items, chunk = entries[_ITEMS], entries[_CHUNK]
    start = fetch_add(job + 8 * NEXT, chunk)
    while start < items:
        if call(entries[FUNCTION], (entries[A], job, start, min(start + chunk, items))):
            fetch_add(job + 8 * UNSOUND, 1)
        fetch_add(job + 8 * DONE, 1)
        start = fetch_add(job + 8 * NEXT, chunk)


@kernel
def _leave(job: int) -> None:
    """Forget the job; the last to leave frees its memory."""
    if fetch_add(job + 8 * USERS, -1) == 1:
        release(job)


@kernel
def _error(api: int) -> int:
    """XLA's error for a program whose functions aren't compiled in this process."""
    message = integers(_table(), _STAGES)[_MESSAGE]
    # size, extension, message, code
    error = np.array([28, 0, message, _FAILED_PRECONDITION])
    return int(call(integers(api + _FUNCTIONS, 1)[_ERROR_CREATE], (error.ctypes.data,)))


@kernel
def _buffer(buffers: Any, index: int) -> Any:
    """The buffer of this index in a list of arguments or results."""
    return _record(integers(buffers.values, buffers.count)[index], _BUFFER_STRUCT)


@kernel
def _record(address: int, kind: Any) -> Any:
    """The struct at an address."""
    return numba.carray(pointer(address), (1,), kind)[0]


@kernel
def _place(kind: int, wide: int) -> int:
    """Where the function of a stage is among the addresses."""
    return _STAGES + 2 * kind + wide
