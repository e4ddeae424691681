"""PC-DARTS on ImageNet with the official settings: K = 2, logits from epoch 35 of 50, 8 processes of 128
images.

torchrun --nproc_per_node 8 tools/search.py configs/classification/cells_pc_darts_imagenet.py --launcher
pytorch

Differences from the official code: the schedules multiply, so the 5 warm-up rates, 0.5 * (epoch + 1) / 5, are
up to 1.6 % lower; an epoch's last batch is left out when it isn't full.
"""

_base_ = [
    "../_base_/data/imagenet_search.py",
    "../_base_/model/cell_supernet.py",
    "../_base_/strategy/pc_darts.py",
    "../_base_/schedule/pc_darts_search.py",
    "../_base_/runtime/default.py",
]

model = dict(backbone=dict(stem="imagenet", stem_multiplier=3, partial=2), num_classes=1000)
strategy = dict(freeze_epochs=35)
train_cfg = dict(arch_clip_grad=dict(max_norm=5))
arch_optimizer = dict(lr=6e-3)
optim_wrapper = dict(optimizer=dict(lr=0.5))
auto_scale_lr = dict(base_batch_size=1024)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.2, begin=0, end=5, by_epoch=True),
    dict(type="CosineAnnealingLR", T_max=50, by_epoch=True),
]
