"""The errors convlab raises: each says what was given, what was expected, and a hint.

Every error is also the built-in error that a caller would think of first (`ValueError`, `TypeError`, …),
and all of them are a `ConvlabError`.
"""

from __future__ import annotations


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


class DTypeError(ConvlabError, TypeError):
    """An array isn't numeric, or the backend has no such dtype."""


class MixedBackendsError(ConvlabError, TypeError):
    """The tensors of one call belong to different frameworks."""


class MixedDevicesError(ConvlabError, ValueError):
    """The tensors of one call live on different devices."""


class IntegerOverflowError(ConvlabError, OverflowError):
    """An exact integer result doesn't fit into int64."""


class CaseFileError(ConvlabError, ValueError):
    """A file with a case can't be read, or isn't what it says."""


class UnsupportedError(ConvlabError, NotImplementedError):
    """The request makes sense, but this backend can't do it."""


class UnknownBackendError(ConvlabError, LookupError):
    """No installed adapter has that name."""


class DuplicateBackendError(ConvlabError, LookupError):
    """Two installed distributions provide an adapter of the same name."""


class BackendNotInstalled(ConvlabError, ModuleNotFoundError):
    """The framework behind a backend isn't installed."""


class BackendBroken(ConvlabError, ImportError):
    """The framework behind a backend is installed and doesn't import; the cause is kept."""


class DataError(ConvlabError, ValueError):
    """Pixels that nothing can be learned from: not finite, or too few."""


class DivergedError(ConvlabError, ArithmeticError):
    """Gradient descent ran away: the learning rate is too large."""


class CheckpointError(ConvlabError, ValueError):
    """A checkpoint can't be read, or belongs to another problem."""


class ModelError(ConvlabError, ValueError):
    """What was given is no model of a known framework, or a layer of it can't be read, ported or compared."""


class PortError(ModelError):
    """A ported model doesn't compute what the original does."""


class ModelFileError(ConvlabError, ValueError):
    """A file of a model can't be read, or isn't what it says."""


class RankDeficientWarning(UserWarning):
    """The images don't determine the kernel: others fit them as well."""


class PartialPortWarning(UserWarning):
    """Something of a model was left out when it was ported: only parts of it are in the other framework."""
