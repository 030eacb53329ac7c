"""The parts of the parity suite: an oracle, rounding bounds computed from the data, and cases.

>>> import numpy as np
>>> X, K = np.ones((4, 4), "float32"), np.full((2, 2), 0.1, "float32")
>>> float(error_bound(X, K)[0, 0]) < 2e-7
True
"""

from ..truth.bounds import descent, error_bound, error_ratios, gradient_bounds, overflows, worst_ratio
from ..truth.diagnosis import Diagnosis, diagnose
from ..truth.oracle import Gradients, oracle, oracle_gradients, reproducible_gradients
from ..truth.transposed import transposed_error_bound, transposed_oracle
from .assertion import assert_parity
from .cases import KINDS, Case, fill, golden_cases, random_case
from .tasks import gradients

__all__ = [
    "KINDS",
    "Case",
    "Diagnosis",
    "Gradients",
    "assert_parity",
    "descent",
    "diagnose",
    "error_bound",
    "error_ratios",
    "fill",
    "golden_cases",
    "gradient_bounds",
    "gradients",
    "oracle",
    "oracle_gradients",
    "overflows",
    "random_case",
    "reproducible_gradients",
    "transposed_error_bound",
    "transposed_oracle",
    "worst_ratio",
]
