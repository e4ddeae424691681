"""Launches of the Triton kernels: layouts, tiles, grids. Shapes and letters as in triton_kernels.py."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
from torch import Tensor
from triton import cdiv, next_power_of_2

from search.kernels.norm_sum import triton_kernels as kernels
from search.kernels.norm_sum.arguments import memory_format

# values of a tile: more where a program ends in a reduction over its tile
SUM_TILE, REDUCE_TILE = 1024, 2048
# channels of a tile in channels-last: 128 bytes of a half type
LAST_CHANNELS = 64
# channels and tiles that a merging program reads at once
MERGE_CHANNELS, MERGE_TILES = 8, 128


def forward(
    zs: Sequence[Tensor],
    weight: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    eps: float,
    normalise: Sequence[bool],
    y: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `operator.forward_op` returns; ValueError for CPU tensors outside the interpreter.

    Beyond the operator's: `weight` may be [N, G], a column for each of G equal groups of y's channels, or None for ones; the
    last zs may be shared by targets, of fewer channels than y (see triton_kernels.py); `y`, planes of pixels side by side, is
    filled if it is given.
    """
    check_device(zs[0])
    weight, gamma, beta, running_mean, running_var = _rows(weight, gamma, beta, running_mean, running_var)
    layout = torch.contiguous_format if y is not None else memory_format(zs[0])
    if y is None:
        y = torch.empty_like(zs[0], memory_format=layout)
    views = Views.of([y, *zs], layout)
    assert views.tensors[0] is y
    scaling = (weight, gamma, beta)
    mean, var, invstd, vectors = statistics(zs, y.shape[1], eps, running_mean, running_var, normalise, scaling, views)
    count, own, period = _shape_of(zs, y.shape[1])
    batch, channels, positions = views.shape
    tiles = Tiles.of(views, SUM_TILE)
    with torch.cuda.device_of(y):
        kernels.norm_sum_fwd_kernel[(tiles.programs,)](
            *views.from_(1), mean, vectors, *views.one(0), channels, batch, positions, tiles.across, tiles.along, period,
            N=count, OWN=own, OFFSET=beta is not None, **tiles.blocks,
        )  # fmt: skip
    return y, mean, var, invstd


def statistics(
    zs: Sequence[Tensor],
    channels: int,
    eps: float,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    normalise: Sequence[bool] | None = None,
    scaling: tuple[Tensor | None, Tensor | None, Tensor | None] = (None, None, None),
    views: "Views | None" = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, unbiased variance and inverse standard deviation [N, channels] that normalise the zs, in float32; two launches.

    Last, [1 or 2, N, channels]: what a centred z is multiplied by and, with a beta, what is added then, by `scaling`: weight,
    gamma and beta as in `forward`.
    """
    count, own, period = _shape_of(zs, channels)
    if views is None:
        views = Views.of([zs[0], *zs], memory_format(zs[0]))
    batch, _, positions = views.shape
    chosen, batch_statistics = flags([True] * count if normalise is None else normalise), running_mean is None
    tiles = Tiles.of(views, REDUCE_TILE)
    mean, var, invstd = (zs[0].new_empty((count, channels), dtype=torch.float32) for _ in range(3))
    vectors = mean.new_empty((1 if scaling[2] is None else 2, count, channels))
    with torch.cuda.device_of(mean):
        partial = mean
        if batch_statistics and chosen:
            partial = mean.new_empty((2, count, channels, tiles.tiles))
            kernels.norm_sum_stats_kernel[(tiles.programs, count)](
                *views.from_(1), partial, channels, batch, positions, tiles.across, tiles.along, tiles.tiles, period,
                N=count, OWN=own, NORMALISED=chosen, **tiles.blocks,
            )  # fmt: skip
        kernels.norm_sum_merge_stats_kernel[(cdiv(channels, MERGE_CHANNELS), count)](
            partial, running_mean, running_var, *scaling, mean, var, invstd, vectors, eps, channels, batch, positions,
            tiles.along, tiles.tiles, float(batch * positions), _groups(scaling[0]), period,
            N=count, OWN=own, NORMALISED=chosen, BATCH=batch_statistics, BLOCK_B=tiles.blocks["BLOCK_B"],
            BLOCK_S=tiles.blocks["BLOCK_S"], BLOCK_C=MERGE_CHANNELS, BLOCK_T=MERGE_TILES,
        )  # fmt: skip
    return mean, var, invstd, vectors


def backward(
    grad: Tensor,
    zs: Sequence[Tensor],
    weight: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    mean: Tensor,
    invstd: Tensor,
    batch_statistics: bool,
    normalise: Sequence[bool],
    d_zs: Sequence[Tensor] | None = None,
) -> tuple[Sequence[Tensor], Tensor | None, Tensor, Tensor]:
    """What `operator.backward_op` returns; ValueError for CPU tensors outside the interpreter.

    Beyond the operator's: `weight` and `zs` as in `forward`; `d_zs`, of the zs' shapes and planes of pixels side by side, are
    filled if they are given.
    """
    check_device(grad)
    weight_like = weight
    weight, gamma, beta = _rows(weight, gamma, beta)
    # what is filled decides: the gradient, which may lie in any layout, is copied to that
    layout = torch.contiguous_format if d_zs is not None else memory_format(zs[0])
    if d_zs is None:
        d_zs = [torch.empty_like(z, memory_format=layout) for z in zs]
    count, own, period = _shape_of(zs, grad.shape[1])
    views = Views.of([grad, *zs, *d_zs], layout)
    assert all(view is d_z for view, d_z in zip(views.tensors[1 + count :], d_zs, strict=True))
    batch, channels, positions = views.shape
    through = flags(normalise) if batch_statistics else 0
    tiles = Tiles.of(views, REDUCE_TILE)
    partial = mean.new_empty((count + 1, channels, tiles.tiles))
    d_gamma, d_beta = torch.empty_like(mean), torch.empty_like(mean)
    vectors = mean.new_empty((4, count, channels))
    with torch.cuda.device_of(grad):
        kernels.norm_sum_bwd_reduce_kernel[(tiles.programs,)](
            *views.one(0), *views.from_(1, count), mean, partial, channels, batch, positions,
            tiles.across, tiles.along, tiles.tiles, period, N=count, OWN=own, **tiles.blocks,
        )  # fmt: skip
        kernels.norm_sum_merge_grads_kernel[(cdiv(channels, MERGE_CHANNELS), count)](
            partial, weight, gamma, beta, invstd, d_gamma, d_beta, vectors, channels, tiles.tiles,
            float(batch * positions), _groups(weight), N=count, BATCH=through, BLOCK_C=MERGE_CHANNELS, BLOCK_T=MERGE_TILES,
        )  # fmt: skip
        tiles = Tiles.of(views, SUM_TILE)
        given = (*views.one(0), *views.from_(1, count), mean, vectors)
        if own:
            kernels.norm_sum_bwd_kernel[(tiles.programs,)](
                *given, *views.from_(1 + count, own), channels, batch, positions, tiles.across, tiles.along,
                N=count, OWN=own, BATCH=through, **tiles.blocks,
            )  # fmt: skip
        if own < count:
            tiles = Tiles.of(views, SUM_TILE, period)
            kernels.norm_sum_bwd_shared_kernel[(tiles.programs,)](
                *given, *views.from_(1 + count + own, count - own), channels, batch, positions, tiles.across, tiles.along,
                period, N=count, OWN=own, BATCH=through, **tiles.blocks,
            )  # fmt: skip
    d_weight = None
    if weight_like is not None:
        of_groups = vectors[0].view(*weight_like.shape, -1).sum(-1)
        d_weight = of_groups.to(weight_like.dtype)
    return d_zs, d_weight, d_gamma, d_beta


def check_device(z: Tensor) -> None:
    """ValueError where Triton can't run."""
    if not z.is_cuda and not triton.knobs.runtime.interpret:
        raise ValueError(f"the Triton kernels run on CUDA, or under TRITON_INTERPRET=1, not on {z.device}: pass triton=None.")


def flags(normalise: Sequence[bool]) -> int:
    """The set of candidates that are normalised, candidate n as bit n."""
    return sum(1 << n for n, flag in enumerate(normalise) if flag)


def _shape_of(zs: Sequence[Tensor], channels: int) -> tuple[int, int, int]:
    """N, how many of them come first and have all channels, and the channels of the shared ones."""
    own = sum(z.shape[1] == channels for z in zs)
    period = zs[-1].shape[1]
    assert all(z.shape[1] == channels for z in zs[:own]) and all(z.shape[1] == period for z in zs[own:])
    return len(zs), own, period


def _groups(weight: Tensor | None) -> int:
    return weight.shape[1] if weight is not None and weight.dim() == 2 else 1


@dataclass(frozen=True)
class Views:
    """Tensors [B, C, S], the step from image to image and the layout's own (see `kernels._offsets`) of each.

    The first says how many channels there are; others may have fewer.
    """

    tensors: tuple[Tensor, ...]
    images: tuple[int, ...]
    steps: tuple[int, ...]
    shape: tuple[int, int, int]
    last: bool

    @classmethod
    def of(cls, tensors: Sequence[Tensor], layout: torch.memory_format) -> "Views":
        """Views of tensors [B, C, H, W]; one whose positions don't follow each other in `layout` is copied."""
        last = layout == torch.channels_last
        batch, channels, height, width = tensors[0].shape
        tensors = tuple(t if _follows(t, last) else t.contiguous(memory_format=layout) for t in tensors)
        images = tuple(t.stride(0) for t in tensors)
        steps = tuple((t.stride(3) if width > 1 else t.stride(2)) if last else t.stride(1) for t in tensors)
        positions = height * width
        if all(image == positions * (step if last else 1) for image, step in zip(images, steps, strict=True)):
            batch, positions = 1, batch * positions
        return cls(tensors, images, steps, (batch, channels, positions), last)

    def from_(self, first: int, count: int | None = None) -> tuple[tuple, tuple, tuple]:
        """Tensors from the first one on, all or `count`, their images and their steps."""
        part = slice(first, None if count is None else first + count)
        return self.tensors[part], self.images[part], self.steps[part]

    def one(self, at: int) -> tuple[Tensor, int, int]:
        """One tensor, its image and its step."""
        return self.tensors[at], self.images[at], self.steps[at]


@dataclass(frozen=True)
class Tiles:
    """How tiles cover [B, C, S]: `across` over the channels, `tiles` for each of those, `along` of them over S."""

    across: int
    along: int
    tiles: int
    blocks: dict[str, int | bool]

    @classmethod
    def of(cls, views: Views, values: int, channels: int | None = None) -> "Tiles":
        """Tiles of about `values` values, of the views' channels or of the first `channels`."""
        batch, all_channels, positions = views.shape
        channels = channels or all_channels
        block_c = min(next_power_of_2(channels), LAST_CHANNELS) if views.last else 1
        block_s = min(next_power_of_2(positions), values // block_c)
        block_b = min(next_power_of_2(batch), values // (block_c * block_s))
        along = cdiv(positions, block_s)
        blocks = {"LAST": views.last, "BLOCK_C": block_c, "BLOCK_B": block_b, "BLOCK_S": block_s}
        return cls(cdiv(channels, block_c), along, along * cdiv(batch, block_b), blocks)

    @property
    def programs(self) -> int:
        """Programs of a grid with one tile each."""
        return self.across * self.tiles


def _follows(t: Tensor, last: bool) -> bool:
    _, _, height, width = t.shape
    _, channel, row, column = t.stride()
    if not last:
        column_ok = width == 1 or column == 1
        return column_ok and (height == 1 or row == width)
    return channel == 1 and (height == 1 or width == 1 or row == width * column)


def _rows(*vectors: Tensor | None) -> tuple[Tensor | None, ...]:
    return tuple(None if v is None else v.contiguous() for v in vectors)
