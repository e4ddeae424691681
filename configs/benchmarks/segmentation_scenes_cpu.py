"""Backbones, paths and context modules of segmentors on the embedded scenes: published, random, and cells of a classifier.

"cells" has a network searched on CIFAR-10 as its backbone; so it has that of any search of the cells' space, of whatever task:
--arch "cells=architecture.json". The published networks are narrower here than they were published.
"""

_archs = "../../backbones/archs"
_segmentation = "../segmentation"
# the published path and cell at the width of the config's own; the head's channels follow
_auto_deeplab_s = [
    "model.backbone._delete_=True",
    "model.backbone.type=search.published",
    "model.backbone.name=Auto-DeepLab-S",
    "model.backbone.filters=8",
    "model.backbone.stem=16,16,24",
    "model.backbone.layout=search",
    "model.backbone.norm=None",
    "model.backbone.drop_path=0.0",
]
# the paper's space, of which the config has a part
_dpc = ["model.neck.rates=1,3,6,9,12,15,18,21", "model.neck.grids=1,2,4,8"]

entries = [
    dict(name="cells", config=f"{_segmentation}/cells_scenes_cpu_retrain.py", arch=f"{_archs}/darts_v2.json"),
    dict(name="cells, random 0", config=f"{_segmentation}/cells_scenes_cpu_retrain.py", random=0),
    dict(
        name="Auto-DeepLab-S",
        config=f"{_segmentation}/auto_deeplab_scenes_cpu_retrain.py",
        options=_auto_deeplab_s,
    ),
    dict(name="Auto-DeepLab, random 0", config=f"{_segmentation}/auto_deeplab_scenes_cpu_retrain.py", random=0),
    dict(
        name="DPC",
        config=f"{_segmentation}/dpc_scenes_cpu_retrain.py",
        arch=f"{_archs}/dpc_cell.json",
        options=_dpc,
    ),
    dict(name="DPC, random 0", config=f"{_segmentation}/dpc_scenes_cpu_retrain.py", random=0),
]
