"""What a model's code calls between its layers, found in a traced program."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from convlab.models.layers.spatial import to_first, to_last

from .across_channels import anchors, gated_linear_unit, pixel_unshuffle
from .activations import ACTIVATIONS, with_number
from .attention import class_token, first_pixel, first_token, positions
from .moving import channel_slice, chunk, crop, pixel_shuffle, subsample, unflatten, upsample, upsample_aligned
from .pooling import adaptive_pool
from .program import Constant, Equation, Program, Value, computed_array, source_of
from .read import MODES, affine, average_of_window, channel_affine, flatten
from .resizing import resize, resize_as_torch

# Those of which one more may compute the same images of a size.
_OF_A_SIZE = (adaptive_pool, nn.max_pool, nn.avg_pool, resize, resize_as_torch)
# From the result of an activation to its parameter.
_STEPS = 4
_Candidates = Iterator[tuple[Callable[..., Any], dict[str, Any]]]


class Function(NamedTuple):
    """A function with its further arguments."""

    function: Callable[..., Any]
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def native(self) -> Any:
        """It, as a model has it."""
        return functools.partial(self.function, **dict(self.options)) if self.options else self.function


def functions_of(value: Value) -> tuple[list[Function], Value | None]:
    """The functions that may compute a value, and of which other one.

    There are several where they differ only for images of other sizes; none where no function is known.
    """
    functions: list[Function] = []
    source: Value | None = None
    for like, function, options in _candidates(value):
        if functions and function not in _OF_A_SIZE:
            break
        candidate = Function(function, tuple(options.items()))
        pattern = _pattern(candidate, like.shape, np.dtype(like.dtype).name)
        x = source_of(pattern, value) if pattern else None
        if x is not None and x is not value and source in (None, x):
            functions.append(candidate)
            source = x
    if functions:
        return functions, source
    with_numbers = _affine(value) or _clip(value) or _of_channels(value) or _of_tokens(value) or _part(value)
    return with_numbers or _reshaped(value)


@functools.lru_cache(maxsize=1024)
def _pattern(function: Function, shape: tuple[int, ...], dtype: str) -> Program | None:
    """What a function computes for an array; None if it doesn't take it."""
    try:
        return Program(function.native, jax.ShapeDtypeStruct(shape, dtype))  # type: ignore[no-untyped-call]
    except (TypeError, ValueError):
        return None


def _candidates(value: Value) -> Iterator[tuple[Value, Callable[..., Any], dict[str, Any]]]:
    """What may compute a value, each with a value that is like what it takes."""
    # What stands before a resize may be another one; inside it each axis is resized by itself.
    for image in reversed([*_before_call(value, "_resize")]):
        yield from ((image, *each) for each in _upsamplings(image, value))
    for image in _before_call(value, "upsample_aligned"):
        yield from ((image, *each) for each in _upsamplings(image, value, aligned=True))
    for image in _before_call(value, "resize_as_torch"):
        options = ({"size": value.shape[1:3], "method": method} for method in ("nearest", "aligned"))
        yield from ((image, resize_as_torch, each) for each in options)
    for image in _before_call(value, "adaptive_pool"):
        options = ({"function": function, "size": value.shape[1:-1]} for function in ("max", "average"))
        yield from ((image, adaptive_pool, each) for each in options)
    for equation in _before(value):
        x = equation.inputs[0] if equation.inputs else None
        of_rows = isinstance(x, Value) and len(x.shape) == 2 and equation.primitive in _OF_ROWS
        if isinstance(x, Value) and (of_rows or 3 <= len(x.shape) <= 5):
            if equation.name == "_pad" and equation.primitive != "pad":
                x = [value, *_before_call(value, "_pad")][-1]
            yield from ((x, *each) for each in _over_pixels(equation, x, value))
    yield from ((value, *each) for each in (*ACTIVATIONS, *_with_factors(value)))


_OF_ROWS = ("reduce_sum", "reduce_max", "slice")


def _over_pixels(equation: Equation, x: Value, value: Value) -> _Candidates:
    """What may compute a value of an image x by an equation that looks at more than one pixel at once."""
    if equation.primitive in ("reduce_window_max", "reduce_window_sum"):
        yield from _pools(equation, x)
    elif equation.primitive in ("reduce_sum", "reduce_max"):
        for reduce in (jnp.mean, jnp.sum) if equation.primitive == "reduce_sum" else (jnp.max,):
            if equation.params["axes"] == _inner(x):
                yield from ((reduce, {"axis": _inner(x), **keepdims}) for keepdims in ({}, {"keepdims": True}))
            elif equation.params["axes"] == (len(x.shape) - 1,):
                yield reduce, {"axis": -1, "keepdims": True}
    elif equation.primitive == "split":
        yield gated_linear_unit, {}
    elif equation.primitive == "pad":
        yield from _constant_pads(equation)
    elif equation.name == "_pad" and len(value.shape) == len(x.shape):
        yield from _pads(x, value)
    elif equation.primitive == "slice":
        yield from _slices(equation, x)
    elif equation.primitive == "reshape" and len(value.shape) == 4:
        yield from _rearranged(x.shape, value.shape)


def _rearranged(before: tuple[int, ...], after: tuple[int, ...]) -> _Candidates:
    """What may make pixels of channels, or channels of pixels."""
    if after[1] == before[1] and after[2] > before[2]:
        yield anchors, {"count": after[2] // before[2]}
    elif after[1] > before[1]:
        yield from ((pixel_shuffle, {"factor": after[1] // before[1], "channels_last": last}) for last in (False, True))
    elif after[1] < before[1] and len(before) == 4:
        yield from (
            (pixel_unshuffle, {"factor": before[1] // after[1], "channels_last": last}) for last in (False, True)
        )


def _inner(x: Value) -> tuple[int, ...]:
    """The axes of images (N, H, W, C), or of others, between those of images and of channels."""
    return tuple(range(1, len(x.shape) - 1))


def _before(value: Value) -> Iterator[Equation]:
    """The last three equations that give a value, each the first input of the next."""
    given: Value | Constant = value
    for _ in range(3):
        if not isinstance(given, Value) or given.by is None or not given.by.inputs:
            return
        yield given.by
        given = given.by.inputs[0]


# What an operation with a number, or with an array of them, is as a scale or a shift.
_WITH_NUMBERS: dict[str, Callable[[Any], tuple[str, Any]]] = {
    "add": lambda shift: ("shift", shift),
    "sub": lambda shift: ("shift", -shift),
    "mul": lambda scale: ("scale", scale),
    "div": lambda scale: ("scale", 1 / scale),
}


def _affine(value: Value) -> tuple[list[Function], Value | None] | None:
    """The function that a sum or a product with a number is; None for anything else."""
    assert value.by is not None
    x, number = value.by.inputs if len(value.by.inputs) == 2 else (None, None)
    if isinstance(x, Constant) and value.by.primitive in ("add", "mul"):
        x, number = number, x
    if not isinstance(x, Value) or not isinstance(number, Constant) or not number.is_number:
        return None
    if value.by.primitive not in _WITH_NUMBERS:
        return None
    return [Function(affine, (_WITH_NUMBERS[value.by.primitive](_short(number)),))], x


def _clip(value: Value) -> tuple[list[Function], Value | None] | None:
    """The function that a minimum and a maximum with numbers are, or one of them; None for anything else."""
    limits: dict[str, float] = {}
    for primitive, name in (("min", "max"), ("max", "min")):
        if value.by is not None and value.by.primitive == primitive:
            x, number = value.by.inputs
            x, number = (number, x) if isinstance(x, Constant) else (x, number)
            if not isinstance(x, Value) or not isinstance(number, Constant) or not number.is_number:
                break
            value, limits[name] = x, _short(number)
    return ([Function(jnp.clip, tuple(limits.items()))], value) if limits else None


def _of_channels(value: Value) -> tuple[list[Function], Value | None] | None:
    """The function that a sum or a product with an array of a number for each channel is; None for anything else."""
    assert value.by is not None
    x, other = value.by.inputs if len(value.by.inputs) == 2 else (None, None)
    if value.by.primitive in ("add", "mul") and isinstance(other, Value) and other.varies:
        x, other = other, x
    numbers = None if other is None else computed_array(other)
    if not isinstance(x, Value) or not x.varies or numbers is None or numbers.dtype != x.dtype:
        return None
    if numbers.size != x.shape[-1] or numbers.shape[-1:] != x.shape[-1:] or x.shape != value.shape:
        return None
    if value.by.primitive not in _WITH_NUMBERS:
        return None
    with np.errstate(divide="ignore"):
        name, scale_or_shift = _WITH_NUMBERS[value.by.primitive](numbers.reshape(-1))
    return [Function(channel_affine, ((name, tuple(map(float, scale_or_shift))), ("dtype", numbers.dtype.name)))], x


def _part(value: Value) -> tuple[list[Function], Value | None] | None:
    """The function that one of the results of `jnp.split` along the channels is; None for anything else."""
    x = value.by.inputs[0] if value.by is not None and value.by.primitive == "split" else None
    if value.by is None or not isinstance(x, Value) or value.by.params["axis"] != len(x.shape) - 1:
        return None
    sizes = [int(size) for size in value.by.params["sizes"]]
    start, size = sum(sizes[: value.place]), sizes[value.place]
    if x.shape[-1] % size == start % size == 0:
        return [Function(chunk, (("index", start // size), ("count", x.shape[-1] // size)))], x
    stop = start + size
    return [Function(channel_slice, (("start", start), ("stop", stop if stop < x.shape[-1] else 0)))], x


def _of_tokens(value: Value) -> tuple[list[Function], Value | None] | None:
    """The function that puts a known token before others, or adds known positions; None for anything else."""
    assert value.by is not None
    first, x = value.by.inputs if len(value.by.inputs) == 2 else (None, None)
    if value.by.primitive == "add" and isinstance(first, Value) and first.varies:
        first, x = x, first
    numbers = None if first is None else computed_array(first)
    if not isinstance(x, Value) or not x.varies or numbers is None or numbers.dtype != x.dtype:
        return None
    if len(x.shape) not in (3, 4) or numbers.ndim == 0 or (numbers != numbers[:1]).any():
        return None  # It may be another one for each image.
    of_one, dtype = tuple(map(float, numbers[0].reshape(-1))), ("dtype", numbers.dtype.name)
    if (
        value.by.primitive == "concatenate"
        and value.by.params["dimension"] == 1
        and numbers.shape[1:] == (1, x.shape[2])
    ):
        return [Function(class_token, (("token", of_one), dtype))], x
    if value.by.primitive == "add" and numbers.shape[1:] == x.shape[1:] and value.shape == x.shape:
        size = *x.shape[1:-1], 1
        return [Function(positions, (("numbers", of_one), ("size", size[:2]), dtype))], x
    return None


def _short(number: Constant) -> float:
    """A number as short as its dtype lets it be."""
    return float(str(np.asarray(number.array)[()]))


def _reshaped(value: Value) -> tuple[list[Function], Value | None]:
    """The function that a change of the shape is."""
    assert value.by is not None
    x = value.by.inputs[0]
    if value.by.primitive in ("reshape", "squeeze", "broadcast_in_dim") and isinstance(x, Value):
        if 3 <= len(x.shape) <= 5 and value.shape == (x.shape[0], math.prod(x.shape[1:])):
            before = x.by.inputs[0] if x.by is not None and _is_transposed(x.by, to_first(len(x.shape) - 2)) else None
            if isinstance(before, Value):
                return [Function(flatten, (("order", "CHW"),))], before
            return [Function(flatten)], x
        if len(x.shape) == 2 and 3 <= len(value.shape) <= 5 and value.shape[0] == x.shape[0]:
            return [Function(unflatten, _options(value.shape[1:-1], "HWC"))], x
    if _is_transposed(value.by, to_last(len(value.shape) - 2)) and isinstance(x, Value):
        functions, rows = _reshaped(x) if x.by is not None else ([], None)
        if functions and functions[0].function is unflatten:
            return [Function(unflatten, _options(x.shape[2:], "CHW"))], rows
    return [], None


def _is_transposed(equation: Equation, permutation: tuple[int, ...]) -> bool:
    return bool(equation.primitive == "transpose" and equation.params["permutation"] == permutation)


def _options(size: Any, order: str) -> tuple[tuple[str, Any], ...]:
    return ("size", tuple(map(int, size))), ("order", order)


def _pools(equation: Equation, x: Value) -> _Candidates:
    window, strides, pads = (equation.params[name][1:-1] for name in ("window_dimensions", "window_strides", "padding"))
    maximum = equation.primitive == "reduce_window_max"
    if not maximum and window == x.shape[1:-1]:
        of_rank = {} if len(window) == 2 else {"rank": len(window)}
        yield average_of_window, {"strided": strides == window, **of_rank}
    options = {"window_shape": tuple(window), "strides": tuple(strides)}
    explicit: Any = "VALID" if not any(map(any, pads)) else tuple((int(before), int(after)) for before, after in pads)
    for further in [{}] if maximum else [{}, {"count_include_pad": False}]:
        for padding in (explicit, "SAME"):
            yield nn.max_pool if maximum else nn.avg_pool, {**options, "padding": padding, **further}


def _constant_pads(equation: Equation) -> _Candidates:
    border, config = equation.inputs[1], equation.params["padding_config"]
    if isinstance(border, Constant) and not any(between for _, _, between in config):
        widths = tuple((int(before), int(after)) for before, after, _ in config)
        yield jnp.pad, {"pad_width": widths, "constant_values": float(border.array)}


def _upsamplings(x: Value, value: Value, aligned: bool = False) -> _Candidates:
    if not 3 <= len(x.shape) == len(value.shape) <= 5:
        return
    sizes = [*zip(x.shape[1:-1], value.shape[1:-1], strict=True)]
    whole = all(after % before == 0 for before, after in sizes)
    factor = tuple(after // before for before, after in sizes)
    if aligned:
        yield from [(upsample_aligned, {"factor": factor})] if whole else []
        return
    for method in ("nearest", "bilinear"):
        yield from [(upsample, {"factor": factor, "method": method})] if whole else []
        yield from [(resize, {"size": value.shape[1:-1], "method": method})] if len(sizes) == 2 else []


def _slices(equation: Equation, x: Value) -> _Candidates:
    """The crop or the part of the channels that a slice is."""
    starts, limits = equation.params["start_indices"], equation.params["limit_indices"]
    if (steps := equation.params["strides"]) is not None:
        if len(x.shape) != 4:
            return
        yield subsample, {"start": tuple(map(int, starts[1:3])), "step": tuple(map(int, steps[1:3]))}
        return
    if tuple(limits[1:-1]) == (1,):
        yield first_token, {}
    if tuple(limits[1:-1]) == (1, 1):
        yield first_pixel, {}
    pads = tuple((int(start), int(n - limit)) for start, limit, n in zip(starts, limits, x.shape, strict=True))
    start, limit, channels = int(starts[-1]), int(limits[-1]), x.shape[-1]
    size = limit - start
    if pads[0] == pads[-1] == (0, 0):
        yield crop, {"pads": pads[1:-1]}
    elif not any(map(any, pads[:-1])) and channels % size == 0 and start % size == 0:
        yield chunk, {"index": start // size, "count": channels // size}
    elif not any(map(any, pads[:-1])):
        yield channel_slice, {"start": start, "stop": limit if limit < channels else 0}


def _before_call(value: Value, name: str) -> Iterator[Value]:
    """What the functions of JAX's of this name took, one before another, that give a result."""
    while value.by is not None and value.by.name == name:
        inputs = [each for each in value.by.inputs if isinstance(each, Value)]
        value = max(inputs, key=lambda each: (each.varies, math.prod(each.shape)))
        yield value


def _pads(x: Value, value: Value) -> _Candidates:
    """The borders of repeated pixels that make an image as large as another one, even ones first."""
    more = [after - before for before, after in zip(x.shape[1:-1], value.shape[1:-1], strict=True)]
    splits = [*itertools.product(*([(start, total - start) for start in range(total + 1)] for total in more))]
    splits.sort(key=lambda split: sum(abs(before - after) for before, after in split))
    for split, mode in itertools.product(splits, MODES.values()):
        yield jnp.pad, {"pad_width": ((0, 0), *split, (0, 0)), "mode": mode}


def _with_factors(value: Value) -> _Candidates:
    """The activations with a parameter, which is one of the numbers that are computed with last."""
    numbers, level = dict[float, None](), [value]
    for _ in range(_STEPS):
        inputs = [each for value in level if value.by is not None for each in value.by.inputs]
        numbers |= {_short(each): None for each in inputs if isinstance(each, Constant) and each.is_number}
        level = [each for each in inputs if isinstance(each, Value)]
    for number in numbers:
        yield from with_number(number)
