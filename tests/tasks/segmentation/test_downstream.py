"""Every family under mmseg's encoder-decoder: the loss of real samples, gradients down to the first layer."""

import pytest
import torch

pytest.importorskip("mmseg")

import tasks.segmentation  # noqa: F401, I001  (before mmseg's models)
import mmseg.models  # noqa: F401
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from tests.tasks.families import FAMILIES, FINE_FAMILIES

NETWORKS = {**FAMILIES, **FINE_FAMILIES}
SIZE = (64, 96)
CLASSES = 4


def deeplab(backbone: dict, in_channels: tuple[int, ...]) -> dict:
    """DeepLabV3+ on the first and the last of three levels, with an auxiliary head on the second."""
    norm = dict(type="BN", requires_grad=True)
    loss = dict(type="mmseg.CrossEntropyLoss", loss_weight=1.0)
    return dict(
        type="mmseg.EncoderDecoder",
        data_preprocessor=dict(
            type="mmseg.SegDataPreProcessor", mean=[120.0] * 3, std=[58.0] * 3, size=SIZE, pad_val=0, seg_pad_val=255
        ),
        backbone=backbone,
        decode_head=dict(
            type="mmseg.DepthwiseSeparableASPPHead",
            in_channels=in_channels[2],
            in_index=2,
            channels=8,
            dilations=(1, 2, 4),
            c1_in_channels=in_channels[0],
            c1_channels=4,
            num_classes=CLASSES,
            norm_cfg=norm,
            loss_decode=loss,
        ),
        auxiliary_head=dict(
            type="mmseg.FCNHead",
            in_channels=in_channels[1],
            in_index=1,
            channels=8,
            num_convs=1,
            num_classes=CLASSES,
            norm_cfg=norm,
            loss_decode=loss,
        ),
        train_cfg=dict(),
        test_cfg=dict(mode="whole"),
    )


def samples() -> dict:
    """Two images with their maps of classes, as mmseg's pipelines hand them over; 255 is ignored."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, *SIZE), generator=generator, dtype=torch.uint8) for _ in range(2)]
    annotated = []
    for _ in range(2):
        sample = SegDataSample(metainfo=dict(img_shape=SIZE, ori_shape=SIZE, pad_shape=SIZE))
        classes = torch.randint(0, CLASSES, (1, *SIZE), generator=generator)
        classes[:, :4] = 255
        sample.gt_sem_seg = PixelData(data=classes)
        annotated.append(sample)
    return dict(inputs=images, data_samples=annotated)


def three_levels(family: str) -> dict:
    """The family's backbone with its finest and its two coarsest levels."""
    low, *_, middle, last = NETWORKS[family]["out_indices"]
    return dict(NETWORKS[family], out_indices=(low, middle, last))


def build(family: str):
    torch.manual_seed(0)
    backbone = three_levels(family)
    model = MODELS.build(ConfigDict(deeplab(backbone, MODELS.build(backbone).out_channels)))
    model.init_weights()
    return model


@pytest.mark.parametrize("family", NETWORKS)
def test_losses_train_the_backbone(family):
    model = build(family).train()
    losses = model(**model.data_preprocessor(samples(), training=True), mode="loss")
    loss, logged = model.parse_losses(losses)
    assert {"decode.loss_ce", "aux.loss_ce"} <= set(logged)
    assert all(torch.isfinite(value).all() for value in logged.values()) and loss > 0
    loss.backward()
    parameters = dict(model.backbone.named_parameters())
    # DistributedDataParallel needs every parameter to take part
    assert [name for name, p in parameters.items() if p.grad is None] == []
    first = next(p for p in parameters.values() if p.ndim == 4)
    assert first.grad.isfinite().all() and first.grad.abs().max() > 0


def test_predictions_are_classes_of_every_pixel():
    model = build("darts").eval()
    with torch.no_grad():
        predicted = model(**model.data_preprocessor(samples(), training=False), mode="predict")
    for sample in predicted:
        assert sample.pred_sem_seg.data.shape == (1, *SIZE)
        assert sample.seg_logits.data.shape == (CLASSES, *SIZE)
        assert torch.equal(sample.pred_sem_seg.data[0], sample.seg_logits.data.argmax(0))
