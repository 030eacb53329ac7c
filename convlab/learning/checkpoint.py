"""Checkpoints of `learn_kernel`: safetensors files with the numbers, and a description in JSON in their metadata.

A file holds the state of a run at one moment and is replaced as a whole, so that a run that was killed continues from
the last state with the same bits. Reading it takes safetensors and nothing of convlab's: the metadata's entry "convlab"
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
        problem: what is learned, as JSON's types.
        arrays: the arrays that the file held; empty if there was no file.
        losses: the losses that the file held; empty if there was no file.
        done: how many pairs of images had been read.
        digest: a hash of those images.
    """

    def __init__(self, path: Any, every: int, problem: dict[str, Any]) -> None:
        self.every, self.problem = every, json.loads(json.dumps(problem))
        self.arrays: dict[str, np.ndarray] = {}
        self.losses: list[float] = []
        self.done, self.digest = 0, ""
        try:
            self.path = Path(path)
            with tempfile.TemporaryFile(dir=self.path.parent):
                exists = self.path.exists()
        except (OSError, TypeError) as error:
            raise CheckpointError(
                f"checkpoint: got {path!r}, expected a file in an existing folder that can be written to ({error}).",
                hint="make the folder, or give another.",
            ) from error
        if self.path.is_dir():
            raise CheckpointError(
                f"checkpoint: got {str(path)!r}, a folder, expected a file.", hint="name a file in it."
            )
        if exists:
            self._load()

    def _load(self) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, "np") as file:
                about = json.loads(file.metadata()["convlab"])
                self.arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            version, problem = about["version"], dict(about["problem"])
            self.done, self.digest, self.losses = about["done"], about["digest"], self.arrays.pop("losses").tolist()
            if (type(self.done), type(self.digest), type(self.losses)) != (int, str, list):
                raise ValueError("its metadata or its losses have the wrong types")
        except (SafetensorError, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise CheckpointError(
                f"checkpoint: {str(self.path)!r} isn't a checkpoint of convlab's ({type(error).__name__}: {error}).",
                hint="give another path; this file is left as it is.",
            ) from error
        if version != VERSION:
            raise CheckpointError(
                f"checkpoint: {str(self.path)!r} has version {version}, expected {VERSION}.", hint="start a new one."
            )
        different = [f"{k} {problem.get(k)!r}, expected {v!r}" for k, v in self.problem.items() if problem.get(k) != v]
        if different:
            raise CheckpointError(
                f"checkpoint: {str(self.path)!r} is of another problem: got {'; '.join(different)}.",
                hint="give another path, or the arguments that it was begun with.",
            )

    def begin(self, count: int, digest: str) -> None:
        """Compare all images with those of the file, or, if there was no file, take note of them."""
        if self.done and (count, digest) != (self.done, self.digest):
            self._refuse()
        self.done, self.digest = count, digest

    def known(self, count: int, digest: str) -> bool:
        """Whether the file has counted the image of this number; `digest` is that of all up to it."""
        if count == self.done and digest != self.digest:
            self._refuse()
        return count <= self.done

    def read(self, count: int, digest: str, arrays: dict[str, np.ndarray]) -> None:
        """Take note that so many images are counted in `arrays`."""
        if self.losses:
            # The file's steps were taken without this image.
            self._refuse()
        self.done, self.digest, self.arrays = count, digest, arrays
        self.save({})

    def finish(self, count: int) -> None:
        """Check, after all images have been read, that the file knew no more of them."""
        if count < self.done:
            self._refuse()

    def _refuse(self) -> None:
        raise CheckpointError(
            f"checkpoint: {str(self.path)!r} was begun with other images.",
            hint="give another path, or the same images in the same order.",
        )

    def resume(self, descent: Any, num_steps: int) -> list[float]:
        """Put a descent into the file's state, and return the losses up to there."""
        if len(self.losses) > num_steps:
            raise CheckpointError(
                f"checkpoint: {str(self.path)!r} has {len(self.losses)} steps, expected at most {num_steps}.",
                hint="num_steps counts the steps of the whole run.",
            )
        if self.losses:
            try:
                descent.restore(self.arrays)
            except (KeyError, ValueError) as error:
                raise CheckpointError(
                    f"checkpoint: {str(self.path)!r} lacks a part of the optimizer's state ({error}).",
                    hint="give the optimizer that it was begun with.",
                ) from error
        return list(self.losses)

    def save(self, arrays: dict[str, np.ndarray], losses: Sequence[float] = ()) -> None:
        """Replace the file by one with what was read of the images, these arrays and these losses."""
        from safetensors.numpy import save_file

        about = {
            "version": VERSION,
            "problem": self.problem,
            "done": self.done,
            "digest": self.digest,
            "steps": len(losses),
        }
        tensors = {name: np.asarray(array, order="C") for name, array in (self.arrays | arrays).items()}
        unsuitable = [name for name, tensor in tensors.items() if tensor.dtype.kind not in "biuf"]
        if unsuitable:
            raise CheckpointError(
                f"checkpoint: the optimizer's state has entries that aren't arrays of numbers "
                f"({', '.join(unsuitable)}).",
                hint="learn without a checkpoint, or with another optimizer.",
            )
        tensors["losses"] = np.array(losses, np.float64)
        with whole(self.path) as part:
            save_file(tensors, part, {"convlab": json.dumps(about)})


def digest(before: str, *arrays: np.ndarray | None) -> str:
    """A hash of an earlier digest and of these arrays."""
    state = hashlib.blake2b(before.encode(), digest_size=16)
    for array in arrays:
        if array is not None:
            state.update(f"{array.dtype} {array.shape}".encode())
            state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()
