"""What the chapter's training loops must end with: gradient descent from the same kernel, in float64."""

from __future__ import annotations

import numpy as np

from convlab import chapter, corr2d
from convlab.testing import descent

EDGES = chapter.edge_image()
TARGET = corr2d(EDGES, chapter.EDGE_KERNEL)
LR = 3e-2


def check(start, end, losses) -> None:
    """The kernel after ten steps from a start, and the loss before each."""
    path = descent(EDGES, TARGET, np.reshape(start, (1, 2)), lr=LR, num_steps=10)
    assert np.abs(np.reshape(end, (1, 2)) - path.kernel).max() <= path.kernel_bound
    assert (np.abs(np.array(losses) - path.losses) <= path.loss_bounds).all()
