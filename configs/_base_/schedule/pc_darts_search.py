"""PC-DARTS's search on CIFAR-10: 50 epochs, SGD 0.1 by a cosine to 0 (for batches of 256)."""

train_cfg = dict(type="search.BilevelLoop", max_epochs=50)
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=3e-4),
    clip_grad=dict(max_norm=5),
)
param_scheduler = [dict(type="CosineAnnealingLR", T_max=50, by_epoch=True)]
