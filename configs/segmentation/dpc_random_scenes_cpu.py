"""Dense prediction cell by random search on the embedded scenes, in minutes on 2 cores: short trainings of 6 random cells."""

_base_ = [
    "../_base_/data/scenes_retrain.py",
    "../_base_/model/dpc_segmentor_small.py",
    "../_base_/strategy/random_search.py",
    "../_base_/schedule/segmentation_cpu_retrain.py",
    "../_base_/runtime/segmentation.py",
]

strategy = dict(trials=6)
executor = dict(jobs=2)
# small batches: short trainings need many steps to leave the background
train_dataloader = dict(batch_size=4)
train_cfg = dict(max_epochs=8, val_interval=8)
optim_wrapper = dict(optimizer=dict(lr=0.003))
param_scheduler = [
    dict(type="PolyLR", power=0.9, eta_min=1e-5, begin=0, end=8, by_epoch=True, convert_to_iter_based=True),
]
