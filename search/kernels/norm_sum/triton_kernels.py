"""Triton kernels of the normalised weighted sum; launch.py runs them.

Shapes: N candidates, B batch, C channels, S = H * W positions, T tiles; M = B * S values a channel; G groups of channels, each
with weights of its own. The last candidates may be *shared*: they have `period` channels, which all C / period targets read.

Forward, three launches: statistics of tiles (one read of every normalised z), their merging (vectors), the sum (one
read of every z, one write of y). Backward, four: sums over tiles (one read of the gradient and of every z), their
merging, gradients of the zs (one more read of the same, one write of each gradient; a z that has no batch statistics
isn't read; shared zs have a launch of their own), and the sums over a group's channels. Every sum has two stages in a fixed
order: equal inputs give equal bits.

A tile is BLOCK_C channels x (BLOCK_B images x BLOCK_S positions) and belongs to one program. The positions of
one channel lie side by side in NCHW, the channels of one position in channels-last. Where a step between images is S
steps between positions in all tensors, the images are one long row of positions (B = 1).
"""

import triton
import triton.language as tl


@triton.jit
def _tile(C, B, S, across, along, BLOCK_C: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_S: tl.constexpr):
    """This program's tile, its channels [BLOCK_C], images and positions [BLOCK_B * BLOCK_S], and what exists of it.

    `across`: tiles side by side over the channels; `along`: over the positions.
    """
    tile = tl.program_id(0) // across
    c = (tl.program_id(0) % across) * BLOCK_C + tl.arange(0, BLOCK_C)
    row = tl.arange(0, BLOCK_B * BLOCK_S)
    b = (tile // along).to(tl.int64) * BLOCK_B + row // BLOCK_S
    s = (tile % along).to(tl.int64) * BLOCK_S + row % BLOCK_S
    return tile, c, b, s, (c < C)[:, None] & ((b < B) & (s < S))[None, :]


@triton.jit
def _offsets(c, b, s, image, step, LAST: tl.constexpr):
    """Where the values of a tile lie: `step` is from channel to channel, or from position to position in channels-last."""
    if LAST:
        return c.to(tl.int64)[:, None] + (b * image + s * step)[None, :]
    return c.to(tl.int64)[:, None] * step + (b * image + s)[None, :]


@triton.jit
def _size(tile, B, S, along, BLOCK_B: tl.constexpr, BLOCK_S: tl.constexpr):
    """Values that a channel has in a tile, in float32."""
    images = tl.minimum(B - (tile // along).to(tl.int64) * BLOCK_B, BLOCK_B)
    positions = tl.minimum(S - (tile % along).to(tl.int64) * BLOCK_S, BLOCK_S)
    return (images * positions).to(tl.float32)


@triton.jit
def _row(c, period, SHARED: tl.constexpr):
    """The channel of a candidate that channel c of the sum reads."""
    return c % period if SHARED else c


@triton.jit
def _weights(weight, n, group, G, exists):
    """Candidate n's weights [BLOCK_C] of channels, each in its group; weight is [N, G], or None for ones."""
    if weight is None:
        return tl.full(group.shape, 1.0, tl.float32)
    else:
        return tl.load(weight + n * G + group, mask=exists, other=0.0).to(tl.float32)


@triton.jit
def norm_sum_stats_kernel(
    zs, images, steps, partial, C, B, S, across, along, T, period,
    N: tl.constexpr, OWN: tl.constexpr, NORMALISED: tl.constexpr, LAST: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """partial [2, N, C, T]: mean of a tile and sum of squares about it, for the candidates in the set NORMALISED."""
    n = tl.program_id(1)
    if (NORMALISED >> n) & 1:
        z, image, step = zs[0], images[0].to(tl.int64), steps[0].to(tl.int64)
        for i in tl.static_range(1, N):
            z = tl.where(n == i, zs[i], z)
            image = tl.where(n == i, images[i].to(tl.int64), image)
            step = tl.where(n == i, steps[i].to(tl.int64), step)
        tile, c, b, s, exists = _tile(tl.where(n < OWN, C, period), B, S, across, along, BLOCK_C, BLOCK_B, BLOCK_S)
        x = tl.load(z + _offsets(c, b, s, image, step, LAST), mask=exists, other=0.0).to(tl.float32)
        size = _size(tile, B, S, along, BLOCK_B, BLOCK_S)
        mean = tl.sum(x, 1) / size
        centred = tl.where(exists, x - mean[:, None], 0.0)
        # by how much the mean was rounded
        rest = tl.sum(centred, 1) / size
        squares = tl.sum(centred * centred, 1) - size * rest * rest
        at = partial + (n.to(tl.int64) * C + c) * T + tile
        own = c < tl.where(n < OWN, C, period)
        tl.store(at, mean + rest, mask=own)
        tl.store(at + tl.cast(N, tl.int64) * C * T, squares, mask=own)


@triton.jit
def norm_sum_merge_stats_kernel(
    partial, running_mean, running_var, weight, gamma, beta, mean_out, var_out, invstd_out, vectors, eps, C, B, S, along, T,
    values, G, period,
    N: tl.constexpr, OWN: tl.constexpr, NORMALISED: tl.constexpr, BATCH: tl.constexpr, BLOCK_B: tl.constexpr,
    BLOCK_S: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Mean, unbiased variance, 1 / sqrt(biased variance + eps), each [N, C]; 0, 1, 1 outside the set NORMALISED.

    vectors [2, N, C] (without beta [1, N, C]): what a centred z is multiplied by, and what is added then.
    """
    n = tl.program_id(1)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    at = n.to(tl.int64) * C + c
    mean = tl.zeros([BLOCK_C], tl.float32)
    var = tl.full([BLOCK_C], 1.0, tl.float32)
    invstd = tl.full([BLOCK_C], 1.0, tl.float32)
    if (NORMALISED >> n) & 1:
        if BATCH:
            row = n.to(tl.int64) * C + tl.where(n < OWN, c, c % period)
            total = tl.zeros([BLOCK_C, BLOCK_T], tl.float32)
            for start in range(0, T, BLOCK_T):
                tile = start + tl.arange(0, BLOCK_T)
                exists = (c < C)[:, None] & (tile < T)[None, :]
                size = tl.where(tile < T, _size(tile, B, S, along, BLOCK_B, BLOCK_S), 0.0)
                total += size[None, :] * tl.load(partial + row[:, None] * T + tile[None, :], mask=exists, other=0.0)
            mean = tl.sum(total, 1) / values
            # squares about the rounded mean, and by how much it was rounded
            inside = tl.zeros([BLOCK_C, BLOCK_T], tl.float32)
            off = tl.zeros([BLOCK_C, BLOCK_T], tl.float32)
            for start in range(0, T, BLOCK_T):
                tile = start + tl.arange(0, BLOCK_T)
                exists = (c < C)[:, None] & (tile < T)[None, :]
                size = tl.where(tile < T, _size(tile, B, S, along, BLOCK_B, BLOCK_S), 0.0)
                from_tiles = partial + row[:, None] * T + tile[None, :]
                apart = tl.load(from_tiles, mask=exists, other=0.0) - mean[:, None]
                inside += tl.load(from_tiles + tl.cast(N, tl.int64) * C * T, mask=exists, other=0.0)
                inside += size[None, :] * apart * apart
                off += size[None, :] * apart
            rest = tl.sum(off, 1) / values
            mean += rest
            squares = tl.maximum(tl.sum(inside, 1) - values * rest * rest, 0.0)
            var = squares / (values - 1)
            invstd = 1 / tl.sqrt(squares / values + eps)
        else:
            mean = tl.load(running_mean + at, mask=c < C, other=0.0).to(tl.float32)
            var = tl.load(running_var + at, mask=c < C, other=1.0).to(tl.float32)
            invstd = 1 / tl.sqrt(var + eps)
    tl.store(mean_out + at, mean, mask=c < C)
    tl.store(var_out + at, var, mask=c < C)
    tl.store(invstd_out + at, invstd, mask=c < C)
    w = _weights(weight, n, c // (C // G), G, c < C)
    scale = w * invstd
    if gamma is not None:
        scale *= tl.load(gamma + at, mask=c < C, other=0.0).to(tl.float32)
    tl.store(vectors + at, scale, mask=c < C)
    if beta is not None:
        offset = w * tl.load(beta + at, mask=c < C, other=0.0).to(tl.float32)
        tl.store(vectors + tl.cast(N, tl.int64) * C + at, offset, mask=c < C)


@triton.jit
def norm_sum_fwd_kernel(
    zs, images, steps, mean, vectors, y, y_image, y_step, C, B, S, across, along, period,
    N: tl.constexpr, OWN: tl.constexpr, OFFSET: tl.constexpr, LAST: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """y = sum_n weight_n * (gamma_n * (z_n - mean_n) * invstd_n + beta_n), rounded once; OFFSET: whether there are betas."""
    _, c, b, s, exists = _tile(C, B, S, across, along, BLOCK_C, BLOCK_B, BLOCK_S)
    total = tl.zeros([BLOCK_C, BLOCK_B * BLOCK_S], tl.float32)
    for n in tl.static_range(N):
        at = tl.cast(n, tl.int64) * C + c
        row = _row(c, period, n >= OWN)
        z = tl.load(zs[n] + _offsets(row, b, s, images[n], steps[n], LAST), mask=exists, other=0.0).to(tl.float32)
        # centred before it is scaled: z * scale - mean * scale loses digits where the mean is large
        centred = z - tl.load(mean + at, mask=c < C, other=0.0)[:, None]
        total += centred * tl.load(vectors + at, mask=c < C, other=0.0)[:, None]
        if OFFSET:
            total += tl.load(vectors + tl.cast(N, tl.int64) * C + at, mask=c < C, other=0.0)[:, None]
    tl.store(y + _offsets(c, b, s, y_image, y_step, LAST), total.to(y.dtype.element_ty), mask=exists)


@triton.jit
def norm_sum_bwd_reduce_kernel(
    grad, grad_image, grad_step, zs, images, steps, mean, partial, C, B, S, across, along, T, period,
    N: tl.constexpr, OWN: tl.constexpr, LAST: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_B: tl.constexpr,
    BLOCK_S: tl.constexpr,
):  # fmt: skip
    """partial [N + 1, C, T], sums over tiles: of grad * (z_n - mean_n), and last of grad."""
    tile, c, b, s, exists = _tile(C, B, S, across, along, BLOCK_C, BLOCK_B, BLOCK_S)
    g = tl.load(grad + _offsets(c, b, s, grad_image, grad_step, LAST), mask=exists, other=0.0).to(tl.float32)
    for n in tl.static_range(N):
        at = tl.cast(n, tl.int64) * C + c
        row = _row(c, period, n >= OWN)
        z = tl.load(zs[n] + _offsets(row, b, s, images[n], steps[n], LAST), mask=exists, other=0.0).to(tl.float32)
        centred = z - tl.load(mean + at, mask=c < C, other=0.0)[:, None]
        # grad is 0 where nothing exists
        tl.store(partial + at * T + tile, tl.sum(g * centred, 1), mask=c < C)
    tl.store(partial + (tl.cast(N, tl.int64) * C + c) * T + tile, tl.sum(g, 1), mask=c < C)


@triton.jit
def norm_sum_merge_grads_kernel(
    partial, weight, gamma, beta, invstd, d_gamma, d_beta, vectors, C, T, values, G,
    N: tl.constexpr, BATCH: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """d_gamma, d_beta [N, C]; vectors [4, N, C]: a channel's part of weight's gradient, and p, q, r below.

    BATCH is the set of candidates normalised by the batch's statistics, through which their z also acts:
    dz_n = p * grad - q - r * (z_n - mean_n); q and r are 0 outside it.
    """
    n = tl.program_id(1)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    at = n.to(tl.int64) * C + c
    last = tl.cast(N, tl.int64) * C
    products = tl.zeros([BLOCK_C, BLOCK_T], tl.float32)
    totals = tl.zeros([BLOCK_C, BLOCK_T], tl.float32)
    for start in range(0, T, BLOCK_T):
        tile = start + tl.arange(0, BLOCK_T)
        exists = (c < C)[:, None] & (tile < T)[None, :]
        products += tl.load(partial + at[:, None] * T + tile[None, :], mask=exists, other=0.0)
        totals += tl.load(partial + (last + c)[:, None] * T + tile[None, :], mask=exists, other=0.0)
    w = _weights(weight, n, c // (C // G), G, c < C)
    inverse = tl.load(invstd + at, mask=c < C, other=0.0)
    # sum of grad * normalised z, and of grad
    product = tl.sum(products, 1) * inverse
    total = tl.sum(totals, 1)
    d_weight = product
    scale = w * inverse
    if gamma is not None:
        g = tl.load(gamma + at, mask=c < C, other=0.0).to(tl.float32)
        d_weight *= g
        scale *= g
    if beta is not None:
        d_weight += total * tl.load(beta + at, mask=c < C, other=0.0).to(tl.float32)
    through = tl.where(((BATCH >> n) & 1) != 0, scale / values, 0.0)
    tl.store(d_gamma + at, w * product, mask=c < C)
    tl.store(d_beta + at, w * total, mask=c < C)
    out = vectors + at
    tl.store(out, d_weight, mask=c < C)
    tl.store(out + last, scale, mask=c < C)
    tl.store(out + 2 * last, through * total, mask=c < C)
    tl.store(out + 3 * last, through * product * inverse, mask=c < C)


@triton.jit
def norm_sum_bwd_kernel(
    grad, grad_image, grad_step, zs, images, steps, mean, vectors, d_zs, out_images, out_steps, C, B, S, across, along,
    N: tl.constexpr, OWN: tl.constexpr, BATCH: tl.constexpr, LAST: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """dz_n of the first OWN candidates: see norm_sum_merge_grads_kernel."""
    _, c, b, s, exists = _tile(C, B, S, across, along, BLOCK_C, BLOCK_B, BLOCK_S)
    g = tl.load(grad + _offsets(c, b, s, grad_image, grad_step, LAST), mask=exists, other=0.0).to(tl.float32)
    last = tl.cast(N, tl.int64) * C
    for n in tl.static_range(OWN):
        at = tl.cast(n, tl.int64) * C + c
        d_z = g * tl.load(vectors + last + at, mask=c < C, other=0.0)[:, None]
        if (BATCH >> n) & 1:
            z = tl.load(zs[n] + _offsets(c, b, s, images[n], steps[n], LAST), mask=exists, other=0.0).to(tl.float32)
            centred = z - tl.load(mean + at, mask=c < C, other=0.0)[:, None]
            d_z -= tl.load(vectors + 2 * last + at, mask=c < C, other=0.0)[:, None]
            d_z -= tl.load(vectors + 3 * last + at, mask=c < C, other=0.0)[:, None] * centred
        out = _offsets(c, b, s, out_images[n], out_steps[n], LAST)
        tl.store(d_zs[n] + out, d_z.to(d_zs[n].dtype.element_ty), mask=exists)


@triton.jit
def norm_sum_bwd_shared_kernel(
    grad, grad_image, grad_step, zs, images, steps, mean, vectors, d_zs, out_images, out_steps, C, B, S, across, along,
    period,
    N: tl.constexpr, OWN: tl.constexpr, BATCH: tl.constexpr, LAST: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """dz_n of the shared candidates, summed over their targets."""
    _, c, b, s, exists = _tile(period, B, S, across, along, BLOCK_C, BLOCK_B, BLOCK_S)
    last = tl.cast(N, tl.int64) * C
    for n in tl.static_range(OWN, N):
        total = tl.zeros([BLOCK_C, BLOCK_B * BLOCK_S], tl.float32)
        by_mean = tl.zeros([BLOCK_C], tl.float32)
        by_deviation = tl.zeros([BLOCK_C], tl.float32)
        for first in range(0, C, period):
            at = tl.cast(n, tl.int64) * C + first + c
            place = _offsets(first + c, b, s, grad_image, grad_step, LAST)
            g = tl.load(grad + place, mask=exists, other=0.0).to(tl.float32)
            total += g * tl.load(vectors + last + at, mask=c < period, other=0.0)[:, None]
            by_mean += tl.load(vectors + 2 * last + at, mask=c < period, other=0.0)
            by_deviation += tl.load(vectors + 3 * last + at, mask=c < period, other=0.0)
        if (BATCH >> n) & 1:
            place = _offsets(c, b, s, images[n], steps[n], LAST)
            z = tl.load(zs[n] + place, mask=exists, other=0.0).to(tl.float32)
            # a shared map's mean is the same for all of its targets
            own_mean = tl.load(mean + tl.cast(n, tl.int64) * C + c, mask=c < period, other=0.0)
            total -= by_mean[:, None] + by_deviation[:, None] * (z - own_mean[:, None])
        out = _offsets(c, b, s, out_images[n - OWN], out_steps[n - OWN], LAST)
        tl.store(d_zs[n - OWN] + out, total.to(d_zs[n - OWN].dtype.element_ty), mask=exists)
