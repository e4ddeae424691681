"""What mmcv's Python code calls in its compiled extension, made of torchvision's compiled operations (CPU and CUDA).

Signatures are those of `mmcv._ext`: results go into tensors that the caller made, gradients into zeroed ones. Letters:
N boxes or samples, C channels or classes, H and W height and width.
"""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor

__all__ = [
    "deform_conv_backward_input",
    "deform_conv_backward_parameters",
    "deform_conv_forward",
    "get_compiler_version",
    "get_compiling_cuda_version",
    "modulated_deform_conv_backward",
    "modulated_deform_conv_forward",
    "ms_deform_attn_backward",
    "ms_deform_attn_forward",
    "nms",
    "roi_align_backward",
    "roi_align_forward",
    "roi_pool_backward",
    "roi_pool_forward",
    "sigmoid_focal_loss_backward",
    "sigmoid_focal_loss_forward",
]

# registered by the import of torchvision; its public functions hide the backward operations behind autograd
_compiled = torch.ops.torchvision


def unavailable(operation: str) -> RuntimeError:
    """The error that says what an operation of mmcv needs."""
    return RuntimeError(
        f"mmcv's operation {operation} needs a compiled mmcv (one with the module mmcv._ext), which isn't installed, and "
        f"torchvision has none to stand in for it"
    )


def get_compiler_version() -> str:
    """For mmcv's report of the environment."""
    return f"n/a (torchvision {torchvision.__version__} stands in)"


def get_compiling_cuda_version() -> str:
    """For mmcv's report of the environment."""
    return "n/a"


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes [N, 4] (x1, y1, x2, y2) that no better one overlaps by more than the threshold, best first.

    With `offset` 1 a box is x2 - x1 + 1 wide: coordinates are pixels.
    """
    kind = torch.float64 if boxes.dtype == torch.float64 else torch.float32
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(boxes.to(kind), scores.to(kind), iou_threshold)


def sigmoid_focal_loss_forward(
    logits: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Focal loss of logits [N, C] and classes [N], where C is the background: [N, C], times the weight of the class."""
    output.copy_(_focal_loss(logits, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    logits: Tensor, target: Tensor, weight: Tensor, grad_logits: Tensor, gamma: float, alpha: float
) -> None:
    """Its derivative by the logits, elementwise: [N, C]."""
    with torch.enable_grad():
        logits = logits.detach().requires_grad_()
        loss = _focal_loss(logits, target, weight, gamma, alpha)
        grad_logits.copy_(torch.autograd.grad(loss.sum(), logits)[0])


def _focal_loss(logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    wanted = (target[:, None] == torch.arange(logits.shape[1], device=target.device)).to(logits.dtype)
    loss = torchvision.ops.sigmoid_focal_loss(logits, wanted, alpha, gamma)
    return loss * weight[target][:, None] if weight.numel() else loss


def roi_align_forward(
    features: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Features [B, C, H, W] averaged over the bins of boxes [N, 5] (image, x1, y1, x2, y2): [N, C, bins, bins]."""
    if pool_mode != 1:
        raise unavailable("RoIAlign with pool_mode='max'")
    bins, features = (aligned_height, aligned_width), _poolable(features)
    output.copy_(torchvision.ops.roi_align(features, rois.to(features.dtype), bins, spatial_scale, sampling_ratio, aligned))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_features: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """The gradient for the features, [B, C, H, W]."""
    assert pool_mode == 1, "the forward refuses all but averages"
    bins, shape, grad_output = (aligned_height, aligned_width), grad_features.shape, _poolable(grad_output)
    rois = rois.to(grad_output.dtype)
    grad_features.copy_(_compiled._roi_align_backward(grad_output, rois, spatial_scale, *bins, *shape, sampling_ratio, aligned))


def roi_pool_forward(
    features: Tensor, rois: Tensor, output: Tensor, argmax: Tensor, pooled_height: int, pooled_width: int, spatial_scale: float
) -> None:
    """Maxima of features [B, C, H, W] in the bins of boxes [N, 5]: [N, C, bins, bins], and where they were (int32)."""
    features = _poolable(features)
    values, places = _compiled.roi_pool(features, rois.to(features.dtype), spatial_scale, pooled_height, pooled_width)
    output.copy_(values)
    argmax.copy_(places)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_features: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """The gradient for the features, [B, C, H, W]."""
    bins, shape, grad_output = (pooled_height, pooled_width), grad_features.shape, _poolable(grad_output)
    rois = rois.to(grad_output.dtype)
    grad_features.copy_(_compiled._roi_pool_backward(grad_output, rois, argmax, spatial_scale, *bins, *shape))


def _poolable(x: Tensor) -> Tensor:
    """x in a precision that torchvision pools boxes in, both ways: not bfloat16, and float16 on CUDA alone."""
    kept = x.dtype in (torch.float32, torch.float64) or (x.dtype == torch.float16 and x.is_cuda)
    return x if kept else x.float()


def deform_conv_forward(
    x: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **geometry: int
) -> None:
    """Deformable convolution without bias: [B, C, H, W] -> [B, C', H', W']; the buffers aren't needed."""
    output.copy_(_compiled.deform_conv2d(x, weight, offset, *_unmodulated(x, weight), *_v1(geometry), False))


def deform_conv_backward_input(
    x: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_x: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **geometry: int,
) -> None:
    """The gradients for the input and the offsets."""
    given = (grad_output, x, weight, offset, *_unmodulated(x, weight))
    gradients = _compiled._deform_conv2d_backward(*given, *_v1(geometry), False)
    grad_x.copy_(gradients[0])
    grad_offset.copy_(gradients[2])


def deform_conv_backward_parameters(
    x: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float,
    **geometry: int,
) -> None:
    """The gradient for the weight, times `scale`."""
    given = (grad_output, x, grad_weight, offset, *_unmodulated(x, grad_weight))
    grad_weight.copy_(scale * _compiled._deform_conv2d_backward(*given, *_v1(geometry), False)[1])


def _unmodulated(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A mask that isn't used, as torchvision wants it, and a bias of zeros."""
    return x.new_zeros(len(x), 1), x.new_zeros(len(weight))


def _v1(geometry: dict[str, int]) -> list[int]:
    """Stride, padding and dilation, each high then wide, and the groups, from mmcv's names of the first operation."""
    return [geometry[name] for name in ("dH", "dW", "padH", "padW", "dilationH", "dilationW", "group", "deformable_group")]


def modulated_deform_conv_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Modulated deformable convolution: [B, C, H, W] -> [B, C', H', W']; the buffers aren't needed."""
    bias = bias if with_bias else x.new_zeros(len(weight))
    output.copy_(_compiled.deform_conv2d(x, weight, offset, mask, bias, *_v2(geometry), True))


def modulated_deform_conv_backward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_x: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **geometry: int,
) -> None:
    """The gradients for the input, the weight, the offsets, the mask and, `with_bias`, the bias."""
    given = (grad_output, x, weight, offset, mask, bias if with_bias else x.new_zeros(len(weight)))
    gradients = _compiled._deform_conv2d_backward(*given, *_v2(geometry), True)
    for grad, value in zip((grad_x, grad_weight, grad_offset, grad_mask), gradients[:4], strict=True):
        grad.copy_(value)
    if with_bias:
        grad_bias.copy_(gradients[4])


def _v2(geometry: dict[str, int]) -> list[int]:
    """As `_v1`, from mmcv's names of the second operation."""
    sides = [geometry[f"{name}_{side}"] for name in ("stride", "pad", "dilation") for side in "hw"]
    return [*sides, geometry["group"], geometry["deformable_group"]]


def ms_deform_attn_forward(
    value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor, im2col_step: int
) -> Tensor:
    """Multi-scale deformable attention [B, queries, heads * channels], by mmcv's own formula in torch operations."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)


def ms_deform_attn_backward(
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    locations: Tensor,
    weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_locations: Tensor,
    grad_weights: Tensor,
    im2col_step: int,
) -> None:
    """The gradients for values, sampling locations and attention weights; the forward is computed again."""
    with torch.enable_grad():
        inputs = [x.detach().requires_grad_() for x in (value, locations, weights)]
        output = ms_deform_attn_forward(inputs[0], shapes, starts, inputs[1], inputs[2], im2col_step)
        gradients = torch.autograd.grad(output, inputs, grad_output)
    for grad, computed in zip((grad_value, grad_locations, grad_weights), gradients, strict=True):
        grad.copy_(computed)
