"""Checkpoints of `learn_kernel`: a safetensors file with the numbers, and in its metadata JSON that says of what.

A file holds the state of a run at one moment and is replaced as a whole, so that a run that is killed goes on from the
last one with the same bits. Whoever reads it needs safetensors and nothing of convlab's: the metadata's entry "convlab"
is a JSON object with "version", "problem" (what was learned, by which method, from which images), "done" (images read)
and "steps".
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import whole
from ..errors import CheckpointError

VERSION = 1


class Checkpoint:
    """A checkpoint file of one problem.

    Attributes:
        every: steps between two saves.
        arrays, losses: what the file held; empty if there was none.
        done: how many pairs of images had been read, and what they were.
    """

    def __init__(self, path: Any, every: int, problem: dict[str, Any]) -> None:
        self.every, self.problem = every, json.loads(json.dumps(problem))
        self.arrays: dict[str, np.ndarray] = {}
        self.losses: list[float] = []
        self.done, self.digest = 0, ""
        try:
            self.path = Path(path)
            with tempfile.TemporaryFile(dir=self.path.parent):
                there = self.path.exists()
        except (OSError, TypeError) as error:
            raise CheckpointError(
                f"checkpoint: got {path!r}, expected a file in an existing folder that can be written to ({error}).",
                hint="make the folder, or give another.",
            ) from error
        if self.path.is_dir():
            raise CheckpointError(
                f"checkpoint: got {str(path)!r}, a folder, expected a file.", hint="name a file in it."
            )
        if there:
            self._load()

    def _load(self) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, "np") as file:
                found = json.loads(file.metadata()["convlab"])
                self.arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            version, problem = found["version"], dict(found["problem"])
            self.done, self.digest, self.losses = found["done"], found["digest"], self.arrays.pop("losses").tolist()
            if (type(self.done), type(self.digest), type(self.losses)) != (int, str, list):
                raise ValueError("what it says of itself is of another kind")
        except (SafetensorError, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise CheckpointError(
                f"checkpoint: {str(self.path)!r} isn't a checkpoint of convlab's ({type(error).__name__}: {error}).",
                hint="give another path; this file is left as it is.",
            ) from error
        if version != VERSION:
            raise CheckpointError(
                f"checkpoint: {str(self.path)!r} has version {version}, expected {VERSION}.", hint="start a new one."
            )
        other = [f"{k} {problem.get(k)!r}, expected {v!r}" for k, v in self.problem.items() if problem.get(k) != v]
        if other:
            raise CheckpointError(
                f"checkpoint: {str(self.path)!r} is of another problem: got {'; '.join(other)}.",
                hint="give another path, or the arguments that it was begun with.",
            )

    def begin(self, count: int, digest: str) -> None:
        """All images at once: compare them with the file's, or note them."""
        if self.done and (count, digest) != (self.done, self.digest):
            self._refuse()
        self.done, self.digest = count, digest

    def known(self, count: int, digest: str) -> bool:
        """Whether the file has counted the image of this number; `digest` is that of all up to it."""
        if count == self.done and digest != self.digest:
            self._refuse()
        return count <= self.done

    def read(self, count: int, digest: str, arrays: dict[str, np.ndarray]) -> None:
        """Note that so many images are counted in `arrays`."""
        if self.losses:  # steps have been taken without this one
            self._refuse()
        self.done, self.digest, self.arrays = count, digest, arrays
        self.save({})

    def finish(self, count: int) -> None:
        """All images have been read."""
        if count < self.done:
            self._refuse()

    def _refuse(self) -> None:
        raise CheckpointError(
            f"checkpoint: {str(self.path)!r} was begun with other images.",
            hint="give another path, or the same images in the same order.",
        )

    def resume(self, descent: Any, num_steps: int) -> list[float]:
        """Bring a descent to where the file was; its losses."""
        if len(self.losses) > num_steps:
            raise CheckpointError(
                f"checkpoint: {str(self.path)!r} has {len(self.losses)} steps, expected at most {num_steps}.",
                hint="num_steps is that of the whole run.",
            )
        if self.losses:
            try:
                descent.restore(self.arrays)
            except (KeyError, ValueError) as error:
                raise CheckpointError(
                    f"checkpoint: {str(self.path)!r} lacks what the optimizer needs ({error}).",
                    hint="give the optimizer that it was begun with.",
                ) from error
        return list(self.losses)

    def save(self, arrays: dict[str, np.ndarray], losses: Sequence[float] = ()) -> None:
        """Replace the file: by what is read of images, and these arrays."""
        from safetensors.numpy import save_file

        about = {
            "version": VERSION,
            "problem": self.problem,
            "done": self.done,
            "digest": self.digest,
            "steps": len(losses),
        }
        tensors = {name: np.asarray(each, order="C") for name, each in (self.arrays | arrays).items()}
        strange = [name for name, each in tensors.items() if each.dtype.kind not in "biuf"]
        if strange:
            raise CheckpointError(
                f"checkpoint: the optimizer keeps what is no array of numbers ({', '.join(strange)}).",
                hint="learn without a checkpoint, or with another optimizer.",
            )
        tensors["losses"] = np.array(losses, np.float64)
        with whole(self.path) as part:
            save_file(tensors, part, {"convlab": json.dumps(about)})


def digest(before: str, *arrays: np.ndarray | None) -> str:
    """A hash of what has been read before and of these arrays."""
    found = hashlib.blake2b(before.encode(), digest_size=16)
    for array in arrays:
        if array is not None:
            found.update(f"{array.dtype} {array.shape}".encode())
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()
