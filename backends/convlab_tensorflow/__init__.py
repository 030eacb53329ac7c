"""convlab on TensorFlow and Keras."""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING

from convlab.contract.adapter import Adapter, is_instance

if TYPE_CHECKING:
    from convlab.lab import Backend

    from .layers import Conv2D as _Conv2D

    class _Lab(Backend):
        Conv2D: type[_Conv2D]

    lab: _Lab


# Here PyPI has a build without the GPU's 400 MB; `tensorflow` itself serves as well.
_CPU_BUILD = sys.platform == "linux" and platform.machine() == "x86_64"


def is_native(x: object) -> bool:
    """Whether x is a TensorFlow tensor or variable, or a Keras variable; imports nothing."""
    return is_instance(x, "tensorflow", "Tensor", "Variable") or is_instance(x, "keras", "Variable")


adapter = Adapter(
    name="tensorflow",
    aliases=("keras", "tf"),
    package="convlab_tensorflow",
    frameworks=("tensorflow", "keras"),
    is_native=is_native,
    minimum="2.18",
    dtypes=("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
    models=True,
    is_model=lambda model: is_instance(model, "keras", "Layer"),
    algorithms=("native", "taps", "phase", "fft"),
    image_layout="NHWC",
    install=("tensorflow-cpu>=2.18",) if _CPU_BUILD else ("tensorflow>=2.18",),
)
