"""Every family under mmdet's own detectors: losses from real samples, gradients down to the first layer."""

import pytest
import torch

pytest.importorskip("mmdet")

import tasks.detection  # noqa: F401, I001  (before mmdet's models)
import mmdet.models  # noqa: F401
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from tests.tasks.families import FAMILIES, STRIDES

SIZE = (64, 96)
NECK = dict(type="mmdet.FPN", out_channels=16, num_outs=5, start_level=1, add_extra_convs="on_output")
HEAD = dict(num_classes=3, in_channels=16, feat_channels=16, stacked_convs=1)


def retinanet(backbone: dict, in_channels: list[int]) -> dict:
    return dict(
        type="mmdet.RetinaNet",
        data_preprocessor=dict(type="mmdet.DetDataPreprocessor", mean=[120.0] * 3, std=[58.0] * 3, pad_size_divisor=32),
        backbone=backbone,
        neck=dict(NECK, in_channels=in_channels),
        bbox_head=dict(
            type="mmdet.RetinaHead",
            **HEAD,
            anchor_generator=dict(
                type="mmdet.AnchorGenerator",
                octave_base_scale=4,
                scales_per_octave=3,
                ratios=[0.5, 1.0, 2.0],
                strides=[8, 16, 32, 64, 128],
            ),
        ),
        train_cfg=dict(
            assigner=dict(type="mmdet.MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1),
            sampler=dict(type="mmdet.PseudoSampler"),
            allowed_border=-1,
            pos_weight=-1,
        ),
        test_cfg=dict(nms_pre=100, min_bbox_size=0, score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=10),
    )


def fcos(backbone: dict, in_channels: list[int]) -> dict:
    head = dict(type="mmdet.FCOSHead", **HEAD, strides=[8, 16, 32, 64, 128], norm_cfg=dict(type="GN", num_groups=4))
    return dict(retinanet(backbone, in_channels), type="mmdet.FCOS", bbox_head=head, train_cfg=None)


def faster_rcnn(backbone: dict, in_channels: list[int]) -> dict:
    made = retinanet(backbone, in_channels)
    sampler = dict(type="mmdet.RandomSampler", num=16, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=True)
    nms = dict(type="nms", iou_threshold=0.7)
    return dict(
        type="mmdet.FasterRCNN",
        data_preprocessor=made["data_preprocessor"],
        backbone=backbone,
        neck=dict(type="mmdet.FPN", in_channels=in_channels, out_channels=16, num_outs=5),
        rpn_head=dict(
            type="mmdet.RPNHead",
            in_channels=16,
            feat_channels=16,
            anchor_generator=dict(type="mmdet.AnchorGenerator", scales=[4], ratios=[1.0], strides=[4, 8, 16, 32, 64]),
        ),
        roi_head=dict(
            type="mmdet.StandardRoIHead",
            bbox_roi_extractor=dict(
                type="mmdet.SingleRoIExtractor",
                roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0),
                out_channels=16,
                featmap_strides=[4, 8, 16, 32],
            ),
            bbox_head=dict(type="mmdet.Shared2FCBBoxHead", in_channels=16, fc_out_channels=16, num_classes=3),
        ),
        train_cfg=dict(
            rpn=dict(assigner=made["train_cfg"]["assigner"], sampler=sampler, allowed_border=-1, pos_weight=-1),
            rpn_proposal=dict(nms_pre=50, max_per_img=20, nms=nms, min_bbox_size=0),
            rcnn=dict(assigner=made["train_cfg"]["assigner"], sampler=sampler, pos_weight=-1),
        ),
        test_cfg=dict(
            rpn=dict(nms_pre=50, max_per_img=20, nms=nms, min_bbox_size=0),
            rcnn=dict(score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=10),
        ),
    )


def samples(height: int = SIZE[0], width: int = SIZE[1]) -> dict:
    """Two images with two boxes each, as mmdet's pipelines hand them over."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8) for _ in range(2)]
    annotated = []
    for index in range(2):
        sample = DetDataSample(
            metainfo=dict(img_id=index, img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0))
        )
        boxes = torch.tensor([[4.0, 8.0, 36.0, 40.0], [30.0, 10.0, 90.0, 60.0]])
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([index, 2]))
        annotated.append(sample)
    return dict(inputs=images, data_samples=annotated)


def build(detector, family: str, **settings):
    torch.manual_seed(0)
    backbone = dict(FAMILIES[family], **settings)
    channels = list(MODELS.build(backbone).out_channels)
    model = MODELS.build(ConfigDict(detector(backbone, channels)))
    model.init_weights()
    return model


@pytest.mark.parametrize("detector", [retinanet, fcos], ids=lambda f: f.__name__)
@pytest.mark.parametrize("family", FAMILIES)
def test_losses_train_the_backbone(family, detector):
    model = build(detector, family).train()
    data = model.data_preprocessor(samples(), training=True)
    loss, logged = model.parse_losses(model(**data, mode="loss"))
    assert all(torch.isfinite(value).all() for value in logged.values()) and loss > 0
    loss.backward()
    parameters = dict(model.backbone.named_parameters())
    # DistributedDataParallel needs every parameter to take part
    assert [name for name, p in parameters.items() if p.grad is None] == []
    first = next(p for p in parameters.values() if p.ndim == 4)
    assert first.grad.isfinite().all() and first.grad.abs().max() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_maps_have_the_strides_that_anchors_count_on(family):
    backbone = MODELS.build(FAMILIES[family])
    assert backbone.out_strides == STRIDES
    maps = backbone(torch.randn(2, 3, *SIZE))
    assert [tuple(x.shape) for x in maps] == [
        (2, c, SIZE[0] // s, SIZE[1] // s) for c, s in zip(backbone.out_channels, STRIDES, strict=True)
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_stages_neither_learn_nor_vary(family):
    settings = FAMILIES[family]
    backbone = MODELS.build(dict(settings, frozen_stages=settings["out_indices"][0])).train()
    x = torch.randn(2, 3, *SIZE)
    trained = backbone(x)
    assert [level.requires_grad for level in trained] == [False, True, True, True]
    # in evaluation mode: nothing is drawn, no statistics of the batch
    torch.testing.assert_close(trained[0], backbone(x)[0], rtol=0, atol=0)
    torch.testing.assert_close(trained[0], backbone.eval()(x)[0], rtol=0, atol=0)


def test_a_two_stage_detector_learns_from_its_pooled_boxes():
    model = build(faster_rcnn, "mobilenet_v2").train()
    losses = model(**model.data_preprocessor(samples(), training=True), mode="loss")
    # through RoIAlign alone
    (losses["loss_cls"] + losses["loss_bbox"]).backward()
    first = next(p for p in model.backbone.parameters() if p.ndim == 4)
    assert first.grad.isfinite().all() and first.grad.abs().max() > 0


@pytest.mark.parametrize("detector", [retinanet, fcos, faster_rcnn], ids=lambda f: f.__name__)
def test_predictions_are_boxes_within_the_image(detector):
    model = build(detector, "mobilenet_v2").eval()
    with torch.no_grad():
        predicted = model(**model.data_preprocessor(samples(), training=False), mode="predict")
    for sample in predicted:
        boxes = sample.pred_instances.bboxes
        assert 0 < len(boxes) <= 10
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= SIZE[1]).all() and (boxes[:, 3] <= SIZE[0]).all()


@pytest.mark.parametrize("prefix", [None, "backbone."])
def test_pretrained_weights_are_loaded(tmp_path, prefix):
    source = MODELS.build(FAMILIES["mobilenet_v2"])
    state = {
        f"{prefix or ''}{name}": torch.rand_like(x) if x.is_floating_point() else x for name, x in source.state_dict().items()
    }
    torch.save(dict(meta={}, state_dict=state), tmp_path / "weights.pth")
    init = dict(type="Pretrained", checkpoint=str(tmp_path / "weights.pth"), prefix=prefix and prefix[:-1])
    model = build(retinanet, "mobilenet_v2", init_cfg={key: value for key, value in init.items() if value})
    loaded = model.backbone.state_dict()
    assert len(loaded) == len(state)
    assert all(torch.equal(value, state[f"{prefix or ''}{name}"]) for name, value in loaded.items())
