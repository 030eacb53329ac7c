"""What the tests of learning with optimisers share: images, and a run that is interrupted and resumed."""

from __future__ import annotations

import numpy as np
import pytest

from convlab.truth.oracle import oracle

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 9, 10)).astype("float32")
START = RNG.standard_normal((4, 3, 3, 3)).astype("float32") / 4
Y = oracle(X, RNG.standard_normal(START.shape), padding=1).astype("float32") + 1
OPTIONS = {"out_channels": 4, "padding": 1, "use_bias": True, "init": START, "num_steps": 12}


def check_resumed(lab, optimizer, tmp_path) -> None:
    """Interrupted between two checkpoints and resumed with a new optimiser, a run has the same bits."""

    def stop(step, loss, kernel):
        if step == 7:
            raise KeyboardInterrupt

    def learn(**options):
        return lab.learn_kernel(lab.asarray(X), lab.asarray(Y), 3, **OPTIONS, optimizer=optimizer(), **options)

    whole = learn()
    kept = {"checkpoint": tmp_path / "run", "checkpoint_every": 3}
    with pytest.raises(KeyboardInterrupt):
        learn(callback=stop, **kept)
    steps = []
    resumed = learn(callback=lambda step, *_: steps.append(step), **kept)
    assert steps == list(range(6, 12))
    assert resumed.losses == whole.losses
    for actual, expected in ((resumed.kernel, whole.kernel), (resumed.bias, whole.bias)):
        assert lab.to_numpy(actual).tobytes() == lab.to_numpy(expected).tobytes()


def check_alike(lab, learned, losses, kernel, bias) -> None:
    """Against a loop of the framework's own: float32's rounding of 12 steps, their slopes summed over 180 pixels."""
    assert len(learned.losses) == 12
    assert learned.lr is None
    np.testing.assert_allclose(learned.losses, losses, rtol=2e-5)
    np.testing.assert_allclose(lab.to_numpy(learned.kernel), kernel, atol=2e-5)
    np.testing.assert_allclose(lab.to_numpy(learned.bias), bias, atol=2e-5)
    assert losses[-1] < losses[0]
