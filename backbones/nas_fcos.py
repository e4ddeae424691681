"""NAS-FCOS (arXiv 1906.04423): the pyramid that was found for FCOS, of blocks that merge two maps each, some deformably.

Facts are from the authors' code, Lausannen/NAS-FCOS@d586b28c: maskrcnn_benchmark/nas/modeling (layer_factory.py,
micro_decoders.py, micro_heads.py) and configs/search. The controller and its rewards aren't public. The searched head is
mmdet's NASFCOSHead. Where mmdet (models/necks/nasfcos_fpn.py) differs: blocks resize by the nearest pixel and not bilinearly,
the plain head's convolutions have no bias, and C2 isn't projected. In the authors' it is, but nothing reads it, so that it is
left out here too.

Shapes: B batch, C channels of the pyramid, H and W height and width of a level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from backbones.blocks import conv
from backbones.heads import STRIDES
from backbones.resnet import resnet
from backbones.spec import NotBuildable, model_config, schema
from search.registry import MODELS

CHANNELS = 256
CLASSES = 80
# of the searched head, as mmdet's class has it
HEAD = ("dconv3x3", "conv3x3", "dconv3x3", "conv1x1")
PLAIN_HEAD = "plain FCOS head"
OPERATIONS = ("conv", "skip")
RESIZES = ("bilinear", "nearest")
# groups of channels that have offsets of their own
_OFFSET_GROUPS = 2
_INPUTS = 3


class DeformableConv2d(nn.Module):
    """A modulated deformable 3x3 convolution (DCNv2, arXiv 1811.11168), its offsets and weights of positions from a 3x3 one.

    The offsets start at 0 and the weights at 1/2, as in the paper's section 3.1.
    """

    def __init__(self, channels: int, groups: int = _OFFSET_GROUPS) -> None:
        super().__init__()
        self.shift = nn.Conv2d(channels, 3 * groups * 9, 3, padding=1)
        self.conv = DeformConv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        shift = self.shift(x)
        offsets = 2 * shift.shape[1] // 3
        return self.conv(x, shift[:, :offsets], shift[:, offsets:].sigmoid())


class MergingBlock(nn.Module):
    """Two maps, each after its operation, at the size of the larger one; concatenated, normed, and a channel made of each pair.

    operations: two of "conv" (deformable, norm, ReLU) and "skip". resize: "bilinear" or "nearest".
    """

    def __init__(self, channels: int, operations: Sequence[str], resize: str) -> None:
        super().__init__()
        if len(operations) != 2 or not set(operations) <= set(OPERATIONS):
            raise ValueError(f"operations={list(operations)} of a block must be two of {', '.join(OPERATIONS)}")
        self.operations = nn.ModuleList(
            nn.Identity()
            if op == "skip"
            else nn.Sequential(DeformableConv2d(channels), nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
            for op in operations
        )
        self.resize = resize
        self.merge = nn.Sequential(
            nn.BatchNorm2d(2 * channels), nn.ReLU(), nn.Conv2d(2 * channels, channels, 1, groups=channels, bias=False)
        )

    def forward(self, one: Tensor, two: Tensor) -> Tensor:
        """Maps [B, C, H, W] and [B, C, H', W'] -> [B, C, max(H, H'), max(W, W')]."""
        size = max(one.shape[2:], two.shape[2:])
        made = [_resized(op(x), size, self.resize) for op, x in zip(self.operations, (one, two), strict=True)]
        return self.merge(torch.cat(made, dim=1))


@MODELS.register_module()
class NASFCOSNeck(BaseModule):
    """The pyramid of NAS-FCOS: five levels from three maps, each half as large as the one before.

    Args:
        in_channels: of the three maps.
        blocks: each [[a, b], [operation, operation]]: the numbers of its inputs and what is done to them. 0 to 2 are the maps,
            from the finest, and every block's output gets the next number. Of the outputs that are nobody's input the last
            three become P5, P4 and P3, and those before are added to each. P6 and P7 are made of P5.
        channels: of all levels.
        resize: of maps of unlike sizes in a block, "bilinear" or "nearest"; outputs are resized bilinearly.

    Raises ValueError for blocks that can't be, and where fewer than three outputs are left.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        blocks: Sequence[Sequence],
        channels: int = CHANNELS,
        resize: str = "bilinear",
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if len(in_channels) != _INPUTS:
            raise ValueError(f"in_channels={list(in_channels)} must be of three maps")
        if resize not in RESIZES:
            raise ValueError(f"resize={resize!r} must be one of {', '.join(RESIZES)}")
        self.out_channels = (channels,) * len(STRIDES)
        self.inputs = [_two_of(inputs, _INPUTS + number) for number, (inputs, _) in enumerate(blocks)]
        read = {i for pair in self.inputs for i in pair}
        unread = [n for n in range(_INPUTS, _INPUTS + len(blocks)) if n not in read]
        if len(unread) < _INPUTS:
            raise ValueError(f"{len(unread)} of the blocks' outputs are nobody's input, and three levels are made of them")
        self.added, self.levels = unread[:-_INPUTS], unread[-_INPUTS:][::-1]
        self.laterals = nn.ModuleList(conv(c_in, channels) for c_in in in_channels)
        self.blocks = nn.ModuleList(MergingBlock(channels, operations, resize) for _, operations in blocks)
        self.extras = nn.ModuleList(nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in STRIDES[_INPUTS:])

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Three maps [B, in_channels, H, W], each half as large as the one before -> five [B, C, H, W]."""
        features = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]
        for (a, b), block in zip(self.inputs, self.blocks, strict=True):
            features.append(block(features[a], features[b]))
        levels = []
        for number, x in zip(self.levels, maps, strict=True):
            level = features[number]
            for added in self.added:
                level = level + _resized(features[added], features[number].shape[2:], "bilinear")
            levels.append(_resized(level, x.shape[2:], "bilinear"))
        for i, extra in enumerate(self.extras):
            levels.append(extra(F.relu(levels[-1]) if i > 0 else levels[-1]))
        return tuple(levels)


def _two_of(inputs: Sequence[int], known: int) -> tuple[int, int]:
    if len(inputs) != 2 or not all(isinstance(i, int) and 0 <= i < known for i in inputs):
        raise ValueError(f"the inputs {inputs!r} of feature {known} must be two of the features 0 to {known - 1}")
    return inputs[0], inputs[1]


def _resized(x: Tensor, size: Sequence[int], mode: str) -> Tensor:
    return x if tuple(x.shape[2:]) == tuple(size) else F.interpolate(x, size=tuple(size), mode=mode)


def weights_of_mmdet(state: Mapping[str, Tensor], blocks: Sequence[str]) -> dict[str, Tensor]:
    """The weights of mmdet's NASFCOS_FPN, whose `blocks` are called so, under the names of `NASFCOSNeck`.

    Raises ValueError, naming it, for a tensor that isn't one of theirs.
    """
    parts = {
        **{f"adapt_convs.{i}.{theirs}": f"laterals.{i}.{n}" for i in range(_INPUTS) for n, theirs in enumerate(("conv", "bn"))},
        **{f"extra_downsamples.{i}.conv": f"extras.{i}" for i in range(len(STRIDES) - _INPUTS)},
    }
    for i, block in enumerate(blocks):
        parts |= {f"fpn.{block}.out_conv.bn": f"blocks.{i}.merge.0", f"fpn.{block}.out_conv.conv": f"blocks.{i}.merge.2"}
        for n in (0, 1):
            at, ours = f"fpn.{block}.input{n + 1}_conv", f"blocks.{i}.operations.{n}"
            parts |= {f"{at}.conv": f"{ours}.0.conv", f"{at}.conv.conv_offset": f"{ours}.0.shift", f"{at}.bn": f"{ours}.1"}
    renamed = {}
    for name, value in state.items():
        module, _, kind = name.rpartition(".")
        if module not in parts:
            raise ValueError(f"{name!r} is no tensor of mmdet's NASFCOS_FPN")
        renamed[f"{parts[module]}.{kind}"] = value
    return renamed


@schema("nas_fcos")
def nas_fcos(spec: Mapping) -> dict:
    """`fpn`'s `cells`, each [name, [input, input], [operation, operation], name of its output]; `head`; `backbone`, either
    `resnet_depths` with the stride on the first 1x1 convolution, or a specification; `framework`, "mmdet" or the authors'.

    What else `fpn` says in words is what `NASFCOSNeck` does. NotBuildable without a backbone, and where `unclear` says why.
    """
    if "unclear" in spec:
        raise NotBuildable(spec["unclear"])
    if "backbone" not in spec:
        raise NotBuildable("the specification of schema 'nas_fcos' is of neck and head: it doesn't say the backbone")
    cells = spec["fpn"]["cells"]
    if [cell[3] for cell in cells] != [f"f{n}" for n in range(_INPUTS, _INPUTS + len(cells))]:
        raise ValueError("the cells' outputs must be f3, f4 and so on, in this order")
    mmdet = spec["framework"] == "mmdet"
    backbone = _backbone(spec["backbone"])
    channels = _by_resolution(backbone)
    neck = dict(
        type="search.NASFCOSNeck",
        in_channels=channels[-_INPUTS:],
        blocks=[cell[1:3] for cell in cells],
        resize="nearest" if mmdet else "bilinear",
    )
    out_indices = list(range(len(channels) - _INPUTS, len(channels)))
    return _detector(dict(backbone, out_indices=out_indices), neck, _head(spec["head"], mmdet), spec)


def _backbone(spec: Mapping) -> dict:
    if "resnet_depths" not in spec:
        return model_config(spec)["backbone"]
    return resnet(spec["resnet_depths"], early=True)


def _by_resolution(backbone: Mapping) -> list[int]:
    """Channels of a chain's last stage at each resolution, from the stem's on."""
    channels = [backbone["stem"]["channels"]]
    for stage in backbone["stages"]:
        if stage["stride"] > 1:
            channels.append(0)
        channels[-1] = stage["channels"]
    return channels


def _head(head: str | Sequence[str], mmdet: bool) -> dict:
    if head == PLAIN_HEAD:
        return dict(type="mmdet.FCOSHead", stacked_convs=4, conv_bias="auto" if mmdet else True)
    if tuple(head) != HEAD:
        raise ValueError(f"head={head!r} is neither {PLAIN_HEAD!r} nor that of mmdet's NASFCOSHead: {', '.join(HEAD)}")
    return dict(type="mmdet.NASFCOSHead")


def _detector(backbone: dict, neck: dict, head: Mapping, spec: Mapping) -> dict:
    bbox_head = dict(
        num_classes=spec.get("num_classes", CLASSES),
        in_channels=CHANNELS,
        feat_channels=CHANNELS,
        strides=list(STRIDES),
        norm_cfg=dict(type="GN", num_groups=32),
        loss_cls=dict(type="mmdet.FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="mmdet.IoULoss", loss_weight=1.0),
        loss_centerness=dict(type="mmdet.CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
        **head,
    )
    return dict(
        type="mmdet.NASFCOS",
        backbone=backbone,
        neck=neck,
        bbox_head=bbox_head,
        train_cfg=None,
        test_cfg=dict(nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type="nms", iou_threshold=0.6), max_per_img=100),
    )
