"""Training a cell on CIFAR-10 at 16x16: the recipe of the README's comparison, for every architecture alike."""

_base_ = [
    "../_base_/data/cifar10_16_retrain.py",
    "../_base_/schedule/cpu_retrain.py",
    "../_base_/runtime/default.py",
]

model = dict(
    type="search.ImageClassifier",
    backbone=dict(type="search.CellNet", channels=8, layers=4, stem="cifar"),
    # read from the data
    num_classes=10,
)
train_cfg = dict(max_epochs=8, val_interval=8)
param_scheduler = [dict(type="CosineAnnealingLR", T_max=8, by_epoch=True)]
