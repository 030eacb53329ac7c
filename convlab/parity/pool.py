"""Worker processes: how they are started, asked and stopped. Each failure has a reason."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from typing import Any, NoReturn

import numpy as np

from ..errors import ConvlabError
from .wire import receive, send

Answer = tuple[dict[str, Any], dict[str, np.ndarray]]


class WorkerFailed(ConvlabError):
    """A worker can't go on; the message is the reason."""


class Worker:
    """One backend in a process of its own, in this environment or in that of another Python.

    Attributes:
        name: the backend's name.
        facts: what it said about itself: "dtypes", "autograd", "versions".
        failure: why it can't go on; None if it can.
        arguments: of the Python.
        needs: what must be installed there beside convlab.
    """

    def __init__(self, name: str, python: str | None = None, *, patience: float = 120.0) -> None:
        self.name, self.python, self.patience = name, python, patience
        self.arguments, self.needs = ["-m", "convlab.parity.worker", name], name
        self.facts: dict[str, Any] = {}
        self.failure: str | None = None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self._answers: queue.Queue[Answer | Exception] = queue.Queue()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and wait until it has said what it is."""
        # A test run sets warnings filters, which the worker must not have. JAX must not take all GPU memory at once.
        env = {**os.environ, "PYTHONWARNINGS": "ignore", "TF_CPP_MIN_LOG_LEVEL": "3"}
        env.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        command = [self.python or sys.executable, *self.arguments]
        pipe = subprocess.PIPE
        try:
            # The worker has a session of its own, so that it isn't interrupted when the user interrupts convlab.
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=self._said, env=env, start_new_session=True
            )
        except OSError as error:
            self._fail(f"{command[0]} can't be run as a Python ({error.strerror}).")
        threading.Thread(target=self._listen, daemon=True).start()
        message, _ = self._next("while it was loading")
        self.facts = message
        if "error" in message or message.get("hello") != self.name:
            self._fail(str(message.get("error", f"it answered for {message.get('hello')!r}.")))
        if not self.is_greeting(message):
            self._fail("its greeting isn't what wire.py says.")

    def is_greeting(self, message: dict[str, Any]) -> bool:
        """Whether a message says what the worker must say of itself."""
        dtypes, versions = message.get("dtypes"), message.get("versions")
        texts = isinstance(dtypes, list) and all(isinstance(each, str) for each in dtypes)
        known = isinstance(versions, dict) and all(isinstance(each, str) for each in versions.values())
        return texts and known and isinstance(message.get("autograd"), bool)

    def ask(self, request: dict[str, Any], arrays: dict[str, np.ndarray], what: str) -> dict[str, np.ndarray]:
        """Ask for something; the answer's arrays come back.

        Raises:
            WorkerFailed: it died, hung, gave no valid answer or ran out of memory, and was stopped.
            ConvlabError: it reported an error and goes on.
        """
        if self.failure is not None:
            raise WorkerFailed(f"{self.name}: {self.failure}")
        assert self._process is not None
        assert self._process.stdin is not None
        # A worker that hangs doesn't read either, so a thread writes.
        writer = threading.Thread(target=_send, args=(self._process.stdin, request, arrays), daemon=True)
        writer.start()
        message, results = self._next(f"in {what}")
        if message.get("kind") == "MemoryError":
            self._fail(f"it ran out of memory in {what}.")
        if "error" in message:
            raise ConvlabError(str(message["error"]))
        if any(array.dtype.kind not in "biuf" for array in results.values()):
            self._fail(f"it answered with something else than numbers in {what}.")
        return results

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):  # The last request can't be delivered any more.
                    pipe.close()
        self._said.close()

    def _kill(self) -> None:
        """Kill the process and whatever it has started: a wrapper's child would hold the pipes open."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while True:
            try:
                self._answers.put(receive(self._process.stdout))
            except Exception as error:
                self._answers.put(error)
                return

    def _next(self, when: str) -> Answer:
        try:
            answer = self._answers.get(timeout=self.patience)
        except queue.Empty:
            self._fail(f"it gave no answer within {self.patience:g} s {when}.")
        if isinstance(answer, tuple):
            return answer
        reason = f"it {self._end()} {when}." if isinstance(answer, EOFError) else str(answer)
        return self._fail(reason + self._last_words())

    def _end(self) -> str:
        assert self._process is not None
        try:
            status = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        if status >= 0:
            return f"ended with status {status}"
        memory = " (out of memory?)" if -status == signal.SIGKILL else ""
        return f"was killed by {signal.Signals(-status).name}{memory}"

    def _last_words(self) -> str:
        """The last line of what it wrote to stderr."""
        self._said.seek(0, os.SEEK_END)
        self._said.seek(max(self._said.tell() - 4096, 0))
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        said = f" It said: {lines[-1][:300]}" if lines else ""
        if "ModuleNotFoundError" in said and self.python is not None:
            said += f" Hint: that Python needs convlab and {self.needs}: {self.python} -m pip install …"
        return said

    def _fail(self, reason: str) -> NoReturn:
        self.failure = reason
        self._kill()
        raise WorkerFailed(f"{self.name}: {reason}")


def _send(stream: Any, request: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    with contextlib.suppress(OSError, ValueError):  # The worker is gone; `Worker._end` tells why.
        send(stream, request, arrays)
