"""convlab under DistributedDataParallel: two processes, whose gradients and steps are one process's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import parallel
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from parallel import LEARNING_RATE, STEPS, Problem, problem
from torch.nn.parallel import DistributedDataParallel

import convlab
from convlab import torch as lab

LAYERS = ("chapter", "NCHW", "NHWC")
OPTIONS = {
    "plain": {},
    "unused": {"find_unused_parameters": True},
    "buckets": {"gradient_as_bucket_view": True},
    "static": {"static_graph": True},
    "compiled": {},
    "reproducible": {},
}


def layer_of(given: Problem, **options) -> lab.Conv2D:
    layer = lab.Conv2D(given.size, padding="same", **given.options, **options)
    layer.load_state_dict({"weight": torch.from_numpy(given.weight), "bias": torch.from_numpy(given.bias)})
    return layer


class TwoLayers(torch.nn.Module):
    """One of them is never used."""

    def __init__(self, used: lab.Conv2D) -> None:
        super().__init__()
        self.used, self.unused = used, lab.Conv2D(3)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.used(X)


def replica(rank: int) -> None:
    """A process of its own, begun by `results`."""
    from ddp import train

    dist.init_process_group("gloo", init_method=f"file://{Path('store').absolute()}", rank=rank, world_size=2)
    arrays = {}
    for name in LAYERS:
        for kind, option in [*((kind, "plain") for kind in STEPS), *(("integers", each) for each in OPTIONS)]:
            given = problem(name, kind)
            images, targets = (torch.from_numpy(each[rank::2]) for each in (given.images, given.targets))
            for steps in STEPS[kind]:
                layer = layer_of(given, reproducible=option == "reproducible")
                module = TwoLayers(layer) if option == "unused" else layer
                model = DistributedDataParallel(module, **OPTIONS[option])
                if option == "compiled":
                    model = torch.compile(model, backend="aot_eager")
                train(model, images, targets, steps, LEARNING_RATE)
                parameters = [each.detach() for each in (layer.weight, layer.bias)]
                gradients = [layer.weight.grad, layer.bias.grad]
                arrays |= parallel.saved(f"{name} {kind} {option} {steps}", *parameters, gradients)
    np.savez(f"rank{rank}.npz", **arrays)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ddp")
    parallel.example("ddp.py", folder)
    parallel.run(__file__, folder, OMP_NUM_THREADS="1", CONVLAB_NUM_THREADS="1")
    return folder


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("layer", LAYERS)
def test_gradients_of_integers_are_one_processs_bit_for_bit(results, layer, option) -> None:
    for rank in (0, 1):
        arrays = parallel.loaded(results / f"rank{rank}.npz", f"{layer} integers {option} 1")
        parallel.check(problem(layer, "integers"), 1, arrays, exact=True)


@pytest.mark.parametrize("steps", STEPS["normal"])
@pytest.mark.parametrize("layer", LAYERS)
def test_steps_are_one_processs_and_replicas_stay_equal(results, layer, steps) -> None:
    one, two = (parallel.loaded(results / f"rank{rank}.npz", f"{layer} normal plain {steps}") for rank in (0, 1))
    parallel.check(problem(layer, "normal"), steps, one, exact=False)
    for name in one:
        assert one[name].tobytes() == two[name].tobytes()


def test_the_compiled_kernels_are_what_was_tested() -> None:
    given = problem("chapter", "normal")
    images, kernel = (torch.from_numpy(each) for each in (given.images[::2], given.weight))
    assert convlab.plan(images, kernel, padding="same").algorithm == "host"


def test_the_documents_example(tmp_path) -> None:
    first, second = parallel.run(parallel.example("ddp.py", tmp_path), tmp_path).splitlines()
    assert first == second  # both processes' parameters


if __name__ == "__main__":
    mp.spawn(replica, nprocs=2)
