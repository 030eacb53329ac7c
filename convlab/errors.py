"""The errors that convlab raises: each says what it got and what it expected, and gives a hint.

Every error is a `ConvlabError`, and also the built-in error that a caller would think of first (`ValueError`,
`TypeError`, …).
"""

from __future__ import annotations

import inspect


class ConvlabError(Exception):
    """The base of every error of convlab.

    >>> print(ConvlabError("stride: got 0.", hint="Use stride=1."))
    stride: got 0. Hint: Use stride=1.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message} Hint: {hint}" if hint else message)


class ShapeError(ConvlabError, ValueError):
    """An array has the wrong rank or the wrong sizes."""


class GeometryError(ConvlabError, ValueError):
    """A stride, padding, dilation, group count or another option has a value that makes no sense."""


class OptionError(ConvlabError, TypeError):
    """An argument has a name that isn't known, is missing, or is given twice."""


class DTypeError(ConvlabError, TypeError):
    """An array isn't numeric, or the backend has no such dtype."""


class MixedBackendsError(ConvlabError, TypeError):
    """The tensors of one call belong to different frameworks."""


class MixedDevicesError(ConvlabError, ValueError):
    """The tensors of one call live on different devices."""


class IntegerOverflowError(ConvlabError, OverflowError):
    """An exact integer result doesn't fit into int64."""


class CaseFileError(ConvlabError, ValueError):
    """A file with a case can't be read or written, or its content is wrong."""


class UnsupportedError(ConvlabError, NotImplementedError):
    """The request makes sense, but this backend can't do it."""


class UnknownBackendError(ConvlabError, LookupError):
    """No installed adapter has that name."""


class DuplicateBackendError(ConvlabError, LookupError):
    """Two installed distributions provide an adapter of the same name."""


class BackendNotInstalled(ConvlabError, ModuleNotFoundError):
    """The framework behind a backend isn't installed."""


class BackendBroken(ConvlabError, ImportError):
    """The framework behind a backend is installed and fails to import; `__cause__` says why."""


class ExtraNotInstalled(ConvlabError, ModuleNotFoundError):
    """A package that one of convlab's extras brings isn't installed."""


class DataError(ConvlabError, ValueError):
    """Nothing can be learned from the pixels: some aren't finite, or there are too few."""


class DivergedError(ConvlabError, ArithmeticError):
    """Gradient descent diverged, for example because the learning rate is too large."""


class CheckpointError(ConvlabError, ValueError):
    """A checkpoint can't be read, or belongs to another problem."""


class ModelError(ConvlabError, ValueError):
    """An object isn't a model of a known framework, or one of its layers can't be read, ported or compared."""


class PortError(ModelError):
    """A ported model doesn't compute the same as the original."""


class ModelFileError(ConvlabError, ValueError):
    """A file of a model can't be read, or its content is wrong."""


class LayoutWarning(UserWarning):
    """An image looks as if its channels came last, and is taken as one whose channels come first."""


class RankDeficientWarning(UserWarning):
    """The images don't determine the kernel: other kernels fit them as well."""


class PartialPortWarning(UserWarning):
    """A part of a model was left out when it was ported, so that the other framework has only some of its parts."""


def callers_level() -> int:
    """The `stacklevel` of a warning, counted from the function that calls this one, of the code that called convlab."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "convlab":
        frame, level = frame.f_back, level + 1
    return level
