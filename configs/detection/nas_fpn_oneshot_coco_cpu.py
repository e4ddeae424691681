"""NAS-FPN by single path one-shot, a supernet trained path by path and evolution with its weights, on any folder in COCO's
layout, on 2 cores: --cfg-options data_root=FOLDER."""

_base_ = [
    "../_base_/data/coco_folder_cpu_retrain.py",
    "../_base_/model/nas_fpn_small.py",
    "../_base_/strategy/single_path.py",
    "../_base_/schedule/detection_cpu_retrain.py",
    "../_base_/runtime/detection.py",
]

strategy = dict(trials=30, population=10, sample=4, batches=8)
# each of its convolutions is in a few of the paths
train_cfg = dict(type="search.SinglePathLoop", max_epochs=24, val_interval=8)
param_scheduler = [
    dict(type="CosineAnnealingLR", T_max=24, eta_min=1e-5, begin=0, end=24, by_epoch=True, convert_to_iter_based=True)
]
