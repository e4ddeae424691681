"""A detector's training for 50 epochs, as mmdet's NAS-FPN: SGD 0.08 for batches of 64 images, a tenth after 30 and 40 epochs.

``--auto-scale-lr`` for other batches.
"""

train_cfg = dict(type="search.TrainLoop", max_epochs=50, val_interval=50)
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.08, momentum=0.9, weight_decay=1e-4),
    # the head's levels share convolutions
    paramwise_cfg=dict(norm_decay_mult=0.0, bypass_duplicate=True),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=1000),
    dict(type="MultiStepLR", begin=0, end=50, by_epoch=True, milestones=[30, 40], gamma=0.1),
]
auto_scale_lr = dict(enable=False, base_batch_size=64)
