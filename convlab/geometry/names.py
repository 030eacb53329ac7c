"""The names of borders and layouts: convlab's own, and those of other libraries that mean one thing only.

"reflect" is convlab's, NumPy's and PyTorch's name for a mirror in the edge pixel, which isn't repeated. SciPy calls by
that name what NumPy and convlab call "symmetric".
"""

from __future__ import annotations

from ..errors import GeometryError
from .checks import choice
from .geometry import DATA_FORMATS, PADDING_MODES, PADDING_NAMES, DataFormat, PaddingMode, PaddingName

# What SciPy, NumPy, OpenCV, scipy.signal, MXNet and TensorFlow's tf.pad call each border, in lower case.
PADDING_MODE_ALIASES: dict[str, tuple[str, ...]] = {
    "zeros": ("constant", "grid-constant", "border_constant", "fill"),
    "reflect": ("mirror", "border_reflect_101", "border_reflect101", "border_default"),
    "replicate": ("nearest", "edge", "border_replicate"),
    "circular": ("wrap", "grid-wrap", "border_wrap"),
    "symmetric": ("grid-mirror", "border_reflect", "symm"),
}
# ONNX's name; TensorFlow and JAX write convlab's in upper case.
_PADDING_ALIASES: dict[str, tuple[str, ...]] = {"same": ("same_upper",)}
# Keras's names.
_DATA_FORMAT_ALIASES: dict[str, tuple[str, ...]] = {"NCHW": ("channels_first",), "NHWC": ("channels_last",)}
# The values of cv2.BORDER_….
_OPENCV: dict[int, PaddingMode] = {0: "zeros", 1: "replicate", 2: "symmetric", 3: "circular", 4: "reflect"}


def padding_mode(value: object) -> PaddingMode:
    """convlab's name for a border.

    >>> padding_mode("BORDER_REFLECT_101"), padding_mode("nearest"), padding_mode("symmetric")
    ('reflect', 'replicate', 'symmetric')

    Raises:
        GeometryError: an unknown name, or one of OpenCV's integers.
    """
    if type(value) is int and value in _OPENCV:
        raise GeometryError(
            f"padding_mode: got {value}, expected a name.", hint=f"OpenCV's border {value} is {_OPENCV[value]!r}."
        )
    if isinstance(value, str) and value.lower() in PADDING_NAMES:
        raise GeometryError(
            f"padding_mode: got {value!r}, which is a padding.",
            hint=f"padding={value.lower()!r}, padding_mode='zeros'.",
        )
    return choice("padding_mode", value, PADDING_MODES, PADDING_MODE_ALIASES)


def padding_name(value: str) -> PaddingName:
    """convlab's name for a padding.

    >>> padding_name("SAME_UPPER")
    'same'
    """
    known = {mode: (mode, *aliases) for mode, aliases in PADDING_MODE_ALIASES.items()}
    mode = next((mode for mode, names in known.items() if value.lower() in names), None)
    if mode is not None:
        raise GeometryError(
            f"padding: got {value!r}, which is a padding_mode.", hint=f"padding='same', padding_mode={mode!r}."
        )
    return choice("padding", value, PADDING_NAMES, _PADDING_ALIASES)


def data_format(value: object) -> DataFormat:
    """convlab's name for a layout; None is the default, "NCHW".

    >>> data_format(None), data_format("channels_last")
    ('NCHW', 'NHWC')
    """
    return "NCHW" if value is None else choice("data_format", value, DATA_FORMATS, _DATA_FORMAT_ALIASES)
