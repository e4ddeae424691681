"""The demonstration's training of a searched or random cell on the handwritten digits, 8 epochs."""

_base_ = "../classification/cells_digits_cpu_retrain.py"

model = dict(backbone=dict(layers=4))
train_cfg = dict(max_epochs=8)
param_scheduler = [dict(type="CosineAnnealingLR", T_max=8, by_epoch=True)]
