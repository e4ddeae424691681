import time
from pathlib import Path

import pytest
from torch import nn

from search.engine.config import TOP_LEVEL, load
from search.engine.errors import UserError
from search.registry import MODELS


@MODELS.register_module()
class ConfigToyBackbone(nn.Module):
    def __init__(self, channels=16, layers=8):
        super().__init__()


@MODELS.register_module()
class ConfigToyClassifier(nn.Module):
    def __init__(self, backbone, num_classes=10, loss=None):
        super().__init__()


CONFIGS = Path(__file__).resolve().parents[3] / "configs"
BASE = """
batch_size = 4
model = dict(type='search.ConfigToyClassifier', backbone=dict(type='search.ConfigToyBackbone', channels=8))
sampler = dict(type='DefaultSampler', shuffle=True)
train_dataloader = dict(batch_size=batch_size, num_workers=0, sampler=sampler)
clip = dict(max_norm=5, norm_type=2)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9), clip_grad=clip)
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=0.0, convert_to_iter_based=True)]
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1, save_optimizer=True))
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
splits = dict(weights=0.45, architecture=0.45, validation=0.1)
seed = 3
"""


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.py"
    path.write_text(BASE)
    return path


def test_a_good_config_loads_and_its_variables_are_dropped(base):
    cfg = load(base)
    assert cfg.train_dataloader.batch_size == 4
    assert "batch_size" not in cfg
    assert cfg.seed == 3


def test_options_are_merged_with_their_types(base, tmp_path):
    options = [
        "model.backbone.layers=5",
        "data_root=/a folder/with spaces",
        "optim_wrapper.optimizer.lr=1e-2",
    ]
    cfg = load(base, [*options, "experiment_name='1,2'"])
    assert cfg.model.backbone.layers == 5
    assert cfg.data_root == "/a folder/with spaces"
    assert cfg.optim_wrapper.optimizer.lr == 0.01
    assert cfg.experiment_name == "1,2"


def test_what_was_loaded_can_be_written_and_loaded_again(base, tmp_path):
    cfg = load(base, ["seed=7"])
    cfg.dump(tmp_path / "config.py")
    assert load(tmp_path / "config.py").to_dict() == cfg.to_dict()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("optim_wraper.optimizer.lr=1", ["'optim_wraper'", "'optim_wrapper'"]),
        (
            "model.backbone.chanels=4",
            ["model.backbone", "'chanels'", "'channels'", "search.ConfigToyBackbone"],
        ),
        (
            "model.backbone.type=search.ConfigToyBackbon",
            ["model.backbone", "type", "'search.ConfigToyBackbone'"],
        ),
        ("model.num_clases=4", ["model:", "'num_clases'", "'num_classes'"]),
        ("train_dataloader.batchsize=4", ["train_dataloader:", "'batchsize'", "'batch_size'"]),
        ("train_dataloader.sampler.shufle=True", ["train_dataloader.sampler:", "'shufle'", "'shuffle'"]),
        ("train_dataloader.sampler.type=DefaultSamplr", ["type 'DefaultSamplr'", "'DefaultSampler'"]),
        ("optim_wrapper.clip_gradd=1", ["optim_wrapper:", "'clip_gradd'", "'clip_grad'"]),
        ("optim_wrapper.clip_grad.max_norn=5", ["optim_wrapper.clip_grad:", "'max_norn'", "'max_norm'"]),
        ("optim_wrapper.clip_grad.type=nrm", ["optim_wrapper.clip_grad:", "'nrm'", "'norm'"]),
        ("optim_wrapper.clip_grad=5", ["optim_wrapper.clip_grad=5", "max_norm"]),
        ("optim_wrapper.optimizer.momentumm=1", ["optim_wrapper.optimizer:", "'momentumm'", "'momentum'"]),
        ("param_scheduler.0.eta_minn=1", ["param_scheduler[0]:", "'eta_minn'", "'eta_min'"]),
        ("default_hooks.checkpoint.intervall=1", ["default_hooks.checkpoint:", "'intervall'", "'interval'"]),
        (
            "visualizer.vis_backends.0.type=LocalVisBackendd",
            ["visualizer.vis_backends[0]", "'LocalVisBackend'"],
        ),
        ("splits.weigths=0.5", ["splits:", "'weigths'", "'weights'"]),
        ("task=classificatoin", ["task:", "'classificatoin'", "'classification'"]),
        ("default_hooks.logger.interval=5", ["default_hooks.logger", "'type'"]),
        ("batch_size=8", ["'batch_size'", "variable", "changes nothing"]),
        ("model.backbone.channels.x=8", ["does not fit"]),
        ("seed", ["key=value"]),
    ],
)
def test_a_bad_option_is_named_with_the_nearest_known_one(base, option, words):
    with pytest.raises(UserError) as error:
        load(base, [option])
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_the_logits_clipping_is_checked_like_the_weights(base, tmp_path):
    child = tmp_path / "child.py"
    text = "_base_ = 'base.py'\ntrain_cfg = dict(type='search.BilevelLoop', max_epochs=1, arch_clip_grad=dict({}=5))\n"
    child.write_text(text.format("max_norm"))
    assert load(child).train_cfg.arch_clip_grad.max_norm == 5
    child.write_text(text.format("max_nrm"))
    with pytest.raises(UserError, match=r"train_cfg\.arch_clip_grad: unknown key 'max_nrm'"):
        load(child)


def test_a_class_s_own_group_of_settings_is_its_own(base):
    assert load(base, ["model.loss.weight=2"]).model.loss.weight == 2


def test_misspelt_key_in_a_file_and_a_variable_that_is_read(base, tmp_path):
    child = tmp_path / "child.py"
    child.write_text(
        "_base_ = 'base.py'\nepochs = 2\nlog_levl = 'INFO'\nparam_scheduler = [dict(type='ConstantLR', end=epochs)]\n"
    )
    with pytest.raises(UserError, match=r"'log_levl'.*'log_level'"):
        load(child)


def test_setting_a_variable_of_the_base_config_is_refused(base, tmp_path):
    child = tmp_path / "child.py"
    child.write_text("_base_ = 'base.py'\nbatch_size = 64\n")
    with pytest.raises(UserError, match="'batch_size' is a variable of a base config"):
        load(child)
    child.write_text("_base_ = 'base.py'\nbatch_size = 64\ntrain_dataloader = dict(batch_size=batch_size)\n")
    assert load(child).train_dataloader.batch_size == 64
    child.write_text("_base_ = 'base.py'\nval_dataloader = dict(batch_size={{_base_.batch_size}})\n")
    assert load(child).val_dataloader.batch_size == 4


def test_unreadable_files_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "none.py")
    broken = tmp_path / "broken.py"
    broken.write_text("model = dict(\n")
    with pytest.raises(UserError, match="can't be read"):
        load(broken)
    broken.write_text("_base_ = 'missing.py'\n")
    with pytest.raises(UserError, match=r"missing\.py"):
        load(broken)


# lists of entries, and configs of mmdet's own Runner
OTHERS = ("benchmarks", "mmdet")


@pytest.mark.parametrize(
    "path", sorted(path for path in CONFIGS.glob("[!_]*/*.py") if path.parent.name not in OTHERS), ids=lambda path: path.stem
)
def test_every_config_of_the_project_loads(path):
    cfg = load(path)
    assert set(cfg) <= set(TOP_LEVEL)
    assert {"task", "model", "train_cfg", "train_dataloader", "optim_wrapper", "score"} <= set(cfg)


def test_a_config_with_long_paths_is_written_at_once(base):
    cfg = load(base)
    cfg.data_root = "/folder" * 12
    start = time.perf_counter()
    text = cfg.pretty_text
    assert time.perf_counter() - start < 1
    assert "/folder/folder" in text
