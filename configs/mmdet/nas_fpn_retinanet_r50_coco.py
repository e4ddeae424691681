"""A derived detector for mmdet's own tools/train.py: its RetinaNet with NAS-FPN on COCO, the neck's cells from a file.

Runner, loops, data and metric are mmdet's; ``custom_imports`` and the neck are all that is ours. ``arch`` is a search's
``architecture.json`` (``--cfg-options model.neck.arch=FILE``), here the published cells. This project's tools take the configs
of the other folders.
"""

_base_ = "mmdet::nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco.py"

custom_imports = dict(imports=["backbones", "tasks.detection"], allow_failed_imports=False)
model = dict(
    neck=dict(
        _delete_=True,
        type="search.NASFPN",
        in_channels=[256, 512, 1024, 2048],
        channels=256,
        repeats=7,
        start_level=1,
        arch="{{ fileDirname }}/../../backbones/archs/nas_fpn_cells.json",
        init_cfg=dict(type="Caffe2Xavier", layer="Conv2d"),
    ),
)
