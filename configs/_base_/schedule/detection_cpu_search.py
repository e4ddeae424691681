"""A short search of a detector: 8 epochs, AdamW 0.001 by a cosine to 0.0001 (for batches of 8)."""

train_cfg = dict(type="search.BilevelLoop", max_epochs=8, val_interval=4)
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=0.001, weight_decay=1e-4),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [dict(type="CosineAnnealingLR", T_max=8, eta_min=0.0001, by_epoch=True)]
