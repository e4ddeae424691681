import pytest
import torch
from mmengine import ConfigDict

from backbones import spinenet
from backbones.published import find
from backbones.spec import model_config
from backbones.spinenet import BLOCKS, FILTER_SIZE, SCALES, SpineNet, wire
from search.registry import MODELS
from tasks import mm_ops

mm_ops.install()
SMALL = dict(filter_scale=0.0625, endpoints_channels=8)


def test_a_node_without_successors_joins_the_next_output_of_its_shape():
    nodes = wire(BLOCKS, FILTER_SIZE)
    # node 11 (level 5, bottleneck) is nobody's parent; 14 is the output of level 5
    assert [(n, node.added) for n, node in enumerate(nodes) if node.added] == [(14, (11,))]
    followed = {p for node in nodes for p in (*node.parents, *node.added)}
    assert [n for n, node in enumerate(nodes) if n not in followed and not node.output] == []
    assert [node.channels for node in nodes[:6]] == [256, 256, 256, 256, 512, 1024]


@pytest.mark.parametrize("size", [(128, 128), (97, 230)])
def test_levels_are_those_it_states_at_any_size(size):
    model = SpineNet(**SMALL, out_indices=(0, 1, 2, 3, 4, 5)).eval()
    with torch.no_grad():
        maps = model(torch.randn(1, 3, *size))
    assert model.out_strides == (4, 8, 16, 32, 64, 128)
    for y, c, stride in zip(maps, model.out_channels, model.out_strides, strict=True):
        assert y.shape == (1, c, -(-size[0] // stride), -(-size[1] // stride))


def test_only_what_the_returned_levels_need_is_built():
    model = SpineNet(**SMALL, out_indices=(1, 2))
    # node 13 (P3) comes from 4 and 10, 12 (P4) from 5 and 10; 11 and all later outputs are left out
    assert set(model.blocks) == {f"n{n}" for n in (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13)}
    sum(y.sum() for y in model(torch.randn(2, 3, 128, 128))).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_mean_is_taken_of_equal_levels():
    torch.manual_seed(0)
    one, several = SpineNet(**SMALL, mean=True).eval(), SpineNet(**SMALL).eval()
    several.load_state_dict(one.state_dict())
    x = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        (mean,), levels = one(x), several(x)
    assert one.out_channels == (8,) and one.out_strides == (8,) and mean.shape == levels[0].shape
    # sizes divide one another, so upsampling leaves each level's own mean
    expected = torch.stack([y.mean((2, 3)) for y in levels]).mean(0)
    assert torch.allclose(mean.mean((2, 3)), expected, atol=1e-5)
    with pytest.raises(ValueError, match="leave 0 out"):
        SpineNet(**SMALL, mean=True, out_indices=(0, 1))


def test_freezing_the_base_leaves_the_permuted_blocks():
    model = SpineNet(**SMALL, frozen_stages=0).train()
    assert not any(p.requires_grad for m in (model.stem, model.base) for p in m.parameters())
    assert all(p.requires_grad for m in (model.blocks, model.endpoints) for p in m.parameters())
    model = SpineNet(**SMALL, frozen_stages=2)
    frozen = [name for name, endpoint in model.endpoints.items() if not next(endpoint.parameters()).requires_grad]
    assert frozen == ["p3", "p4"] and not any(p.requires_grad for p in model.blocks.parameters())


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ((4, "residual", (0, 2), False), "node 2 has parents"),
        ((4, "dense", (0, 1), False), "'dense' at level 4"),
        ((9, "residual", (0, 1), False), "at level 9"),
    ],
)
def test_a_wiring_that_cannot_be_is_refused(block, says):
    with pytest.raises(ValueError, match=says):
        SpineNet([block], **SMALL)
    with pytest.raises(ValueError, match="node 3 is a second output of level 4"):
        SpineNet([(4, "residual", (0, 1), True), (4, "bottleneck", (0, 2), True)], **SMALL)


def test_references_to_a_scale_are_the_blocks_that_detectors_list():
    for scale in ("49", "143", "190", "49S"):
        size = 640 if scale.startswith("49") else 1280
        spec = find(f"SpineNet-{scale} RetinaNet {size}")["spec"]
        listed = tuple((b["level"], b["kind"], tuple(b["parents"]), b["output"]) for b in spec["blocks"])
        assert listed == BLOCKS
        assert {int(level): c for level, c in spec["filter_size"].items()} == FILTER_SIZE
        assert {name: spec[name] for name in SCALES[scale]} == SCALES[scale]
    with pytest.raises(ValueError, match="names none of SpineNet-49S"):
        spinenet.spinenet({"ref": "blocks as in the SpineNet-50 RetinaNet entry"})


def detector():
    pytest.importorskip("mmdet")
    blocks = [dict(level=n, kind="bottleneck", parents=[0, 1], output=True) for n in range(3, 8)]
    spec = dict(schema="spinenet", blocks=blocks, filter_size={str(n): 4 for n in range(2, 8)}, endpoints_channels=8)
    spec |= dict(filter_scale=1, resample_alpha=1, block_repeats=1, retina_head=dict(channels=16, convs=2), num_classes=3)
    return MODELS.build(ConfigDict(model_config(spec)))


def test_the_head_shares_convolutions_between_levels_and_not_norms():
    head = detector().bbox_head
    for branch in (head.cls_convs, head.reg_convs):
        assert len(branch) == 5 and len(branch[0]) == 2
        for i in range(2):
            assert len({id(level[i].conv) for level in branch}) == 1 and len({id(level[i].bn) for level in branch}) == 5
            # the official convolutions have a bias in front of the norm
            assert branch[0][i].conv.bias is not None


def test_mmdet_trains_and_predicts_with_it():
    model = detector()
    model.init_weights()
    structures, data = pytest.importorskip("mmdet.structures"), pytest.importorskip("mmengine.structures")
    sample = structures.DetDataSample(metainfo=dict(img_shape=(128, 128), pad_shape=(128, 128), scale_factor=(1.0, 1.0)))
    boxes = torch.tensor([[10.0, 10, 60, 70]])
    sample.gt_instances = data.InstanceData(bboxes=boxes, labels=torch.tensor([1]))
    images = torch.randn(2, 3, 128, 128)
    losses = model.loss(images, [sample, sample])
    total = sum(sum(terms) for terms in losses.values())
    total.backward()
    assert set(losses) == {"loss_cls", "loss_bbox"} and total.isfinite()
    assert all(p.grad is not None for p in model.parameters())
    results = model.eval().predict(images, [sample, sample])
    assert len(results) == 2 and all(len(result.pred_instances) <= 100 for result in results)
