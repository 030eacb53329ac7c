"""Cross-correlation with neighbouring outputs as channels."""

from __future__ import annotations

from ..contract.arrays import T
from ..contract.operations import Operations
from ..geometry.geometry import Geometry
from .border import with_border

# The rows and columns of neighbouring outputs that `phase` computes as channels.
PHASES = (4, 4)


def phase(ops: Operations[T], x: T, kernel: T, geometry: Geometry) -> T:
    """The cross-correlation of one-channel images, with neighbouring outputs as channels of a native convolution.

    It is for libraries that compute many channels at once. The convolution has a stride: output (i * 4 + a, j * 4 + b)
    is channel 4 a + b at (i, j), and its kernel is K moved down by a and right by b, with zeros around it.
    """
    (down, right), (h, w) = PHASES, geometry.kernel_size
    n, _, height, width = ops.sizes(x)
    rows, columns = geometry.output_size((height, width))
    blocks = -(-rows // down), -(-columns // right)
    x = with_border(ops, x, geometry)
    lacking = [b * t - size for b, t, size in zip(blocks, PHASES, (rows, columns), strict=True)]
    x = ops.pad(x, ((0, 0), (0, 0), (0, lacking[0]), (0, lacking[1])))
    moved = [
        ops.pad(kernel, ((0, 0), (0, 0), (a, down - 1 - a), (b, right - 1 - b)))[0, ...]
        for a in range(down)
        for b in range(right)
    ]
    size = h + down - 1, w + right - 1
    y = ops.conv(x, ops.stack(moved, 0), Geometry(size, stride=PHASES))
    y = ops.reshape(y, (n, down, right, *blocks))
    y = ops.reshape(ops.transpose(y, (0, 3, 1, 4, 2)), (n, 1, blocks[0] * down, blocks[1] * right))
    return y[:, :, :rows, :columns]
