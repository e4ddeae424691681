"""NAS-FPN's proxy task: 10 epochs, SGD 0.08 for batches of 64 images, a tenth after 8. ``auto_scale_lr`` for other batches."""

_base_ = "detection_50e.py"

train_cfg = dict(max_epochs=10, val_interval=10)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=1000),
    dict(type="MultiStepLR", begin=0, end=10, by_epoch=True, milestones=[8], gamma=0.1),
]
# a process of a search by trials has a batch of 8
auto_scale_lr = dict(enable=True)
