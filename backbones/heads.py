"""Configs of mmdet's and mmseg's models around a backbone; `backbones.spec.classifier` is their like for classification.

They name types only: nothing of mmdet or mmseg is imported until such a config is built.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from search.registry import MODELS

# RetinaNet (arXiv 1708.02002), section 4: levels P3 to P7
STRIDES = (8, 16, 32, 64, 128)


@MODELS.register_module()
class BiasedConv2d(nn.Conv2d):
    """A convolution with a bias in front of a norm too, where mm's ConvModule would leave it out; for `conv_cfg`.

    The convolutions of the official RetinaNet head (tensorflow/tpu, modeling/architecture/heads.py) are such.
    """

    def __init__(self, *args, **settings) -> None:
        super().__init__(*args, **{**settings, "bias": True})


def separate_norms(channels: int, convolutions: int, norm: Mapping | None = None, biased: bool = True) -> dict:
    """The config of mmdet's head of towers whose convolutions levels share, and whose norms they don't.

    `norm`: `eps` and `momentum` of the norms; `biased`: with a bias in front of them, as in the official RetinaNet. Activations
    are ReLU.
    """
    return dict(
        type="mmdet.RetinaSepBNHead",
        num_ins=len(STRIDES),
        in_channels=channels,
        feat_channels=channels,
        stacked_convs=convolutions,
        conv_cfg=dict(type="search.BiasedConv2d") if biased else None,
        norm_cfg=dict(type="BN", **(norm or {})),
    )


def retinanet(backbone: dict, head: Mapping, num_classes: int, neck: dict | None = None) -> dict:
    """The config of mmdet's RetinaNet with focal loss, on five levels of strides 8 to 128.

    Args:
        head: `type` of the head with `in_channels`, `feat_channels`, `stacked_convs` and what else it takes.
        neck: config of what makes five levels of the backbone's; None where the backbone gives them itself.
    """
    bbox_head = dict(
        num_classes=num_classes,
        anchor_generator=dict(
            type="mmdet.AnchorGenerator",
            octave_base_scale=4,
            scales_per_octave=3,
            ratios=[0.5, 1.0, 2.0],
            strides=list(STRIDES),
        ),
        bbox_coder=dict(type="mmdet.DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[1.0] * 4),
        loss_cls=dict(type="mmdet.FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="mmdet.L1Loss", loss_weight=1.0),
        **head,
    )
    assigner = dict(type="mmdet.MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1)
    return dict(
        type="mmdet.RetinaNet",
        backbone=backbone,
        neck=neck,
        bbox_head=bbox_head,
        # focal loss takes every anchor, so nothing is sampled
        train_cfg=dict(
            assigner=assigner, sampler=dict(type="mmdet.PseudoSampler"), allowed_border=-1, pos_weight=-1, debug=False
        ),
        test_cfg=dict(nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type="nms", iou_threshold=0.5), max_per_img=100),
    )


def segmentor(backbone: dict, decode_head: Mapping, num_classes: int, neck: dict | None = None) -> dict:
    """The config of mmseg's EncoderDecoder; `decode_head` says type and channels, cross-entropy is its loss."""
    head = dict(
        num_classes=num_classes,
        norm_cfg=dict(type="BN"),
        # the mean over pixels that have a class, as torch's
        loss_decode=dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True),
    ) | dict(decode_head)
    parts = dict(backbone=backbone, decode_head=head) if neck is None else dict(backbone=backbone, neck=neck, decode_head=head)
    return dict(type="mmseg.EncoderDecoder", **parts, train_cfg={}, test_cfg=dict(mode="whole"))
