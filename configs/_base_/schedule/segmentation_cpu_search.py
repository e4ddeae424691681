"""A short search of a segmentor: 8 epochs, AdamW 0.005 by a cosine to 0.0005 (for batches of 8), which needs fewer steps
than SGD to leave the background."""

train_cfg = dict(type="search.BilevelLoop", max_epochs=8, val_interval=4)
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=0.005, weight_decay=1e-4),
    clip_grad=dict(max_norm=5),
)
param_scheduler = [dict(type="CosineAnnealingLR", T_max=8, eta_min=0.0005, by_epoch=True)]
