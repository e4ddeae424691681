"""The demonstration's training of a detector with a searched or random pyramid on the embedded scenes, 8 epochs."""

_base_ = [
    "../_base_/data/scenes_coco_144_retrain.py",
    "../_base_/model/nas_fpn_small.py",
    "../_base_/schedule/detection_cpu_retrain.py",
    "../_base_/runtime/detection.py",
]

model = dict(neck=dict(repeats=1))
train_cfg = dict(max_epochs=8, val_interval=4)
param_scheduler = [
    dict(type="CosineAnnealingLR", T_max=8, eta_min=1e-5, begin=0, end=8, by_epoch=True, convert_to_iter_based=True)
]
