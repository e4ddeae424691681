"""A short search: 8 epochs, SGD 0.05 by a cosine to 0.001 (for batches of 64)."""

train_cfg = dict(type="search.BilevelLoop", max_epochs=8)
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=3e-4),
    clip_grad=dict(max_norm=5),
)
param_scheduler = [dict(type="CosineAnnealingLR", T_max=8, eta_min=0.001, by_epoch=True)]
