"""A model in another environment: `python -m convlab.cli.elsewhere file.py:model images.npy` runs it for `compare`.

The parts of the model go over the pipe once, as convlab's files have them; then the other side asks for results and
gradients of parts, by their numbers, or of the whole model. Messages are those of `convlab.parity.wire`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConvlabError, ModelError
from ..models.adapters import Arrays, Models, as_arrays, as_input, models_of, read
from ..models.files.kinds import KINDS
from ..models.files.neutral import StoredArray, packed, unpacked
from ..models.layers.layer import Layer
from ..models.layers.reading import INPUT, Model, Part
from ..parity.pool import Worker
from ..parity.wire import receive, send
from .places import array_of, model_of

Answers = dict[str, np.ndarray]
# Seconds: the other side may have to load a large model, or to compile it.
_PATIENCE = 600.0


class ModelElsewhere(Worker):
    """A model in a process of its own, of another Python; it runs layers as an adapter's module `models` does.

    Args:
        place: what `convlab.cli.places.model_of` takes.
        python: the interpreter, which has convlab and the model's framework.
        inputs: a file of images, or None.
    """

    def __init__(self, place: str, python: str, inputs: Path | None) -> None:
        super().__init__(place, python, patience=_PATIENCE)
        self.arguments = ["-m", "convlab.cli.elsewhere", place, *([str(inputs)] if inputs else [])]
        self.needs = "the model's framework"

    def is_greeting(self, message: dict[str, Any]) -> bool:
        """See `Worker.is_greeting`."""
        return isinstance(message.get("backend"), str)

    def model(self) -> Model:
        """The model as it was read there; its native layers are numbers, and the whole is None."""
        answer = self.ask({"task": "read"}, {}, "reading the model")
        about = json.loads(answer["about"].tobytes())
        parts = [_part(number, each, answer["data"]) for number, each in enumerate(about["parts"])]
        inputs = {value: None if shape is None else tuple(shape) for value, shape in about["inputs"].items()}
        image = inputs.get(INPUT)
        return Model(
            self.facts["backend"], parts, about["whole"], None, image, about["loose"], runner=self, inputs=inputs
        )

    def run(self, natives: Sequence[Any], x: np.ndarray | Arrays, dtype: str) -> np.ndarray | Arrays:
        """See `convlab.models.adapters.Models.run`."""
        values = _numbered(as_arrays(x))
        return as_input(_in_order(self.ask({"task": "run", "natives": [*natives], "dtype": dtype}, values, "a run")))

    def gradients(self, natives: Sequence[Any], x: np.ndarray, dy: np.ndarray, dtype: str) -> Answers:
        """See `convlab.models.adapters.Models.gradients`."""
        return self.ask({"task": "gradients", "natives": [*natives], "dtype": dtype}, {"x": x, "dy": dy}, "gradients")


def _numbered(arrays: Arrays) -> Answers:
    return {str(number): array for number, array in enumerate(arrays)}


def _in_order(arrays: Answers) -> Arrays:
    return tuple(arrays[str(number)] for number in range(len(arrays)))


def _part(number: int, about: Mapping[str, Any], data: np.ndarray) -> Part:
    layer = None
    if about["record"] is not None:
        tensors = {
            key: StoredArray(code, tuple(shape), data[start:end].tobytes())
            for key, (code, shape, start, end) in about["tensors"].items()
        }
        layer = unpacked([about["record"]], tensors, about["path"])[0].layer
    return Part(about["path"], number, layer, about["note"], tuple(about["inputs"]), about["value"])


def _read_answer(model: Model) -> Answers:
    """A model's parts: JSON, and the bytes of all arrays one after another."""
    parts, data, end = [], [], 0
    for part in model.parts:
        record, tensors = None, {}
        if part.layer is not None:
            record, stored = _packed(part, part.layer)
            for key, (code, shape, content) in stored.items():
                tensors[key] = code, shape, end, end + len(content)
                data.append(content)
                end += len(content)
        places = {"path": part.path, "note": part.note, "inputs": part.inputs, "value": part.value}
        parts.append({**places, "record": record, "tensors": tensors})
    about = {"parts": parts, "whole": model.whole, "inputs": model.inputs, "loose": model.loose}
    texts = json.dumps(about).encode(), b"".join(data)
    return dict(zip(("about", "data"), (np.frombuffer(text, np.uint8) for text in texts), strict=True))


def _packed(part: Part, layer: Layer) -> tuple[dict[str, Any], dict[str, StoredArray]]:
    if layer.kind not in KINDS:
        raise ModelError(
            f"{part.path}: got a layer of kind {layer.kind}, expected one that convlab's files have.",
            hint="run both models in one environment.",
        )
    alone = replace(part, inputs=(INPUT,) * len(part.inputs))
    records, tensors = packed([alone])
    return records[0], tensors


def _tasks(model: Model) -> dict[str, Callable[[dict[str, Any], Answers], Answers]]:
    models: Models = models_of(model.backend)

    def natives(request: Mapping[str, Any]) -> list[Any]:
        return [model.native if number is None else model.parts[number].native for number in request["natives"]]

    def run(request: dict[str, Any], arrays: Answers) -> Answers:
        return _numbered(as_arrays(models.run(natives(request), as_input(_in_order(arrays)), request["dtype"])))

    def gradients(request: dict[str, Any], arrays: Answers) -> Answers:
        return models.gradients(natives(request), arrays["x"], arrays["dy"], request["dtype"])

    return {"read": lambda request, arrays: _read_answer(model), "run": run, "gradients": gradients}


def serve_model(place: str, inputs: str = "") -> None:
    """Answer requests from stdin on stdout until stdin ends."""
    # Frameworks and the model's own code may print to stdout, so the pipe of the answers gets another file descriptor.
    answers, requests = os.fdopen(os.dup(1), "wb"), os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)
    try:
        model = read(model_of(place), array_of(Path(inputs)) if inputs else None)
        tasks = _tasks(model)
        send(answers, {"hello": place, "backend": model.backend})
    except Exception as error:
        send(answers, {"error": str(error).removeprefix(f"{place}: "), "kind": type(error).__name__})
        return
    while True:
        try:
            request, arrays = receive(requests)
        except EOFError:
            return
        try:
            result = tasks[request["task"]](request, arrays)
        except Exception as error:
            text = str(error) if isinstance(error, ConvlabError) else f"{type(error).__name__}: {error}"
            send(answers, {"error": text, "kind": type(error).__name__})
        else:
            send(answers, {}, result)


if __name__ == "__main__":
    serve_model(*sys.argv[1:])
