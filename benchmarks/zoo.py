"""Which models of the frameworks' own collections are ported whole, and proven: one line for each model and target.

`python benchmarks/zoo.py --families keras,gluon --targets torch,jax.nnx --models "ResNet*,mobilenet*"`

The weights are random, and so are the statistics of the batch norms. Torchvision's models, and those of timm's that
timm.txt names, are there where these are installed. A line has the model, the target, the number of nodes, the worst
one in bounds, seconds, and the outcome; `--read` only reads the models, which takes a second each. `--write` puts the
lines into docs/reference/coverage.md, in the place of those of the same models and targets: a whole family takes
hours, and can be ported in several runs.
"""

from __future__ import annotations

import argparse
import fnmatch
import gc
import inspect
import re
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import convlab
from convlab.errors import ConvlabError, PartialPortWarning
from convlab.models.adapters import read, read_at

# The smallest images that these models take; others take 64x64.
SIZES = {"Inception*": 96, "Xception": 96, "NASNetMobile": 224, "NASNetLarge": 331, "VGG*": 32, "vgg*": 32}
GLUON_SIZES = {"inceptionv3": 299, "densenet*": 224, "squeezenet*": 224, "mobilenet*": 224, "alexnet": 224}


def size_of(name: str, sizes: dict[str, int]) -> int:
    return next((size for pattern, size in sizes.items() if fnmatch.fnmatch(name, pattern)), 64)


def keras_models() -> Iterator[tuple[str, int, Callable[[], Any]]]:
    import keras

    for name, make in sorted(vars(keras.applications).items()):
        if inspect.isfunction(make):
            size = size_of(name, SIZES)

            def model(make: Any = make, size: int = size) -> Any:
                keras.utils.set_random_seed(0)
                made = make(weights=None, input_shape=(size, size, 3), classes=7)
                for layer in made.layers:
                    if isinstance(layer, keras.layers.BatchNormalization):
                        layer.set_weights([np.random.uniform(0.5, 1.5, array.shape) for array in layer.get_weights()])
                return made

            yield name, size, model


def gluon_models() -> Iterator[tuple[str, int, Callable[[], Any]]]:
    convlab.backend("mxnet")  # which makes MXNet work on NumPy 2
    import mxnet as mx
    from mxnet.gluon.model_zoo import vision

    widths = ("0.25", "0.5", "0.75", "1.0")
    names = ["alexnet", "inceptionv3", "squeezenet1.0", "squeezenet1.1"]
    names += [f"densenet{n}" for n in (121, 161, 169, 201)]
    names += [f"{kind}{width}" for kind in ("mobilenet", "mobilenetv2_") for width in widths]
    names += [f"resnet{n}_v{version}" for version in (1, 2) for n in (18, 34, 50, 101, 152)]
    names += [f"vgg{n}{bn}" for n in (11, 13, 16, 19) for bn in ("", "_bn")]
    for name in names:
        size = size_of(name, GLUON_SIZES)

        def model(name: str = name, size: int = size) -> Any:
            mx.random.seed(0)
            net = vision.get_model(name, classes=7)
            net.initialize(mx.init.Xavier())
            net(mx.nd.zeros((1, 3, size, size)))
            for parameter in net.collect_params(".*(gamma|running_var)").values():
                parameter.set_data(mx.nd.random.uniform(0.5, 1.5, shape=parameter.shape))
            return net

        yield name, size, model


def torchvision_models() -> Iterator[tuple[str, int, Callable[[], Any]]]:
    import torch
    import torchvision

    kinds = (torchvision.models, torchvision.models.segmentation)
    for name in (name for kind in kinds for name in torchvision.models.list_models(module=kind)):
        size = size_of(name, {"inception*": 96, "alexnet": 224, "vgg*": 224, "vit_h*": 56, "maxvit*": 224})

        def model(name: str = name, size: int = size) -> Any:
            torch.manual_seed(0)
            segments = name in torchvision.models.list_models(module=torchvision.models.segmentation)
            further: dict[str, Any] = {"weights_backbone": None} if segments else {}
            further |= {"image_size": size} if name.startswith("vit") else {}
            made = torchvision.models.get_model(name, weights=None, num_classes=7, **further).eval()
            for key, array in made.state_dict().items():
                if key.endswith("running_var"):
                    array.uniform_(0.5, 1.5)
            return made

        yield name, size, model


# One of each kind that timm has, a small one.
TIMM = (Path(__file__).parent / "timm.txt").read_text().split()


def timm_models() -> Iterator[tuple[str, int, Callable[[], Any]]]:
    import timm
    import torch

    for name in TIMM:
        size = size_of(
            name, {"inception*": 96, "*nasnet*": 96, "*dinov2": 56, "*vit_*": 64, "mixer*": 224, "swin*": 224}
        )

        def model(name: str = name, size: int = size) -> Any:
            torch.manual_seed(0)
            sized = {"img_size": size} if name.startswith(("vit", "deit")) else {}
            made = timm.create_model(name, pretrained=False, num_classes=7, **sized).eval()
            for key, array in made.state_dict().items():
                if key.endswith("running_var"):
                    array.uniform_(0.5, 1.5)
            return made

        yield name, size, model


COVERAGE = Path(__file__).parent.parent / "docs" / "reference" / "coverage.md"
FAMILIES = {"keras": keras_models, "gluon": gluon_models, "torchvision": torchvision_models, "timm": timm_models}


def outcome(model: Any, target: str, size: int) -> tuple[str, float]:
    """What became of a model, in words, and its worst node in bounds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PartialPortWarning)
        try:
            ported = convlab.port(model, to=target, input_size=size)
        except ConvlabError as error:
            return f"{type(error).__name__}: {str(error)[-160:]}".replace("\n", " "), 0.0
    worst = max((row.worst("") for row in ported.evidence.rows), default=0.0)
    if ported.evidence.same:
        return "proven", worst
    path, why = next(iter(ported.untouched.items()))
    return f"{len(ported.untouched)} left out: {path}: {why}"[:200], worst


def processor() -> str:
    """The name of this machine's processor, where Linux tells it."""
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return names[0] if names else "unknown"


def write(family: str, name: str, target: str, cells: list[str]) -> None:
    """Put a line into docs/reference/coverage.md, in the place of the same model's and target's."""
    text = COVERAGE.read_text()
    start, end = (text.index(mark) for mark in ("<!-- rows -->", "<!-- end -->"))
    mark, names, rule, *lines = text[start:end].splitlines()
    rows = {tuple(line.split(" | ")[:3]): line for line in lines}
    key = f"| {family}", name, target
    rows[key] = " | ".join([*key, *cells, processor()]) + " |"
    text = "\n".join([text[:start] + mark, names, rule, *sorted(rows.values()), text[end:]])
    before, after = text.index("<!-- summary -->"), text.index("<!-- end of the summary -->")
    COVERAGE.write_text(text[:before] + summary(rows) + text[after:])


TARGETS = ("torch", "mxnet", "jax", "jax.nnx", "tensorflow")


def summary(rows: dict[tuple[str, ...], str]) -> str:
    """How many models of each family are read whole, and how many ports to each backend are proven."""
    lines = ["<!-- summary -->", f"| family | read whole | {' | '.join(f'to {each}' for each in TARGETS)} |"]
    lines.append("|---" * (len(TARGETS) + 2) + "|")
    for family in sorted({key[0] for key in rows}):
        names = [key[1] for key in rows if key[0] == family and key[2] == "read"]
        whole = sum("| whole |" in rows[family, name, "read"] for name in names)
        cells = [f"{whole} of {len(names)}"]
        for target in TARGETS:
            tried = [line for key, line in rows.items() if key[0] == family and key[2] == target]
            proven = sum("| proven |" in line for line in tried)
            few = " tried" if len(tried) < len(names) else ""
            cells.append(f"{proven} of {len(tried)}{few}" if tried else "")
        lines.append(f"{family} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default="keras,gluon")
    parser.add_argument("--targets", default="torch")
    parser.add_argument("--models", default="*", help="patterns of names, with commas between")
    parser.add_argument("--read", action="store_true")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    whole = count = 0
    for family in arguments.families.split(","):
        for name, size, make in FAMILIES[family]():
            if not any(fnmatch.fnmatch(name, pattern) for pattern in arguments.models.split(",")):
                continue
            model = make()
            reading = read_at(read(model), (size, size))
            known = reading.whole and all(part.layer is not None for part in reading.parts)
            unknown = {part.note for part in reading.parts if part.layer is None} | set(reading.loose.values())
            for target in [""] if arguments.read else arguments.targets.split(","):
                start, count = time.perf_counter(), count + 1
                said, worst = ("whole" if known else "; ".join(sorted(unknown))[:160], 0.0)
                if target:
                    said, worst = outcome(model, target, size)
                whole += said in ("proven", "whole")
                read_only = not target
                seconds = time.perf_counter() - start
                nodes = len(reading.parts)
                if arguments.write:
                    figures = ["", ""] if read_only else [f"{worst:.2f}", f"{seconds:.0f} s"]
                    cells = [str(nodes), *figures, said.replace("|", "/")]
                    write(family, name, target or "read", cells)
                print(f"{family:12} {name:24} {target:11} {nodes:5} {worst:5.2f} {seconds:6.1f} s  {said}", flush=True)
            del model, reading
            gc.collect()
    print(f"{whole} of {count}")


if __name__ == "__main__":
    main()
