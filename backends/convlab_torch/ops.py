"""PyTorch's side of the contract."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, is_autocast_enabled
from torch.compiler import is_compiling

from convlab.contract.call import Call
from convlab.contract.operations import Mode, Operations
from convlab.contract.rule import CODE, Part, Rule
from convlab.correlation.compute import compute, gradients_of_rule
from convlab.geometry.geometry import NO_PADDING, Geometry, Pair, idle_strides

from . import adapter, private

_PLAIN = (Tensor, torch.nn.Parameter)


class TorchOperations(Operations[Tensor]):
    adapter = adapter

    @property
    def version(self) -> str:
        return torch.__version__

    def devices(self) -> list[str]:
        cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        return ["cpu", *cuda, "mps"] if torch.backends.mps.is_available() else ["cpu", *cuda]

    def device(self, x: Tensor) -> Hashable:
        return x.device

    def is_concrete(self, x: Any) -> bool:
        inside = is_compiling() or private.is_wrapped(x)
        return not inside and type(x) in (Tensor, torch.nn.Parameter) and x.device.type != "meta"

    def shape(self, x: Tensor) -> tuple[int, ...]:
        return tuple(x.shape)

    def dtype(self, x: Tensor) -> str:
        return str(x.dtype)[6:]

    def asarray(self, array: np.ndarray, dtype: str, like: Any = None) -> Tensor:
        device = None if like is None else like.device
        if array.dtype.name == "bfloat16":
            array = array.astype(np.float32)
        # A copy: the tensor must not change when the caller's array does (and some strides torch can't view).
        return torch.from_numpy(np.array(array, order="C")).to(device=device, dtype=getattr(torch, dtype))

    def constant(self, array: Any) -> Tensor | None:
        return torch.as_tensor(array) if is_compiling() else None

    def to_numpy(self, x: Tensor) -> np.ndarray:
        x = x.detach().cpu().resolve_conj().resolve_neg()
        return (x.float() if x.dtype == torch.bfloat16 else x).numpy()

    def cast(self, x: Tensor, dtype: str | None) -> Tensor:
        target = x.dtype if dtype is None else getattr(torch, dtype)
        return x if x.dtype is target else x.to(target)  # `to` takes a microsecond even for nothing

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        return x.reshape(shape)

    def transpose(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return x.permute(*axes)

    def pad(self, x: Tensor, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
        return F.pad(x, [width for pair in reversed(widths) for width in pair], value=value)

    def flip(self, x: Any, axes: Sequence[int]) -> Any:
        return x.flip(tuple(axes))

    def take(self, x: Tensor, index: Sequence[int] | np.ndarray, axis: int) -> Tensor:
        return x.index_select(axis, torch.as_tensor(np.asarray(index), device=x.device))

    def stack(self, tensors: Sequence[Tensor], axis: int) -> Tensor:
        return torch.stack(list(tensors), axis)

    def where(self, condition: Tensor, x: Any, y: Any) -> Tensor:
        return torch.where(condition, x, y)

    def zeros(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return like.new_zeros(tuple(shape))

    def sum(self, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        return x.sum(axes)

    def rfft2(self, x: Tensor, size: Pair) -> Tensor:
        return torch.fft.rfft2(x, size)  # type: ignore[no-any-return]

    def irfft2(self, spectrum: Tensor, size: Pair) -> Tensor:
        return torch.fft.irfft2(spectrum, size)  # type: ignore[no-any-return]

    def conj(self, x: Tensor) -> Tensor:
        return x.conj()

    def tiles(self, x: Tensor, size: Pair, step: Pair) -> Tensor:
        return x.unfold(2, size[0], step[0]).unfold(3, size[1], step[1])

    def floor(self, x: Tensor) -> Tensor:
        return x.floor()

    def every(self, condition: Tensor) -> bool:
        return bool(condition.all())

    def mode(self, *tensors: Tensor) -> Mode:
        if not all(x.device.type == "cpu" for x in tensors):
            return "other"
        if all(self.is_concrete(x) for x in tensors):
            return "eager" if _untransformed() and all(x.layout == torch.strided for x in tensors) else "native"
        # An exported program must run where there is no convlab.
        return "native" if torch.compiler.is_exporting() or not _transforming() else "deferred"

    def as_host(self, x: Tensor) -> np.ndarray:
        if x.is_neg():  # the numbers in its memory have the other sign
            x = x.resolve_neg()
        return x.detach().numpy() if x.requires_grad else x.numpy()

    def from_host(self, array: np.ndarray, like: Tensor) -> Tensor:
        return torch.from_numpy(array)

    def records(self, *tensors: Tensor | None) -> bool:
        graded = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
        return graded or private.in_forward_mode()

    def signature(self, x: Any, k: Any, b: Any) -> Hashable | None:
        if type(k) not in _PLAIN or type(x) not in _PLAIN or not _untransformed() or private.in_forward_mode():
            return None
        devices = None if x.is_cpu and k.is_cpu else (x.device, k.device)
        graded = (x.requires_grad or k.requires_grad) and torch.is_grad_enabled()
        if b is None:
            return x.shape, x.dtype, x.layout, k.shape, k.dtype, devices, graded
        if type(b) not in _PLAIN:
            return None
        graded = graded or (b.requires_grad and torch.is_grad_enabled())
        return x.shape, x.dtype, x.layout, k.shape, k.dtype, devices, graded, b.shape, b.dtype, b.device

    def prepare(self, call: Call) -> Callable[..., Any] | None:
        g, (images, weights) = call.geometry, call.canonical_shapes()
        (top, bottom), (left, right) = g.padding
        plain = call.algorithm == "native" and g.data_format == "NCHW" and (top, left) == (bottom, right)
        if not plain or g.padding_mode != "zeros" or idle_strides(g, images[2:]):
            return None
        options = g.stride, (top, left), g.dilation, g.groups
        if len(call.kernel) == 4 and options == ((1, 1), (0, 0), (1, 1), 1):  # without options a call is faster
            return F.conv2d
        if len(call.kernel) == 4:
            return lambda x, k, b: F.conv2d(x, k, b, *options)
        shape: tuple[Any, ...] = (*call.image[:-2], *g.output_size(images[2:]))
        return lambda x, k, b: F.conv2d(
            x.reshape(images), k.reshape(weights), None if b is None else b.reshape(1), *options
        ).reshape(shape)

    def part(self, x: Tensor, start: int, size: int, axis: int) -> Tensor:
        return x.narrow(axis, start, size)

    def subtract_product(self, total: Tensor, a: Tensor, b: Tensor) -> Tensor:
        # Integers come here under vmap too, which has no addcmul_.
        return total.addcmul_(a, b, value=-1) if total.is_floating_point() else total - a * b

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return torch.no_grad()(function)

    def apply(self, rule: Rule, *inputs: Tensor) -> Tensor:
        graded = self.records(*inputs)
        if not graded and not _transforming():
            return compute(self, rule, *inputs)
        if not is_compiling():
            return _Dual.apply(*rule.encode(), *inputs)  # type: ignore[no-any-return, no-untyped-call]
        if not graded:  # dynamo would give `forward` a context that it has no argument for
            return _compute(rule.encode(), list(inputs))  # type: ignore[no-any-return]
        return _Apply.apply(*rule.encode(), *inputs)  # type: ignore[no-any-return, no-untyped-call]

    def conv_transpose(self, y: Tensor, kernel: Tensor, geometry: Geometry, output_padding: Pair) -> Tensor:
        if geometry.data_format == "NHWC":
            y, kernel = y.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1).contiguous()
            x = self.conv_transpose(y, kernel, geometry._replace(data_format="NCHW"), output_padding)
            return x.permute(0, 2, 3, 1)
        # PyTorch takes as much off both ends; the rest is cut off after it.
        both = [min(pads) for pads in geometry.padding]
        x = F.conv_transpose2d(
            y, kernel, None, geometry.stride, both, output_padding, geometry.groups, geometry.dilation
        )
        (top, bottom), (left, right) = (
            [n - least for n in pads] for pads, least in zip(geometry.padding, both, strict=True)
        )
        return x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right] if top + bottom + left + right else x

    def conv_gradient(self, part: Part, a: Tensor, b: Tensor, geometry: Geometry, size: Pair) -> Tensor:
        (top, bottom), (left, right) = geometry.padding
        height, width = size if part == "x" else (a.shape[2], a.shape[3])
        if (top, left) != (bottom, right):
            inner, padded = geometry._replace(padding=NO_PADDING), (height + top + bottom, width + left + right)
            if part == "k":
                return self.conv_gradient("k", F.pad(a, [left, right, top, bottom]), b, inner, padded)
            dx = self.conv_gradient("x", a, b, inner, padded)
            return dx[:, :, top : top + height, left : left + width]
        if part == "x":
            dy, x, k = a, a.new_empty(1).expand(a.shape[0], b.shape[1] * geometry.groups, *size), b
        else:
            shape = b.shape[1], a.shape[1] // geometry.groups, *geometry.kernel_size
            dy, x, k = b, a, a.new_empty(1).expand(shape)
        slopes = torch.ops.aten.convolution_backward(
            dy,
            x,
            k,
            None,
            geometry.stride,
            (top, left),
            geometry.dilation,
            False,
            (0, 0),
            geometry.groups,
            (part == "x", part == "k", False),
        )
        return slopes[0 if part == "x" else 1]  # type: ignore[no-any-return]

    def vjp(self, function: Callable[..., Any], inputs: Sequence[Tensor], dy: Tensor) -> tuple[Tensor, ...]:
        leaves = [x.detach().requires_grad_() for x in inputs]
        return torch.autograd.grad(function(*leaves), leaves, dy)

    def conv(self, x: Tensor, kernel: Tensor, geometry: Geometry) -> Tensor:
        if geometry.data_format == "NHWC":
            # The permuted image is torch's channels_last and isn't copied. The small kernel is copied, because torch's
            # float64 gradient wants it contiguous.
            y = self.conv(
                x.permute(0, 3, 1, 2),
                kernel.permute(3, 2, 0, 1).contiguous(),
                geometry._replace(data_format="NCHW"),
            )
            return y.permute(0, 2, 3, 1)
        (top, bottom), (left, right) = geometry.padding
        stride = geometry.stride
        idle = idle_strides(geometry, (x.shape[2], x.shape[3]))
        if idle or (top, left) != (bottom, right):
            x = F.pad(x, [left, right, top, bottom])
            top = left = 0
        if idle:
            x, stride = x[:, :, : idle.size[0], : idle.size[1]].contiguous(), idle.stride
        return F.conv2d(x, kernel, None, stride, (top, left), geometry.dilation, geometry.groups)


def _transforming() -> bool:
    return is_compiling() or private.is_transforming()


def _untransformed() -> bool:
    """Whether operations are simply computed, and nothing traces, transforms or casts them."""
    if _transforming() or private.has_dispatch_mode() or is_autocast_enabled("cpu"):
        return False
    return not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]


@torch.library.custom_op("convlab::compute", mutates_args=())
def _compute(code: Sequence[int], inputs: Sequence[Tensor]) -> Tensor:
    """A rule's result. To torch.compile it is one operator, into which it can't look, and so can't reorder."""
    # A gradient may be a part of a larger tensor; the operator's result is contiguous, as `register_fake` says.
    return compute(ops, Rule.decode(code), *inputs).contiguous()


@_compute.register_fake
def _(code: Sequence[int], inputs: Sequence[Tensor]) -> Tensor:
    return inputs[0].new_empty(Rule.decode(code).output_shape(*(x.shape for x in inputs)))


@_compute.register_vmap
def _(info: Any, batched: Any, code: Sequence[int], inputs: Sequence[Tensor]) -> tuple[Tensor, int]:
    batch = (
        [x if axis is None else x.select(axis, i) for x, axis in zip(inputs, batched[1], strict=True)]
        for i in range(info.batch_size)
    )
    return torch.stack([_compute(code, one) for one in batch]), 0


class _Apply(torch.autograd.Function):
    """`_compute` with the rule's gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> Tensor:
        code, inputs = arguments[:CODE], arguments[CODE:]
        if _transforming():
            return _compute(list(code), list(inputs))  # type: ignore[no-any-return]
        y = compute(ops, Rule.decode(code), *inputs)
        return y.clone() if private.is_view(y) else y  # type: ignore[no-any-return]  # forward mode takes no views

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.code = inputs[:CODE]
        ctx.save_for_backward(*inputs[CODE:])
        ctx.save_for_forward(*inputs[CODE:])

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        rule = Rule.decode(ctx.code)
        return *(None,) * CODE, *gradients_of_rule(ops, rule, ctx.saved_tensors, dy, ctx.needs_input_grad[CODE:])


class _Dual(_Apply):
    """`_Apply` with forward mode, which torch.compile would refuse."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        rule, (a, b), (da, db) = Rule.decode(ctx.code), ctx.saved_tensors, tangents[CODE:]
        pairs = [(u, v) for u, v in ((da, b), (a, db)) if u is not None and v is not None]
        first, *others = [ops.apply(rule, *pair) for pair in pairs]
        return first + others[0] if others else first


ops = TorchOperations()
