"""The demonstration's search of a detector: NAS-FPN's space by single path one-shot on the embedded scenes, 8 epochs."""

_base_ = [
    "../_base_/data/scenes_coco_144_retrain.py",
    "../_base_/model/nas_fpn_small.py",
    "../_base_/strategy/single_path.py",
    "../_base_/schedule/detection_cpu_retrain.py",
    "../_base_/runtime/detection.py",
]

model = dict(neck=dict(repeats=1))
strategy = dict(trials=10, population=5, sample=2, batches=4)
train_cfg = dict(type="search.SinglePathLoop", max_epochs=8, val_interval=8)
param_scheduler = [
    dict(type="CosineAnnealingLR", T_max=8, eta_min=1e-5, begin=0, end=8, by_epoch=True, convert_to_iter_based=True)
]
