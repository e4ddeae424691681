"""A short training: 12 epochs, SGD 0.05 by a cosine to 0 (for batches of 64)."""

train_cfg = dict(type="search.TrainLoop", max_epochs=12)
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=3e-4),
    clip_grad=dict(max_norm=5),
)
param_scheduler = [dict(type="CosineAnnealingLR", T_max=12, by_epoch=True)]
