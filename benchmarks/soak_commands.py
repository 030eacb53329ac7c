"""The part "commands" of soak.py: commands that write, interrupted or killed, and what they left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import convlab
from convlab.images.photographs import read_image

_DEADLINE = time.monotonic() + float(os.environ.get("SOAK_SECONDS", 1e9))

_MODEL = "import convlab\nlayer = lambda: convlab.load({folder!r} + '/layer.safetensors', backend={name!r})\n"
_SAVE = _MODEL + "model = layer()\nfor _ in range(50): convlab.save(model, {folder!r} + '/saved.safetensors')"
_LEARN = """
import numpy as np, convlab
lab = convlab.backend({name!r})
x, y = (lab.asarray(np.load({folder!r} + each)) for each in ("/x.npy", "/y.npy"))
found = lab.learn_kernel(x, y, 3, seed=0, lr=2e-4, num_steps=60, checkpoint={folder!r} + "/run.safetensors",
                         checkpoint_every=2)
np.save({folder!r} + "/kernel.npy", lab.to_numpy(found.kernel))
"""


class Command(NamedTuple):
    """A command that writes: Python's arguments, and the files that it makes."""

    arguments: list[str]
    outputs: list[str]


def _tensors(path: Path) -> Any:
    from safetensors.numpy import load_file

    return load_file(path)


def _page(path: Path) -> None:
    if not path.read_text(encoding="utf-8").rstrip().endswith("</html>"):
        raise ValueError("the page has no end")


_PARSERS: dict[str, Callable[[Path], Any]] = {
    ".png": read_image,
    ".json": lambda path: json.loads(path.read_text()),
    ".html": _page,
    ".safetensors": _tensors,
}


def _prepare(folder: Path, name: str) -> dict[str, Command]:
    """The commands, with a folder of what they read."""
    rng = np.random.default_rng(0)
    from PIL import Image

    (folder / "out").mkdir()
    for each in ("a", "b"):
        Image.fromarray(rng.integers(0, 256, (700, 900, 3), np.uint8)).save(folder / f"{each}.png")
    convlab.save(
        convlab.backend("numpy").Conv2D(3, out_channels=64, in_channels=64, seed=0), folder / "layer.safetensors"
    )
    (folder / "models.py").write_text(_MODEL.format(folder=str(folder), name=name))
    x = rng.standard_normal((40, 40)).astype(np.float32)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", x[1:-1, 1:-1] - x[:-2, 2:])
    run, on = ["-c", "from convlab.cli.main import main; main()"], ["--backends", name]
    reports = ["--json", str(folder / "report.json"), "--html", str(folder / "report.html")]
    images, model = [str(folder / f"{each}.png") for each in ("a", "b")], str(folder / "models.py") + ":layer"
    box = ["-f", "box:5", "-b", name, "-o"]
    return {
        "filter": Command([*run, "filter", images[0], *box, str(folder / "one.png")], ["one.png"]),
        "filter into a folder": Command(
            [*run, "filter", *images, *box, str(folder / "out")], ["out/a.png", "out/b.png"]
        ),
        "demo": Command([*run, "demo", *on, "--plot", str(folder / "demo.png")], ["demo.png"]),
        "parity": Command([*run, "parity", *on, "--seconds", "1", *reports], ["report.json", "report.html"]),
        "compare": Command([*run, "compare", model, model, *reports], ["report.json", "report.html"]),
        "tune": Command([*run, "tune", *on], ["cache/convlab/wisdom.json"]),
        "save": Command(["-c", _SAVE.format(folder=str(folder), name=name)], ["saved.safetensors"]),
        "learn": Command(["-c", _LEARN.format(folder=str(folder), name=name)], ["run.safetensors"]),
    }


def commands(name: str, cases: int, seed: int) -> tuple[int, list[str]]:
    """Commands stopped at random moments, or as soon as a file is begun; each is then run again to its end."""
    rng, lost, tried = np.random.default_rng(seed), [], 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        known = _prepare(folder, name)
        durations: dict[str, float] = {}
        for label, command in known.items():
            start = time.monotonic()
            lost += _whole_run(folder, label, command)
            durations[label] = time.monotonic() - start
        kernel = (folder / "kernel.npy").read_bytes()
        labels = [label for label in known if label != "tune"] * 4 + ["tune"]  # which takes minutes
        while tried < cases and time.monotonic() < _DEADLINE:
            label = labels[tried % len(labels)]
            tried += 1
            interrupt, at_file = (bool(rng.random() < 0.5) for _ in range(2))
            if rng.random() < 0.7:
                _remove(folder, known[label])
            moment = float(rng.uniform(0, durations[label]))
            _stop(folder, known[label], interrupt, None if at_file else moment, durations[label])
            how = f"{'SIGINT' if interrupt else 'SIGKILL'} {'at a file' if at_file else f'after {moment:.3f} s'}"
            lost += [f"{name} {label} {how}: {why}" for why in _damage(folder, known[label])]
            parts = list(folder.rglob(".convlab-*"))
            if interrupt and parts:
                lost.append(f"{name} {label} {how}: left {parts[0].name}")
            for part in parts:
                part.unlink()
            if label != "tune":
                lost += _whole_run(folder, f"{label} after {how}", known[label])
            if label == "learn" and (folder / "kernel.npy").read_bytes() != kernel:
                lost.append(f"{name} learn {how}: went on to another kernel")
    return tried, lost


def _remove(folder: Path, command: Command) -> None:
    for each in command.outputs:
        (folder / each).unlink(missing_ok=True)


def _damage(folder: Path, command: Command) -> Iterator[str]:
    """What is wrong with the outputs that are there."""
    for each in command.outputs:
        path = folder / each
        if path.exists():
            try:
                _PARSERS[path.suffix](path)
            except Exception as error:  # whatever it is, the file isn't whole
                yield f"{each} isn't whole: {error!r}"


def _start(folder: Path, command: Command, errors: Any = subprocess.DEVNULL) -> subprocess.Popen[str]:
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.Popen(
        [sys.executable, *command.arguments], env=environment, stdout=subprocess.DEVNULL, stderr=errors, text=True,
        start_new_session=True,
    )  # fmt: skip


def _whole_run(folder: Path, label: str, command: Command) -> list[str]:
    running = _start(folder, command, subprocess.PIPE)
    _, errors = running.communicate()
    lost = [f"{label}: exit {running.returncode}: {errors[-300:]}"] if running.returncode else []
    lost += [f"{label}: no {each}" for each in command.outputs if not (folder / each).exists()]
    return lost + [f"{label}: {why}" for why in _damage(folder, command)]


def _stop(folder: Path, command: Command, interrupt: bool, moment: float | None, longest: float) -> None:
    """Start a command and stop it: after a time, or when the first file is begun."""
    running, start = _start(folder, command), time.monotonic()
    places = {(folder / each).parent for each in command.outputs}
    while running.poll() is None and time.monotonic() - start < (2 * longest if moment is None else moment):
        if moment is None and any(
            each.name.startswith(".convlab-") for at in places if at.is_dir() for each in at.iterdir()
        ):
            break
        time.sleep(0.0002)
    if running.poll() is None:
        if interrupt:
            os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        else:
            running.kill()
    try:
        running.wait(60)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
