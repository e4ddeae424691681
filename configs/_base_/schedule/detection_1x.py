"""A detector's usual training, 12 epochs: SGD 0.01 for batches of 16 images, a tenth after 8 and after 11 epochs.

``--auto-scale-lr`` for other batches.
"""

train_cfg = dict(type="search.TrainLoop", max_epochs=12, val_interval=12)
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=1e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
