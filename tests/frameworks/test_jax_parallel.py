"""convlab on arrays that are shared between two devices: by batch, by rows of an image, and inside shard_map."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import parallel
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from parallel import LEARNING_RATE, STEPS, Problem, problem
from revealing import OPTIONS, arrays

import convlab
from convlab import jax as lab
from convlab.testing import oracle_gradients, reproducible_gradients

TWO_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
SPLITS = {
    ("chapter", "batch"): P("devices"),
    ("chapter", "rows"): P(None, "devices"),
    ("NCHW", "batch"): P("devices"),
    ("NCHW", "rows"): P(None, None, "devices"),
    ("NHWC", "batch"): P("devices"),
    ("NHWC", "rows"): P(None, "devices"),
}
GEOMETRIES = (
    {"stride": 2},
    {"padding": "same", "padding_mode": "reflect"},
    {"padding": 2, "padding_mode": "circular"},
    {"dilation": 2, "padding": "same"},
    {"padding": "full", "stride": (3, 1)},
)
ALGORITHMS = ("auto", "direct", "native", "taps", "reproducible")


def layer_of(given: Problem) -> tuple[lab.Conv2D, dict]:
    params = {"weight": jnp.asarray(given.weight), "bias": jnp.asarray(given.bias)}
    return lab.Conv2D(given.size, padding="same", **given.options), {"params": params}


def sharded_map(algorithm: str, x, k, dy):
    """The gradients of corr2d in a shard_map over all devices."""
    options = {"reproducible": True} if algorithm == "reproducible" else {"algorithm": algorithm}
    mesh = Mesh(jax.devices(), "devices")

    def loss(x, k, dy):
        return jax.lax.psum((convlab.corr2d(x, k, **options) * dy).sum(), "devices")

    split = P("devices")
    mapped = jax.shard_map(loss, mesh=mesh, in_specs=(split, P(), split), out_specs=P())
    return jax.jit(jax.grad(mapped, (0, 1)))(x, k, dy)


def integers(layer: str, **options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X, K and a gradient with respect to the result."""
    rng = np.random.default_rng(0)
    x, k = {"images": ((4, 20, 24), (3, 3)), "channels": ((4, 2, 20, 24), (5, 2, 3, 3))}[layer]
    shapes = x, k, convlab.output_shape(x, k, **options)
    return tuple(rng.integers(-3, 4, shape).astype("float32") for shape in shapes)


def on_two_devices() -> None:
    """A process of its own, begun by `results`."""
    import sharded
    from sharded import mesh, train

    results = {}
    for (name, axis), split in SPLITS.items():
        for kind, counts in STEPS.items():
            given = problem(name, kind)
            layer, start = layer_of(given)
            for steps in counts:
                params, gradients = train(layer, start, given.images, given.targets, split, steps, LEARNING_RATE)
                (w, b), dw_db = ([each["params"][n] for n in ("weight", "bias")] for each in (params, gradients))
                for replica in (0, 1):
                    own = [each.addressable_data(replica) for each in (w, b, *dw_db)]
                    results |= parallel.saved(f"{name} {axis} {kind} {steps} {replica}", own[0], own[1], own[2:])
        images = jax.device_put(given.images, NamedSharding(mesh, split))
        program = jax.jit(layer.apply).lower(start, images).compile().as_text()
        Path(f"{name} {axis}.txt").write_text(program)
    for layer in ("images", "channels"):
        for algorithm in ALGORITHMS:
            dx, dk = sharded_map(algorithm, *integers(layer))
            results |= {f"{layer} {algorithm}: dx": dx, f"{layer} {algorithm}: dk": dk}
    for i, options in enumerate(GEOMETRIES):
        x, k, dy = integers("channels", **options)
        x = jax.device_put(x, NamedSharding(mesh, P(None, None, "devices")))
        loss = lambda x, k, dy: (convlab.corr2d(x, k, **options) * dy).sum()  # noqa: B023, E731
        dx, dk = jax.jit(jax.grad(loss, (0, 1)))(x, k, dy)
        results |= {f"geometry {i}: dx": dx, f"geometry {i}: dk": dk}
    x, k, b, _, dy = arrays()
    for axis, split in {"batch": P("devices"), "rows": P(None, None, "devices")}.items():
        y, vjp = jax.vjp(
            jax.jit(lambda x, k, b: convlab.corr2d(x, k, bias=b, reproducible=True, **OPTIONS)),
            *(jax.device_put(x, NamedSharding(mesh, split)), k, b),
        )
        results |= {f"reproducible {axis}: {i}": each for i, each in enumerate((y, *vjp(dy)))}
    sharded.mesh = jax.make_mesh((2,), ("devices",), axis_types=(AxisType.Explicit,))
    for (name, axis), split in SPLITS.items():
        given = problem(name, "integers")
        params, gradients = train(*layer_of(given), given.images, given.targets, split, 1, LEARNING_RATE)
        (w, b), dw_db = ([each["params"][n] for n in ("weight", "bias")] for each in (params, gradients))
        results |= parallel.saved(f"{name} {axis} explicit", w, b, dw_db)
    np.savez("found.npz", **results)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    parallel.example("sharded.py", folder)
    parallel.run(__file__, folder, **TWO_DEVICES)
    return folder


@pytest.mark.parametrize(("layer", "axis"), SPLITS)
def test_gradients_and_steps_are_one_devices(results, layer, axis) -> None:
    for kind, counts in STEPS.items():
        for steps in counts:
            one, two = (
                parallel.loaded(results / "found.npz", f"{layer} {axis} {kind} {steps} {replica}") for replica in (0, 1)
            )
            parallel.check(problem(layer, kind), steps, one, exact=kind == "integers")
            for name in one:
                assert one[name].tobytes() == two[name].tobytes()


@pytest.mark.parametrize(("layer", "axis"), SPLITS)
def test_a_mesh_of_explicit_axes(results, layer, axis) -> None:
    arrays = parallel.loaded(results / "found.npz", f"{layer} {axis} explicit")
    parallel.check(problem(layer, "integers"), 1, arrays, exact=True)


@pytest.mark.parametrize("i", range(len(GEOMETRIES)))
def test_gradients_of_sharded_rows_in_any_geometry(results, i) -> None:
    x, k, dy = integers("channels", **GEOMETRIES[i])
    expected = oracle_gradients(x, k, dy, **GEOMETRIES[i])
    arrays = parallel.loaded(results / "found.npz", f"geometry {i}")
    np.testing.assert_array_equal(arrays["dx"], expected.X)
    np.testing.assert_array_equal(arrays["dk"], expected.K)


@pytest.mark.parametrize(("layer", "axis"), SPLITS)
def test_rows_are_exchanged_at_the_seam_and_no_more(results, layer, axis) -> None:
    program = (results / f"{layer} {axis}.txt").read_text()
    assert ("collective-permute" in program) == (axis == "rows")
    assert "all-gather" not in program
    assert "all-to-all" not in program


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("layer", ["images", "channels"])
def test_gradients_inside_shard_map(results, layer, algorithm) -> None:
    x, k, dy = integers(layer)
    expected = oracle_gradients(x, k, dy)
    arrays = parallel.loaded(results / "found.npz", f"{layer} {algorithm}")
    np.testing.assert_array_equal(arrays["dx"], expected.X)
    np.testing.assert_array_equal(arrays["dk"], expected.K)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("layer", ["images", "channels"])
def test_gradients_inside_shard_map_over_one_device(layer, algorithm) -> None:
    """There calls are planned."""
    x, k, dy = integers(layer)
    expected = oracle_gradients(x, k, dy)
    dx, dk = sharded_map(algorithm, *map(jnp.asarray, (x, k, dy)))
    np.testing.assert_array_equal(dx, expected.X)
    np.testing.assert_array_equal(dk, expected.K)


@pytest.mark.parametrize("axis", ["batch", "rows"])
def test_reproducible_bits_of_sharded_arrays(results, axis) -> None:
    x, k, _, y, dy = arrays()
    expected = y, *reproducible_gradients(x, k, dy, **OPTIONS)
    sharded = parallel.loaded(results / "found.npz", f"reproducible {axis}")
    for i, want in enumerate(expected):
        assert sharded[str(i)].tobytes() == want.tobytes()


def test_the_documents_example(tmp_path) -> None:
    """By batch and by rows it trains the same."""
    for line in parallel.run(parallel.example("sharded.py", tmp_path), tmp_path, **TWO_DEVICES).splitlines():
        by_batch, by_rows = map(float, line.split())
        assert by_batch == pytest.approx(by_rows, abs=1e-4)


if __name__ == "__main__":
    on_two_devices()
