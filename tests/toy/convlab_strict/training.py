"""Gradient descent: without autograd, with the gradient that convlab can compute on any backend."""

from functools import partial

import numpy as np

from convlab.learning.descent import ReproducibleDescent

from .ops import ops

Descent = partial(ReproducibleDescent, ops)


def draw(shape, groups, use_bias, dtype):
    """Where learning starts."""
    return np.random.default_rng().uniform(-1, 1, shape), np.zeros(shape[0]) if use_bias else None
