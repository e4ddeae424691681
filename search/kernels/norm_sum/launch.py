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
    weight: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    eps: float,
    normalise: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `operator.forward_op` returns; ValueError for CPU tensors outside the interpreter."""
    check_device(zs[0])
    layout = memory_format(zs[0])
    weight, gamma, beta, running_mean, running_var = _rows(weight, gamma, beta, running_mean, running_var)
    y = torch.empty_like(zs[0], memory_format=layout)
    views = Views.of([*zs, y], layout)
    count, (batch, channels, positions) = len(zs), views.shape
    mean, var, invstd = (weight.new_empty((count, channels), dtype=torch.float32) for _ in range(3))
    chosen, batch_statistics = flags(normalise), running_mean is None
    tiles = Tiles.of(views, REDUCE_TILE)
    values = float(batch * positions)
    with torch.cuda.device_of(y):
        partial = mean
        if batch_statistics and chosen:
            partial = mean.new_empty((2, count, channels, tiles.tiles))
            kernels.norm_sum_stats_kernel[(tiles.programs, count)](
                *views.candidates(count),
                partial,
                channels,
                batch,
                positions,
                tiles.across,
                tiles.along,
                tiles.tiles,
                N=count,
                NORMALISED=chosen,
                **tiles.blocks,
            )
        kernels.norm_sum_merge_stats_kernel[(cdiv(channels, MERGE_CHANNELS), count)](
            partial,
            running_mean,
            running_var,
            mean,
            var,
            invstd,
            eps,
            channels,
            batch,
            positions,
            tiles.along,
            tiles.tiles,
            values,
            N=count,
            NORMALISED=chosen,
            BATCH=batch_statistics,
            BLOCK_B=tiles.blocks["BLOCK_B"],
            BLOCK_S=tiles.blocks["BLOCK_S"],
            BLOCK_C=MERGE_CHANNELS,
            BLOCK_T=MERGE_TILES,
        )
        tiles = Tiles.of(views, SUM_TILE)
        kernels.norm_sum_fwd_kernel[(tiles.programs,)](
            *views.candidates(count),
            weight,
            gamma,
            beta,
            mean,
            invstd,
            *views.one(count),
            channels,
            batch,
            positions,
            tiles.across,
            tiles.along,
            N=count,
            **tiles.blocks,
        )
    return y, mean, var, invstd


def backward(
    grad: Tensor,
    zs: Sequence[Tensor],
    weight: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    mean: Tensor,
    invstd: Tensor,
    batch_statistics: bool,
    normalise: Sequence[bool],
) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """What `operator.backward_op` returns; ValueError for CPU tensors outside the interpreter."""
    check_device(grad)
    layout = memory_format(zs[0])
    weight_dtype = weight.dtype
    weight, gamma, beta = _rows(weight, gamma, beta)
    d_zs = [torch.empty_like(z, memory_format=layout) for z in zs]
    # the gradients lie alike: one of them stands for all
    views = Views.of([*zs, grad, d_zs[0]], layout)
    count, (batch, channels, positions) = len(zs), views.shape
    through = flags(normalise) if batch_statistics else 0
    tiles = Tiles.of(views, REDUCE_TILE)
    partial = mean.new_empty((count + 1, channels, tiles.tiles))
    d_gamma, d_beta = torch.empty_like(mean), torch.empty_like(mean)
    vectors = mean.new_empty((4, count, channels))
    with torch.cuda.device_of(grad):
        kernels.norm_sum_bwd_reduce_kernel[(tiles.programs,)](
            *views.one(count),
            *views.candidates(count),
            mean,
            partial,
            channels,
            batch,
            positions,
            tiles.across,
            tiles.along,
            tiles.tiles,
            N=count,
            **tiles.blocks,
        )
        kernels.norm_sum_merge_grads_kernel[(cdiv(channels, MERGE_CHANNELS), count)](
            partial,
            weight,
            gamma,
            beta,
            invstd,
            d_gamma,
            d_beta,
            vectors,
            channels,
            tiles.tiles,
            float(batch * positions),
            N=count,
            BATCH=through,
            BLOCK_C=MERGE_CHANNELS,
            BLOCK_T=MERGE_TILES,
        )
        tiles = Tiles.of(views, SUM_TILE)
        _, out_image, out_step = views.one(count + 1)
        kernels.norm_sum_bwd_kernel[(tiles.programs,)](
            *views.one(count),
            *views.candidates(count),
            mean,
            vectors,
            tuple(d_zs),
            out_image,
            out_step,
            channels,
            batch,
            positions,
            tiles.across,
            tiles.along,
            N=count,
            BATCH=through,
            **tiles.blocks,
        )
        d_weight = vectors[0].sum(1).to(weight_dtype)
    return d_zs, d_weight, d_gamma, d_beta


def check_device(z: Tensor) -> None:
    """ValueError where Triton can't run."""
    if not z.is_cuda and not triton.knobs.runtime.interpret:
        raise ValueError(f"the Triton kernels run on CUDA, or under TRITON_INTERPRET=1, not on {z.device}: pass triton=None.")


def flags(normalise: Sequence[bool]) -> int:
    """The set of candidates that are normalised, candidate n as bit n."""
    return sum(1 << n for n, flag in enumerate(normalise) if flag)


@dataclass(frozen=True)
class Views:
    """Tensors [B, C, S], the step from image to image and the layout's own (see `kernels._offsets`) of each."""

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

    def candidates(self, count: int) -> tuple[tuple, tuple, tuple]:
        """The first `count` tensors, their images and their steps."""
        return self.tensors[:count], self.images[:count], self.steps[:count]

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
    def of(cls, views: Views, values: int) -> "Tiles":
        """Tiles of about `values` values."""
        batch, channels, positions = views.shape
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
