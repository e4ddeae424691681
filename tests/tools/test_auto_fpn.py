"""Auto-FPN-style necks and heads go through the tools on embedded scenes: searched with partial channels, trained, tested."""

import json

import pytest
import torch

pytest.importorskip("mmdet")

from tasks.scenes import Settings, make
from tests.tools.test_detection import ONLY_SEARCH, of_a_folder, scores_in, write

RETINANET = """
model = dict(
    backbone=dict(base_channels=4),
    neck=dict(in_channels=[4, 8, 16, 32], channels=8, nodes=1),
    bbox_head=dict(in_channels=8, feat_channels=8, cls_cell=dict(nodes=1), reg_cell=dict(nodes=1)),
    test_cfg=dict(score_thr=0.0, max_per_img=20),
)
"""
WHOLE = """
model = dict(
    backbone=dict(channels=4, layers=2, reductions=(1,), nodes=2, out_indices=(0, 1, 2)),
    neck=dict(in_channels=[4, 8, 16], channels=8, nodes=1),
    bbox_head=dict(in_channels=8, feat_channels=8, cls_cell=dict(nodes=1), reg_cell=dict(nodes=1)),
    test_cfg=dict(score_thr=0.0, max_per_img=20),
)
"""
FASTER = """
model = dict(
    backbone=dict(base_channels=4),
    neck=dict(in_channels=[4, 8, 16, 32], channels=8, nodes=1),
    rpn_head=dict(in_channels=8, feat_channels=8),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=8), bbox_head=dict(in_channels=8, channels=16, cell=dict(nodes=1))),
    train_cfg=dict(rpn_proposal=dict(nms_pre=50, max_per_img=20), rcnn=dict(sampler=dict(num=16))),
    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=20), rcnn=dict(score_thr=0.0, max_per_img=20)),
)
"""


ALONE = {
    "neck": """
model = dict(
    backbone=dict(base_channels=4),
    neck=dict(in_channels=[4, 8, 16, 32], channels=8, nodes=1),
    bbox_head=dict(in_channels=8, feat_channels=8, stacked_convs=1),
    test_cfg=dict(score_thr=0.0, max_per_img=20),
)
""",
    "head": """
model = dict(
    backbone=dict(base_channels=4),
    neck=dict(in_channels=[4, 8, 16, 32], out_channels=8),
    bbox_head=dict(in_channels=8, feat_channels=8, cls_cell=dict(nodes=1), reg_cell=dict(nodes=1)),
    test_cfg=dict(score_thr=0.0, max_per_img=20),
)
""",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("alone", "parts"),
    [("neck", {"neck": "neck."}), ("head", {part: f"bbox_head.{part}." for part in ("cls_cell", "reg_cell")})],
)
def test_a_neck_and_a_head_alone_on_a_folder(tool, alone, parts, tmp_path, one_thread, capsys):
    data = make(Settings(width=64, height=48, train=14, val=4, test=1), tmp_path / "data")
    search = of_a_folder(tmp_path, data, f"auto_fpn_{alone}_pc_darts_coco_cpu", ALONE[alone] + ONLY_SEARCH)
    assert tool("search")(search, "--work-dir", tmp_path / "s") == 0
    arch = tmp_path / "s" / "architecture.json"
    found = {name: part["choices"] for name, part in json.loads(arch.read_text())["parts"].items()}
    assert set(found) == set(parts)
    recipe = ALONE[alone] + "train_cfg = dict(max_epochs=1, val_interval=1)\n"
    train = of_a_folder(tmp_path, data, f"auto_fpn_{alone}_coco_cpu_retrain", recipe)
    assert tool("train")(train, "--arch", arch, "--work-dir", tmp_path / "t") == 0
    trained = json.loads((tmp_path / "t" / "summary.json").read_text())["architectures"]
    assert sorted(map(json.dumps, trained.values())) == sorted(map(json.dumps, found.values()))
    weights = torch.load(tmp_path / "t" / "checkpoint.pth", weights_only=True)["state_dict"]
    # cells are where they were searched, and nowhere else
    assert not [name for name in weights if ".edges." in name and not name.startswith(tuple(parts.values()))]
    capsys.readouterr()
    assert tool("test")(train, tmp_path / "t" / "checkpoint.pth", "--work-dir", tmp_path / "e") == 0
    assert 0 <= scores_in(capsys.readouterr().out)["coco/bbox_mAP"] <= 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "small", "cells"),
    [
        ("auto_fpn", RETINANET, {"cls_cell": "bbox_head.cls_cell", "reg_cell": "bbox_head.reg_cell"}),
        ("auto_fpn_cells", WHOLE, {"cls_cell": "bbox_head.cls_cell", "reg_cell": "bbox_head.reg_cell"}),
        ("auto_fpn_faster_rcnn", FASTER, {"rpn_cell": "rpn_head.rpn_conv", "box_cell": "roi_head.bbox_head.cell"}),
    ],
)
def test_neck_and_heads(tool, space, small, cells, tmp_path, cache, one_thread, capsys):
    search = write(tmp_path, f"{space}_pc_darts_scenes_cpu", small + ONLY_SEARCH)
    assert tool("search")(search, "--work-dir", tmp_path / "s") == 0
    arch = tmp_path / "s" / "architecture.json"
    found = {name: part["choices"] for name, part in json.loads(arch.read_text())["parts"].items()}
    assert set(found) == {"neck", *cells, *(["backbone"] if space == "auto_fpn_cells" else [])}
    assert {name.partition("/")[0] for name in found["neck"]} == {f"fusion_p{level}" for level in (3, 4, 5, 6)}
    recipe = write(tmp_path, f"{space}_scenes_cpu_retrain", small + "train_cfg = dict(max_epochs=1, val_interval=1)\n")
    assert tool("train")(recipe, "--arch", arch, "--work-dir", tmp_path / "t") == 0
    trained = json.loads((tmp_path / "t" / "summary.json").read_text())["architectures"]
    assert sorted(map(json.dumps, trained.values())) == sorted(map(json.dumps, found.values()))
    weights = torch.load(tmp_path / "t" / "checkpoint.pth", weights_only=True)["state_dict"]
    for part, module in cells.items():
        # the one operation that was found, and no other
        operations = {
            name.removeprefix(f"{module}.").split(".ops.")[1].split(".")[0]
            for name in weights
            if f"{module}.cell.edges" in name
        }
        chosen = {value for choice, value in found[part].items() if "<-" in choice}
        assert operations <= chosen
    capsys.readouterr()
    assert tool("test")(recipe, tmp_path / "t" / "checkpoint.pth", "--work-dir", tmp_path / "e") == 0
    assert "coco/bbox_mAP" in scores_in(capsys.readouterr().out)
