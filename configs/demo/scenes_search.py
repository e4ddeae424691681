"""The demonstration's search of a segmentor: Auto-DeepLab's space on the embedded scenes, 4 layers, 6 epochs."""

_base_ = "../segmentation/auto_deeplab_scenes_cpu.py"

model = dict(backbone=dict(layers=4))
train_cfg = dict(max_epochs=6, val_interval=6)
param_scheduler = [dict(type="CosineAnnealingLR", T_max=6, eta_min=0.0005, by_epoch=True)]
