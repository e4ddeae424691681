"""The demonstration's training of a searched or random path and cell on the embedded scenes, 12 epochs."""

_base_ = "../segmentation/auto_deeplab_scenes_cpu_retrain.py"

train_dataloader = dict(batch_size=4)
model = dict(backbone=dict(layers=4))
train_cfg = dict(max_epochs=12, val_interval=6)
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=1e-5, begin=0, end=12, by_epoch=True, convert_to_iter_based=True)]
