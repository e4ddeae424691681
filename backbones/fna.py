"""FNA (arXiv 2001.02525): MobileNetV2 adapted to detection and segmentation; each layer's kernel and expansion were searched.

Both tasks' tables print stages as [channels, [[kernel, expansion] of each block], stride of the first]. A layer that was left
out isn't printed; it is the `skip` at the end of a stage of the space (JaminFong/FNA@32298e0e, fna_det/configs and
fna_seg/model/deeplab/cityscapes.deeplabv3/config.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backbones.heads import STRIDES, retinanet, segmentor
from backbones.spec import schema

KERNELS = (3, 5, 7)
EXPANSIONS = (3, 6)
# layers of the spaces' stages; the first stage has no choice
DETECTION_DEPTHS = (1, 4, 4, 4, 4, 4, 1)
SEGMENTATION_DEPTHS = (1, 4, 4, 6, 6, 4, 1)
STEM = 32
OUTPUT_STRIDE = 16
CITYSCAPES_CLASSES = 19


@schema("mbv2_ops")
def mbv2_ops(spec: Mapping) -> dict:
    """RetinaNet with a feature pyramid of `ch` channels on `stages`: P3 to P5 of strides 8 to 32, P6 made from C5, and P7."""
    backbone = chain(spec["stem"], spec["stages"], DETECTION_DEPTHS)
    # of the last stage of each resolution
    by_stride = _channels_by_stride(spec["stages"])
    neck = dict(
        type="mmdet.FPN",
        in_channels=[by_stride[stride] for stride in STRIDES[:3]],
        out_channels=spec["ch"],
        add_extra_convs="on_input",
        num_outs=len(STRIDES),
    )
    head = dict(type="mmdet.RetinaHead", in_channels=spec["ch"], feat_channels=spec["ch"], stacked_convs=4)
    return retinanet({**backbone, "out_indices": [2, 3, 4]}, head, spec.get("num_classes", 80), neck)


@schema("deeplabv3_sep")
def deeplabv3_sep(spec: Mapping) -> dict:
    """DeepLabV3 with separable convolutions in its pyramid on `backbone_stages`, dilated beyond stride 16."""
    stages = spec["backbone_stages"]
    head = dict(
        type="tasks.segmentation.heads.SeparableASPPHead",
        in_channels=stages[-1][0],
        channels=256,
        dilations=[1, 6, 12, 18],
        align_corners=True,
    )
    backbone = chain(STEM, stages, SEGMENTATION_DEPTHS, OUTPUT_STRIDE)
    return segmentor(backbone, head, spec.get("num_classes", CITYSCAPES_CLASSES))


def chain(stem: int, stages: Sequence, depths: Sequence[int], output_stride: int = 32) -> dict:
    """A `ChainNet` of a space, with the architecture that the printed `stages` are.

    Where the resolution would fall below 1 / `output_stride`, the kernels are dilated instead.
    """
    made, arch, stride = [], {}, 2
    dilation = 1
    for index, ((channels, blocks, step), depth) in enumerate(zip(stages, depths, strict=True)):
        if stride * step > output_stride:
            dilation, step = dilation * step, 1
        stride *= step
        if index == 0:
            ((kernel, expand),) = blocks
            made.append(dict(channels=channels, stride=step, ops=_operation(kernel, expand, dilation)))
            continue
        ops = {f"k{k}_e{e}": _operation(k, e, dilation) for k in KERNELS for e in EXPANSIONS}
        made.append(dict(channels=channels, stride=step, depth=depth, ops={**ops, "skip": dict(type="skip")}))
        names = [f"k{kernel}_e{expand}" for kernel, expand in blocks]
        if len(names) > depth:
            raise ValueError(f"stage {index} has {len(names)} layers, but this space has {depth} there")
        arch |= {f"s{index}/b{b}": name for b, name in enumerate(names + ["skip"] * (depth - len(names)))}
    return dict(type="search.ChainNet", stem=dict(channels=stem), stages=made, activation="relu6", arch=arch)


def _operation(kernel: int, expand: int, dilation: int) -> dict:
    return dict(type="mbconv", kernel=kernel, expand=expand, dilation=dilation)


def _channels_by_stride(stages: Sequence) -> dict[int, int]:
    found, stride = {}, 2
    for channels, _, step in stages:
        stride *= step
        found[stride] = channels
    return found
