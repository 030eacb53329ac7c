"""Does `convlab.compare` find the mistakes that people make, and name them? Does it leave good copies alone?

    python benchmarks/faults.py --count 1000 --clean 1000 [--backends torch,tensorflow] [--each 2] [--show 3]

Each fault of `planted.py` is planted in turn into a random node of a random model of `fault_models.py`; the first
backend has the model, the second the one with the fault, under other names. One that doesn't change the results isn't
planted. A fault is found if the comparison blames its node and no other, and named if the diagnosis there has the right
words. With `--each 2` every model has two faults. A clean pair is a model and a copy whose layers are cut, named and
listed in another way. The script exits with 1 where a goal isn't reached: 97 % found and named, no false alarm.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

if __name__ == "__main__":  # The models are small: threads only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import re

import numpy as np
import timing
from fault_models import MODELS, SIZE, model_parts
from planted import FAULTS, Planted
from rich.progress import track
from rich.table import Table

from convlab import compare
from convlab.errors import ConvlabError
from convlab.models.adapters import models_of, read
from convlab.models.compare.comparison import Comparison
from convlab.models.layers.joining import COMMUTATIVE
from convlab.models.layers.layer import Convolution, Dropout, Pad
from convlab.models.layers.reading import INPUT, Model, Part, inputs_first, without
from convlab.models.port.lowering import Lowering
from convlab.models.port.port import assembled

GOAL = 0.97
# A fault changes the results by at least this share of the largest number.
_LEAST = 1e-4
# A framework may lack what a fault needs, as MXNet lacks one of the GELUs.
_MOST_DRAWS = 2000


class Pair(NamedTuple):
    """A model, its copy, and what was planted into the copy.

    Attributes:
        names: the original's path of each part of the copy, by the copy's.
    """

    about: str
    a: Any
    b: Any
    names: dict[str, str]
    faults: list[tuple[str, Planted]]


class Outcome(NamedTuple):
    """Whether a fault was found at its node, and whether it was named there."""

    found: bool
    named: bool


def renamed(parts: Sequence[Part]) -> tuple[list[Part], dict[str, str]]:
    """The parts with names that say nothing."""
    names = {INPUT: INPUT, **{part.value: f"layer_{i}" for i, part in enumerate(parts)}}
    others = [
        replace(part, path=names[part.value], value=names[part.value], inputs=tuple(map(names.get, part.inputs)))
        for part in parts
    ]
    return others, {names[part.value]: part.path for part in parts}


def native(backend: str, parts: list[Part]) -> Any:
    """The model of a backend."""
    target = models_of(backend)
    lowering = Lowering(Model("", parts, True, None), target, "builtin", (SIZE, SIZE))
    if lowering.untouched:
        raise ConvlabError(str(lowering.untouched))
    return assembled(target, lowering.built)


def result(parts: Sequence[Part], x: np.ndarray) -> np.ndarray:
    """The model's result in float64, by the definition of its layers."""
    values = {INPUT: x}
    for part in parts:
        assert part.layer is not None
        values[part.value] = part.layer.reference(*(values[value] for value in part.inputs))
    return values[parts[-1].value]


def differs(parts: Sequence[Part], others: Sequence[Part], rng: np.random.Generator) -> bool:
    """Whether the models' results differ by more than rounding; False where the second one can't be run."""
    x = rng.standard_normal((2, 3, SIZE, SIZE))
    y = result(parts, x)
    try:
        z = result(others, x)
    except (ConvlabError, ValueError):
        return False
    return y.shape != z.shape or bool(np.abs(y - z).max() > _LEAST * np.abs(y).max())


def plant(rng: np.random.Generator, first: str, others_of: Sequence[str], count: int, backends: Sequence[str]) -> Pair:
    """A random model with a fault of a kind, and more of other kinds, at nodes of their own."""
    for _ in range(_MOST_DRAWS):
        kinds = [first, *(str(kind) for kind in rng.choice(others_of, count - 1))]
        model, seed = str(rng.choice(list(MODELS))), int(rng.integers(2**31))
        parts = others = model_parts(model, seed)
        faults: list[tuple[str, Planted]] = []
        for kind in kinds:
            candidates = [FAULTS[kind].plant(rng, others, index) for index in range(len(others))]
            possible = [each for each in candidates if each is not None]
            if not possible:
                break
            planted = possible[rng.integers(len(possible))]
            hidden = planted.inside is not None
            if not hidden and not differs(others, planted.parts, rng):
                break
            faults.append((kind, planted))
            others = planted.parts
        nodes = [path for _, planted in faults for path in planted.paths]
        if len(faults) < len(kinds) or len({*nodes}) < len(nodes):
            continue
        copies, names = renamed(others)
        try:
            a, b = native(backends[0], parts), native(backends[1], copies)
        except ConvlabError:  # A framework may not have a layer.
            continue
        named = {part.path.split("/")[-1] for part in read(a).parts}
        if not {path for path in nodes if not path.startswith("new")} <= named:
            continue  # The layers of a Sequential of Flax have numbers for names.
        for _, planted in faults:
            if planted.inside is not None:
                by_path = {path: name for name, path in names.items()}
                planted.inside(b.get_submodule(by_path[planted.paths[0]]))
        return Pair(f"{model}, seed {seed}", a, b, names, faults)
    raise ConvlabError(f"{first}: no model of {' and '.join(backends)} has it in {_MOST_DRAWS} draws.")


def outcomes(pair: Pair) -> tuple[list[Outcome], str]:
    """What became of each fault of a pair, and the report."""
    try:
        comparison = compare(pair.a, pair.b)
    except ConvlabError as error:
        return [Outcome(False, False)] * len(pair.faults), f"{type(error).__name__}: {error}"
    blamed = dict(_blamed(comparison, pair))
    nodes = {path for _, planted in pair.faults for path in planted.paths}
    nowhere_else = comparison.same is False and blamed.keys() <= nodes
    several = []
    for kind, planted in pair.faults:
        texts = [blamed[path] for path in planted.paths if path in blamed]
        named = any(re.search(FAULTS[kind].words, text, re.IGNORECASE) for text in texts)
        several.append(Outcome(bool(texts) and nowhere_else, named and nowhere_else))
    return several, str(comparison)


def _blamed(comparison: Comparison, pair: Pair) -> Iterator[tuple[str, str]]:
    """The nodes that are said to diverge, and what is said of them."""
    for row in comparison.rows:
        if not row.same:
            mine, theirs = (path.split("/")[-1].removesuffix("_before") for path in (row.a, row.b))
            path = mine or pair.names.get(theirs, theirs)
            yield path, " ".join([row.diagnosis, *row.differences.values()])


def clean(rng: np.random.Generator, backends: Sequence[str]) -> Pair:
    """A random model and a copy that computes the same."""
    while True:
        model, seed = str(rng.choice(list(MODELS))), int(rng.integers(2**31))
        parts = model_parts(model, seed)
        copies, names = renamed(listed_otherwise(rng, cut_otherwise(rng, parts)))
        with contextlib.suppress(ConvlabError):  # A framework may not have a layer.
            return Pair(f"{model}, seed {seed}", native(backends[0], parts), native(backends[1], copies), names, [])


def cut_otherwise(rng: np.random.Generator, parts: Sequence[Part]) -> list[Part]:
    """The same model without dropout; some borders are layers of their own, some sums have another order."""
    others: list[Part] = []
    for part in without(parts, lambda part: isinstance(part.layer, Dropout)):
        layer = part.layer
        if isinstance(layer, COMMUTATIVE) and rng.integers(2):
            part = replace(part, inputs=part.inputs[::-1])
        if isinstance(layer, Convolution) and rng.integers(2) and max(map(max, layer.spec.padding)) > 0:
            border = Pad.before(layer.spec)
            others.append(Part(f"{part.path}_pad", None, border, border.kind, part.inputs, f"{part.value}_pad"))
            spec = replace(layer.spec, padding=((0, 0), (0, 0)), padding_mode="zeros")
            part = replace(part, layer=replace(layer, spec=spec), inputs=(f"{part.value}_pad",))
        others.append(part)
    return others


def listed_otherwise(rng: np.random.Generator, parts: Sequence[Part]) -> list[Part]:
    """The parts in another order in which each stands behind its inputs."""
    by_value = {part.value: part for part in parts}

    def inputs(value: str) -> list[str]:
        known = [each for each in by_value[value].inputs if each in by_value]
        return [*rng.permutation(known)] if known else []

    return [by_value[str(value)] for value in inputs_first([parts[-1].value], inputs)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="models with faults")
    parser.add_argument("--clean", type=int, default=0, help="pairs without one")
    parser.add_argument("--each", type=int, default=1, help="faults in each model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backends", type=timing.names, default=["torch", "torch"], help="of the model and its copy")
    parser.add_argument("--kinds", default="", help="a pattern of the kinds of faults")
    parser.add_argument("--show", type=int, default=0, help="the reports of so many faults that aren't named")
    options = parser.parse_args()
    fine = [plant_and_find(options) if options.count else True, check_clean(options) if options.clean else True]
    sys.exit(0 if all(fine) else 1)


def plant_and_find(options: argparse.Namespace) -> bool:
    """Plant faults, print what became of each kind, and say whether the goal is reached."""
    rng, tallies = np.random.default_rng(options.seed), {kind: Counter[str]() for kind in _kinds(options)}
    kinds, left = [*tallies], options.show
    for number in track(range(options.count), "faults", console=timing.progress, transient=True):
        kind = kinds[number % len(kinds)]
        try:
            pair = plant(rng, kind, kinds, options.each, options.backends)
        except ConvlabError as error:  # The frameworks' own layers may have no such mistake.
            timing.console.print(str(error), markup=False, highlight=False)
            kinds.remove(kind)
            continue
        results, report = outcomes(pair)
        for (kind, _), outcome in zip(pair.faults, results, strict=True):
            tallies[kind].update(planted=1, found=int(outcome.found), named=int(outcome.named))
        if left and not all(outcome.named for outcome in results):
            left -= 1
            about = "; ".join(f"{kind} at {' or '.join(planted.paths)}" for kind, planted in pair.faults)
            timing.console.print(f"\n{pair.about}: {about}\n{report}", markup=False, highlight=False)
    return _print_table(tallies, " and ".join(options.backends))


def _kinds(options: argparse.Namespace) -> list[str]:
    chosen = [kind for kind in FAULTS if re.search(options.kinds, kind)]
    return [kind for kind in chosen if not FAULTS[kind].backends or options.backends[1] in FAULTS[kind].backends]


def _print_table(tallies: dict[str, Counter[str]], title: str) -> bool:
    table = Table("fault", "planted", "found", "named", title=title)
    total = sum(tallies.values(), Counter[str]())
    for kind, tally in tallies.items():
        table.add_row(kind, *(str(tally[each]) for each in ("planted", "found", "named")))
    count = max(total["planted"], 1)
    table.add_section()
    table.add_row("all", str(count), *(f"{total[each] / count:.1%}" for each in ("found", "named")))
    timing.console.print(table)
    return total["named"] >= GOAL * count


def check_clean(options: argparse.Namespace) -> bool:
    """Compare clean pairs, print the false alarms, and say whether there is none."""
    rng, alarms, left = np.random.default_rng((options.seed, 1)), 0, options.show
    for _ in track(range(options.clean), "clean pairs", console=timing.progress, transient=True):
        pair = clean(rng, options.backends)
        comparison = compare(pair.a, pair.b)
        alarms += comparison.same is not True
        if left and comparison.same is not True:
            left -= 1
            timing.console.print(f"\n{pair.about}\n{comparison}", markup=False, highlight=False)
    timing.console.print(f"{options.clean} clean pairs of {' and '.join(options.backends)}: {alarms} false alarms")
    return not alarms


if __name__ == "__main__":
    main()
