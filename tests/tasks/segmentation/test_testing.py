"""Averaging over versions, sliding windows, label maps and painted images, on a network that is known."""

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from PIL import Image

pytest.importorskip("mmseg")

import tasks.segmentation  # noqa: F401, I001  (before mmseg's models)
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmengine.visualization import Visualizer
from search.engine.errors import UserError
from search.registry import HOOKS, MODELS, TASKS
from tests.tasks.hooked import Runner
from tests.tasks.segmentation.conftest import label_path

LOADING = [dict(type="LoadImageFromFile"), dict(type="mmseg.LoadAnnotations"), dict(type="mmseg.PackSegInputs")]


@MODELS.register_module(force=True)
class PixelNet(torch.nn.Conv2d):
    def __init__(self):
        super().__init__(3, 8, 1)

    def forward(self, x):
        return (super().forward(x),)


def runner_of(root, model, **cfg):
    folders = dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val")
    dataset = dict(type="search.CityscapesFolder", data_root=str(root), data_prefix=folders, pipeline=LOADING)
    return Runner(model, dataset, cfg)


@pytest.fixture
def model():
    """Each pixel alone decides, so windows and mirror images change nothing."""
    init_default_scope("mmseg")
    torch.manual_seed(0)
    head = dict(type="mmseg.FCNHead", in_channels=8, channels=8, in_index=0, num_convs=0, num_classes=19, concat_input=False)
    built = MODELS.build(
        ConfigDict(
            type="mmseg.EncoderDecoder",
            data_preprocessor=dict(type="mmseg.SegDataPreProcessor", mean=[100.0] * 3, std=[50.0] * 3),
            backbone=dict(type="search.PixelNet"),
            decode_head=head,
            test_cfg=dict(mode="whole"),
        )
    )
    torch.nn.init.normal_(built.decode_head.conv_seg.weight)
    return built.eval()


def test_versions_are_averaged(model, make_folder):
    flips = [dict(type="mmseg.RandomFlip", prob=p, direction="horizontal") for p in (0.0, 1.0)]
    versions = dict(type="TestTimeAug", transforms=[flips, LOADING[1:2], LOADING[2:]])
    runner = runner_of(make_folder(), model, tta_pipeline=[LOADING[0], versions])
    plain = [sample.seg_logits.data.clone() for sample in runner.test()]
    hook = dict(type="search.AugmentedTestHook")
    averaged = list(runner.test(hook))
    assert len(plain) == len(averaged) == 3
    for logits, sample in zip(plain, averaged, strict=True):
        assert torch.equal(sample.pred_sem_seg.data[0], logits.argmax(0))
        assert sample.gt_sem_seg.data.shape == (1, 32, 48)
    assert runner.model is model
    with pytest.raises(UserError, match="--tta: the config has no tta_pipeline"):
        list(runner_of(make_folder("other"), model).test(hook))


def test_windows_slide(model, make_folder):
    runner = runner_of(make_folder(), model)
    whole = [sample.seg_logits.data.clone() for sample in runner.test()]
    model.test_cfg = ConfigDict(mode="slide", crop_size=(20, 20), stride=(13, 13))
    for logits, sample in zip(whole, runner.test(), strict=True):
        assert torch.allclose(logits, sample.seg_logits.data, atol=1e-5)


def test_label_maps_and_painted_images(model, make_folder, tmp_path):
    root = make_folder()
    # as every runner has one
    Visualizer.get_instance("painted")
    hooks = TASKS.build(dict(type="segmentation")).test_hooks(str(tmp_path / "out"), str(tmp_path / "show"), False)
    predicted = [sample.pred_sem_seg.data[0].numpy() for sample in runner_of(root, model).test(*hooks)]
    files = sorted((tmp_path / "out").rglob("*.png"))
    assert [f.relative_to(tmp_path / "out").as_posix() for f in files] == [f"town/town_{i:06d}_000019.png" for i in range(3)]
    for file, labels in zip(files, predicted, strict=True):
        assert (np.asarray(Image.open(file)) == labels).all()
    painted = sorted((tmp_path / "show").glob("test_town_*.png"))
    # labels left, predictions right
    assert [Image.open(path).size for path in painted] == [(96, 32)] * 3
    with pytest.raises(UserError, match="give the name of a folder"):
        HOOKS.build(dict(type="search.LabelMapsHook", out="predictions.json"))


def test_versions_read_checked_files(make_folder):
    root = make_folder()
    Image.fromarray(np.full((32, 48), 19, np.uint8)).save(label_path(root, "val", 0))
    load = [dict(type="LoadImageFromFile"), dict(type="search.LoadLabels", num_classes=19)]
    dataset = runner_of(root, None).dataset
    dataset.pipeline = Compose(load)
    with pytest.raises(UserError, match="has the label 19"):
        dataset[0]
