"""PyTorch's side of the contract."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from convlab.contract import Operations
from convlab.geometry import Geometry, idle_strides
from convlab.reproducible import Rule


class TorchOperations(Operations):
    @property
    def version(self) -> str:
        return torch.__version__

    def devices(self) -> list[str]:
        found = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        return ["cpu", *found, *(["mps"] if torch.backends.mps.is_available() else [])]

    def device(self, x: Tensor) -> Hashable:
        return x.device

    def is_concrete(self, x: Any) -> bool:
        # torch has no public name for what vmap and grad wrap
        inside = torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(x)
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
        return torch.as_tensor(array) if torch.compiler.is_compiling() else None

    def to_numpy(self, x: Tensor) -> np.ndarray:
        x = x.detach().cpu().resolve_conj().resolve_neg()
        return (x.float() if x.dtype == torch.bfloat16 else x).numpy()

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        wanted = getattr(torch, dtype)
        return x if x.dtype is wanted else x.to(wanted)  # the call alone takes a microsecond

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        return x.reshape(shape)

    def transpose(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return x.permute(*axes)

    def pad(self, x: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
        return F.pad(x, [width for pair in reversed(widths) for width in pair])

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

    def part(self, x: Tensor, start: int, size: int, axis: int) -> Tensor:
        return x.narrow(axis, start, size)

    def subtract_product(self, total: Tensor, a: Tensor, b: Tensor) -> Tensor:
        # Integers come here under vmap too, which has no addcmul_.
        return total.addcmul_(a, b, value=-1) if total.is_floating_point() else total - a * b

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return torch.no_grad()(function)  # type: ignore[no-any-return]

    def apply(self, rule: Rule, *inputs: Tensor) -> Tensor:
        code = rule.encode()
        graded = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
        if torch.compiler.is_compiling() and not graded:  # dynamo would call forward with a context it doesn't take
            return _compute(code, list(inputs))  # type: ignore[no-any-return]
        return _Apply.apply(tuple(code), *inputs)  # type: ignore[no-any-return]

    def vjp(self, function: Callable[..., Any], inputs: Sequence[Tensor], dy: Tensor) -> tuple[Tensor, ...]:
        leaves = [x.detach().requires_grad_() for x in inputs]
        return torch.autograd.grad(function(*leaves), leaves, dy)

    def conv(self, x: Tensor, kernel: Tensor, geometry: Geometry) -> Tensor:
        if geometry.data_format == "NHWC":
            # Permuted, an NHWC tensor is torch's channels_last and isn't copied. The small kernel is: torch's
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


@torch.library.custom_op("convlab::compute", mutates_args=())
def _compute(code: Sequence[int], inputs: Sequence[Tensor]) -> Tensor:
    """A rule's result. To torch.compile it is one operator, into which it can't look, and so can't reorder."""
    return Rule.decode(code).compute(ops, *inputs)  # type: ignore[no-any-return]


@_compute.register_fake
def _(code: Sequence[int], inputs: Sequence[Tensor]) -> Tensor:
    return inputs[0].new_empty(Rule.decode(code).output_shape(*(x.shape for x in inputs)))


@_compute.register_vmap
def _(info: Any, batched: Any, code: Sequence[int], inputs: Sequence[Tensor]) -> tuple[Tensor, int]:
    each = (
        [x if axis is None else x.select(axis, i) for x, axis in zip(inputs, batched[1], strict=True)]
        for i in range(info.batch_size)
    )
    return torch.stack([_compute(code, one) for one in each]), 0


class _Apply(torch.autograd.Function):
    """`_compute` with the rule's gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(code: Sequence[int], *inputs: Tensor) -> Tensor:
        return _compute(list(code), list(inputs))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.code = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        rule = Rule.decode(ctx.code)
        return None, *rule.gradients(ops, ctx.saved_tensors, dy, ctx.needs_input_grad[1:])


ops = TorchOperations()
