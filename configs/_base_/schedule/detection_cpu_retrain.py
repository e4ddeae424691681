"""A short training of a detector: 12 epochs, AdamW 0.001 by a cosine (for batches of 8)."""

train_cfg = dict(type="search.TrainLoop", max_epochs=12, val_interval=4)
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=0.001, weight_decay=1e-4),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type="CosineAnnealingLR", T_max=12, eta_min=1e-5, begin=0, end=12, by_epoch=True, convert_to_iter_based=True)
]
