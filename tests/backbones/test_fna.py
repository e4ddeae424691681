import pytest
import torch
from torch import nn

from backbones.fna import DETECTION_DEPTHS, chain
from backbones.published import find
from backbones.spec import model_config
from search.registry import MODELS
from search.supernet import record
from tasks import mm_ops

mm_ops.install()
TINY = [[4, [[3, 1]], 1], *([c, [[3, 6], [5, 3]], s] for c, s in ((4, 2), (6, 2), (8, 2), (8, 1), (12, 2)))]
TINY.append([16, [[7, 6]], 1])


def test_a_layer_that_is_not_printed_is_skipped_and_the_space_is_the_papers():
    config = model_config(find("RetinaNet FNA")["spec"])["backbone"]
    arch = config.pop("arch")
    assert [arch[f"s1/b{b}"] for b in range(4)] == ["k3_e6", "k3_e6", "skip", "skip"]
    assert [arch[f"s5/b{b}"] for b in range(4)] == ["k7_e6", "k7_e6", "k7_e3", "k7_e6"]
    # all levels, so that nothing is left out
    space = record(lambda: MODELS.build({**config, "out_indices": (4,)})).space
    assert {choice.name for choice in space} == set(arch)
    six = {f"k{k}_e{e}" for k in (3, 5, 7) for e in (3, 6)}
    for choice in space:
        first = choice.name.endswith("/b0")
        assert set(choice.options) == (six if first else six | {"skip"})
    # 6 first layers, 5 stages of 3 more
    assert space.size == 6**6 * 7**15


def test_more_layers_than_the_space_has_are_refused():
    stages = [[c, blocks * 5 if c == 6 else blocks, s] for c, blocks, s in TINY]
    with pytest.raises(ValueError, match="stage 2 has 10 layers, but this space has 4"):
        chain(32, stages, DETECTION_DEPTHS)


def test_beyond_stride_16_kernels_are_dilated():
    model = MODELS.build(model_config(find("DeepLabv3 FNA")["spec"])["backbone"])
    assert model.out_strides == (16,) and model.out_channels == (320,)
    for index, stage in enumerate(model.stages):
        dilations = {m.dilation for m in stage.modules() if isinstance(m, nn.Conv2d) and m.groups > 1}
        assert dilations == {(2, 2) if index >= 5 else (1, 1)}


def test_mmdet_s_retinanet_has_five_levels_and_a_loss():
    structures = pytest.importorskip("mmdet.structures")
    from mmengine.structures import InstanceData

    model = MODELS.build(model_config(dict(schema="mbv2_ops", stem=8, stages=TINY, ch=8, num_classes=2)))
    images = torch.randn(1, 3, 128, 96)
    scores, boxes = model(images)
    assert [tuple(y.shape) for y in scores] == [(1, 18, -(-128 // s), -(-96 // s)) for s in (8, 16, 32, 64, 128)]
    assert [y.shape[1] for y in boxes] == [36] * 5
    # the sixth level is made from the backbone's last map, not from the pyramid's
    assert model.neck.fpn_convs[3].conv.in_channels == 16
    sample = structures.DetDataSample(metainfo=dict(img_shape=(128, 96), pad_shape=(128, 96)))
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[5.0, 5, 40, 60]]), labels=torch.tensor([0]))
    total = sum(sum(terms) for terms in model.loss(images, [sample]).values())
    total.backward()
    assert total.isfinite() and all(p.grad is not None for p in model.parameters())
