"""NAS-FPN by random search, every pyramid trained from scratch for 2 epochs, on the embedded
scenes, on 2 cores."""

_base_ = [
    "../_base_/data/scenes_coco_retrain.py",
    "../_base_/model/nas_fpn_small.py",
    "../_base_/strategy/random_search.py",
    "../_base_/schedule/detection_cpu_retrain.py",
    "../_base_/runtime/detection.py",
]

strategy = dict(trials=30)
# the proxy task of a trial: a short training
train_cfg = dict(max_epochs=2, val_interval=2)
param_scheduler = [
    dict(type="CosineAnnealingLR", T_max=2, eta_min=1e-5, begin=0, end=2, by_epoch=True, convert_to_iter_based=True)
]
